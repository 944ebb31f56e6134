"""SVRE, CWA and AdaEA against their algorithms, written out sample by sample."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interaction_train.attacks import (
    CWA,
    SVRE,
    AdaEA,
    Ensemble,
    InputDiversity,
    Momentum,
    TransferAttack,
    VarianceTuning,
)
from interaction_train.attacks.members import agreement
from interaction_train.errors import InputError

from .parts.checks import check_all, craft, images
from .parts.test_layers import built

EPS, ALPHA = 8 / 255, 2 / 255
Y = torch.tensor([0, 1, 2, 3])


def members(count=3):
    return [built(seed).double() for seed in range(count)]


def gradient(forward, x, y):
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(forward(leaf), y), leaf)[0]


def moved(point, direction, clean, size=ALPHA):
    delta = (point + size * direction - clean).clamp(-EPS, EPS)
    return (clean + delta).clamp(0, 1)


def mean_of(nets):
    return lambda x: sum(net(x) for net in nets) / len(nets)


def momentum_loop(x, y, outer_direction):
    """Three steps along the momentum of what ``outer_direction(point, number)`` gives."""
    point, momentum = x, 0
    for number in range(3):
        direction = outer_direction(point, number)
        momentum = momentum + direction / direction.abs().mean()
        point = moved(point, momentum.sign(), x)
    return point


def test_svre_is_as_published():
    nets, x = members(), images().double()
    order = []

    class Noted(SVRE):
        def chosen(self, step, count):
            order.append(super().chosen(step, count))
            return order[-1]

    found = craft(Ensemble(nets), x, Y, objective=Noted(beta=0.5), parts=[Momentum()])
    assert [len(chosen) for chosen in order] == [12, 12, 12]
    assert {k for chosen in order for k in chosen} == {0, 1, 2}
    assert order[0] != order[1]
    for b in range(4):
        clean, y = x[b : b + 1], Y[b : b + 1]

        def inner_loop(point, number, clean=clean, y=y):
            whole = gradient(mean_of(nets), point, y)
            inner, momentum = point, 0
            for k in order[number]:
                g = gradient(nets[k], inner, y) - (gradient(nets[k], point, y) - whole)
                momentum = momentum + g / g.abs().mean()
                inner = moved(inner, momentum.sign(), clean, 0.5 * ALPHA)
            return momentum

        assert (found[b : b + 1] - momentum_loop(clean, y, inner_loop)).abs().max() < 1e-12


def test_cwa_is_as_published():
    nets, x = members(), images().double()
    objective = CWA(reverse=0.2, inner=0.4, decay=0.9)
    found = craft(Ensemble(nets), x, Y, objective=objective, parts=[Momentum()])
    released = 0.4 * EPS * (3 * 8 * 8) ** 0.5  # the size for gradients of length 1
    for b in range(4):
        clean, y = x[b : b + 1], Y[b : b + 1]
        kept = [0]

        def inner_loop(point, number, clean=clean, y=y, kept=kept):
            whole = gradient(mean_of(nets), point, y)
            inner = moved(point, -whole.sign(), clean, 0.2 * EPS)
            for net in nets:
                g = gradient(net, inner, y)
                kept[0] = 0.9 * kept[0] + g / g.norm()
                inner = moved(inner, kept[0], clean, released)
            return inner - point

        assert (found[b : b + 1] - momentum_loop(clean, y, inner_loop)).abs().max() < 1e-12


@pytest.mark.parametrize("targeted", [False, True])
def test_adaea_is_as_published(targeted):
    nets, x, sign = members(), images().double(), -1 if targeted else 1
    attack = TransferAttack(
        Ensemble(nets, "losses"), EPS, ALPHA, 3,
        objective=AdaEA(beta=2.0, threshold=0.1), parts=[Momentum()],
    )  # fmt: skip
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    found = attack(x, Y)
    for b in range(4):
        clean, y = x[b : b + 1], Y[b : b + 1]

        def direction(point, number, clean=clean, y=y):
            gradients = [sign * gradient(net, point, y) for net in nets]
            ahead = [moved(point, g.sign(), clean) for g in gradients]
            scores = []
            for j in range(3):
                score = 0
                for i in range(3):
                    if i != j:
                        own = F.cross_entropy(nets[i](ahead[i]), y)
                        other = F.cross_entropy(nets[i](ahead[j]), y)
                        score = score + (own / other if targeted else other / own)
                scores.append(2.0 * score)
            weights = torch.stack(scores).softmax(0).detach()
            whole = gradient(
                lambda leaf: sum(w * net(leaf) for w, net in zip(weights, nets, strict=True)),
                point,
                y,
            )
            cosine = 0
            for i, j in ((0, 1), (0, 2), (1, 2)):
                cosine = cosine + F.cosine_similarity(gradients[i], gradients[j], dim=1) / 3
            return sign * whole * (cosine >= 0.1).unsqueeze(1)

        assert (found[b : b + 1] - momentum_loop(clean, y, direction)).abs().max() < 1e-12


def test_agreement_of_equal_and_opposite_gradients():
    g = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(agreement(torch.stack([g, 2 * g])), torch.ones(2, 1, 4, 5))
    torch.testing.assert_close(agreement(torch.stack([g, -g])), -torch.ones(2, 1, 4, 5))


@pytest.mark.parametrize("objective", [SVRE(updates=3), CWA(), AdaEA(), SVRE("margin", 2)])
@pytest.mark.parametrize("parts", [[], [InputDiversity(0.7, 0.8), VarianceTuning(2), Momentum()]])
def test_what_every_objective_keeps(objective, parts):
    surrogate = Ensemble([built(0), built(1)], "losses")
    check_all(surrogate, images(), objective=objective, parts=parts)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10)])
@pytest.mark.parametrize("objective", [SVRE(), CWA(), AdaEA()])
def test_shapes(shape, objective):
    x, surrogate = images(shape), Ensemble([built(0, shape), built(1, shape)], "probabilities")
    assert craft(surrogate, x, Y, objective=objective).shape == x.shape


@pytest.mark.parametrize("objective", [SVRE(), CWA(), AdaEA()])
def test_other_surrogates_are_refused(objective):
    name = type(objective).__name__
    with pytest.raises(
        InputError, match=f"model: got Sequential, expected an Ensemble, for {name}"
    ):
        craft(built(), images(), Y, objective=objective)


def test_what_does_not_fit_adaea():
    with pytest.raises(InputError, match="model: got an Ensemble of one"):
        craft(Ensemble([built()]), images(), Y, objective=AdaEA())
    flat = Ensemble([nn.Linear(12, 4), nn.Linear(12, 4)])
    with pytest.raises(InputError, match=r"images: got shape \(4, 12\).*for AdaEA"):
        craft(flat, torch.rand(4, 12), Y, objective=AdaEA())
    for objective in (SVRE(), CWA()):
        assert craft(flat, torch.rand(4, 12), Y, objective=objective).shape == (4, 12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SVRE(updates=0),
        lambda: SVRE(beta=-1),
        lambda: CWA(inner=-1),
        lambda: AdaEA(beta=-1),
        lambda: AdaEA(threshold=2),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(InputError, match=r"updates|beta|inner|threshold"):
        make()
