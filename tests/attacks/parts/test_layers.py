"""ILPD against its definition."""

import pytest
import torch
from torch import nn

from interaction_train.attacks import (
    Ensemble,
    InputDiversity,
    InteractionObjective,
    IntermediatePerturbationDecay,
    Momentum,
    ScaleInvariance,
    VarianceTuning,
)
from interaction_train.attacks.norms import step_and_project
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses.reduction import GroupReduction

from .checks import BUDGET, check_all, craft, images


def network(seed=0, channels=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(5),
    ).eval()


def built(seed=0, shape=(3, 8, 8)):
    net = network(seed, shape[0])
    net(torch.rand(1, *shape))
    return net


def test_the_definition_per_sample():
    """With the noise as the part draws it; the layer is followed by an in-place operation."""
    net, x, y = built().double(), images().double(), torch.tensor([0, 1, 2, 3])
    noises = []

    class Noted(IntermediatePerturbationDecay):
        def vary(self, rows, copy, step):
            noisy = super().vary(rows, copy, step)
            if not torch.is_grad_enabled():
                noises.append(noisy - rows)
            return noisy

    part = Noted("2", gamma=0.2, noise=2.0, copies=2)
    found = craft(net, x, y, parts=[part])
    noise = torch.stack(noises)  # (steps, B, copies, C, H, W)
    assert noise.std() == pytest.approx(2 * BUDGET["eps"], rel=0.05)
    assert (noise[:, :, 0] != noise[:, :, 1]).all()
    front, back = net[:3], net[3:]
    for b in range(4):
        clean = x[b : b + 1]
        point = clean
        for number in range(BUDGET["steps"]):
            leaf = point.detach().requires_grad_()
            loss = 0
            for k in range(2):
                decayed = 0.2 * front(leaf) + 0.8 * front(clean + noise[number, b, k]).detach()
                loss = loss + nn.functional.cross_entropy(back(decayed), y[b : b + 1])
            (gradient,) = torch.autograd.grad(loss, leaf)
            point = step_and_project(point, gradient, clean, "Linf", 8 / 255, 2 / 255)
        assert (found[b : b + 1] - point).abs().max() < 1e-12


def test_noise_is_in_units_of_epsilon_also_in_l2():
    seen = []

    class Noted(IntermediatePerturbationDecay):
        def vary(self, rows, copy, step):
            noisy = super().vary(rows, copy, step)
            if not torch.is_grad_enabled():
                seen.append((noisy - rows).flatten(2).norm(dim=2))
            return noisy

    craft(
        built(), images(), torch.arange(4), norm="L2", eps=0.5, alpha=0.1,
        parts=[Noted("2", noise=1.0)],
    )  # fmt: skip
    assert torch.cat(seen).mean() == pytest.approx(0.5, rel=0.05)


def test_clean_images_take_the_way_of_the_adversarial_ones():
    """Without noise, in the first step both are the same image."""
    net, x, y = built(), images(), torch.arange(4)
    values = []
    handle = net[3].register_forward_pre_hook(lambda _, args: values.append(args[0].clone()))
    parts = [InputDiversity(0.6, 1.0), ScaleInvariance(3)]
    craft(net, x, y, steps=1, parts=[*parts, IntermediatePerturbationDecay("2", noise=0.0)])
    handle.remove()
    clean, adversarial = values
    assert len(clean) == 12
    torch.testing.assert_close(clean, adversarial)


def test_gamma_one_changes_nothing():
    net, x, y = built(), images(), torch.arange(4)
    assert torch.equal(
        craft(net, x, y), craft(net, x, y, parts=[IntermediatePerturbationDecay("2", gamma=1.0)])
    )


GROUPS = GroupReduction(GridPlayers(4, 4), 2, 4)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"objective": InteractionObjective("cross_entropy", 0.5, "gradients", GROUPS)},
        {"others": [InputDiversity(0.7, 0.8, copies=2), VarianceTuning(2), Momentum()]},
    ],
)  # fmt: skip
def test_what_every_part_keeps(more):
    parts = [*more.pop("others", []), IntermediatePerturbationDecay("2", 0.3, copies=2)]
    check_all(built(), images(), parts=parts, **more)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10)])
def test_shapes(shape):
    x = images(shape)
    part = IntermediatePerturbationDecay("2")
    assert craft(built(shape=shape), x, torch.arange(4), parts=[part]).shape == x.shape


def test_layers_of_an_ensemble():
    members = [built(0), nn.Sequential(nn.Identity(), *built(1))]
    x, y = images(), torch.arange(4)
    named = IntermediatePerturbationDecay(["2", "3"])
    for average in ("logits", "losses"):
        assert craft(Ensemble(members, average), x, y, parts=[named]).isfinite().all()
    with pytest.raises(InputError, match="layer: got 1 names, expected one, or 2, one per member"):
        craft(Ensemble(members), x, y, parts=[IntermediatePerturbationDecay(["2"])])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.idle = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x):
        return self.shared(self.shared(x).relu())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("shard", "layer: got 'shard', expected a submodule of the network, such as shared"),
        ("shared", "layer: got 'shared', called several times, expected a layer that a forward"),
        ("idle", "layer: got 'idle', which is never called"),
    ],
)
def test_layers_that_do_not_fit(layer, message):
    with pytest.raises(InputError, match=message):
        craft(
            Twice(),
            torch.rand(4, 12),
            torch.arange(4),
            parts=[IntermediatePerturbationDecay(layer)],
        )


@pytest.mark.parametrize("setting", [{"gamma": 0}, {"gamma": 1.1}, {"noise": -1}, {"copies": 0}])
def test_settings_out_of_range(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        IntermediatePerturbationDecay("2", **setting)
