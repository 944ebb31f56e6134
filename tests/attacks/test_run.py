"""Any attack, called from anywhere: nothing depends on what ran before, and nothing is left."""

import random

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from interaction_train.attacks import Ensemble, IRAttack, TransferAttack, presets
from interaction_train.attacks.jobs import make_attack
from interaction_train.attacks.run import counted_passes, craft, run_attack, set_epsilon
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.errors import InputError
from tests.attacks.transfer.transfer_case import ALPHA, EPS, STEPS, images, network, pgd


class Noise(torchattacks.attack.Attack):
    """Draws from every global state, or does what a test wants."""

    def __init__(self, model, act=None):
        super().__init__("Noise", model)
        self.act = act

    def forward(self, x, y):
        if self.act is not None:
            return self.act(self, x, y)
        shift = torch.rand_like(x) + float(np.random.rand()) + random.random()  # noqa: NPY002
        return (x + 0.1 * shift).clamp(0, 1)


def states():
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002


def same(before, after):
    return (
        torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    )


def test_random_states_neither_matter_nor_change():
    attack, (x, y) = Noise(network(0)), images()
    before = states()
    first = run_attack(attack, x, y)[0]
    assert same(before, states())
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    assert torch.equal(run_attack(attack, x, y)[0], first)
    assert not torch.equal(run_attack(attack, x, y, seed=1)[0], first)
    # Another batch draws other numbers.
    assert not torch.equal(run_attack(attack, x[1:], y[1:])[0], first[1:])


def test_nothing_is_left_by_an_attack_that_fails():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    net[2].eval()
    net.requires_grad_(True)
    net[1].weight.requires_grad_(False)
    before = states(), [m.training for m in net.modules()]

    def fail(attack, x, y):
        attack.model.train()
        torch.rand(3)
        loss = attack.model(x.requires_grad_()).sum()
        loss.backward()
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        run_attack(Noise(net, fail), *images())
    assert same(before[0], states())
    assert [m.training for m in net.modules()] == before[1]
    assert all(p.grad is None for p in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == [False, *[True] * 5]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_around(context):
    net, (x, y) = network(0), images()
    expected = run_attack(pgd(net), x, y)[0]
    with context():
        # Images that the loader made under inference mode can take no part in autograd themselves.
        assert torch.equal(run_attack(pgd(net), x.clone(), y.clone())[0], expected)
    assert (expected - x).abs().max() > 0.5 * EPS


def test_targets_are_told():
    net, (x, y) = network(0), images()
    attack = pgd(net)
    assert run_attack(attack, x, y)[1] is None
    attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % 3, quiet=True)
    adversarial, targets = run_attack(attack, x, y)
    assert torch.equal(targets, (y + 1) % 3)
    assert torch.equal(adversarial, attack(x, y))
    assert "get_target_label" not in vars(attack)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda attack, x, y: x[:, :, 1:], "Noise: got shape"),
        (lambda attack, x, y: x / 0, "Noise: got images with NaN or infinite pixels"),
    ],
)
def test_bad_results_are_refused(act, message):
    with pytest.raises(InputError, match=message):
        run_attack(Noise(network(0), act), *images())


def test_targets_that_are_not_told_are_refused():
    attack = Noise(network(0))
    attack.targeted = True
    with pytest.raises(InputError, match="get_target_label"):
        run_attack(attack, *images())


def test_images_outside_0_1_are_refused():
    x, y = images()
    with pytest.raises(InputError, match=r"images: got values from .* normalization="):
        run_attack(pgd(network(0)), 3 * x - 1, y)
    normalized = pgd(network(0))
    normalized.set_normalization_used([0.5], [0.25])
    found = run_attack(normalized, (x - 0.5) / 0.25, y)[0] * 0.25 + 0.5
    assert (found - x).abs().max() == pytest.approx(EPS, abs=1e-5)


def own(net):
    return TransferAttack(net, EPS, ALPHA, STEPS)


@pytest.mark.parametrize("make", [pgd, own])
def test_targets_that_are_the_labels_are_refused(make):
    net, (x, y) = network(0), images()
    attack = make(net)
    attack.set_mode_targeted_by_label(quiet=True)
    with pytest.raises(InputError, match="targets equal to the labels"):
        run_attack(attack, x, y)
    attack.set_mode_targeted_by_function(lambda x, y: torch.zeros_like(y), quiet=True)
    with pytest.raises(InputError, match="targets equal to the labels"):
        run_attack(attack, x, torch.zeros_like(y))
    attack.set_mode_targeted_least_likely(kth_min=3, quiet=True)  # of three classes
    with pytest.raises(InputError, match="kth_min below the number of classes"):
        run_attack(attack, x, y)
    inside = torchattacks.MultiAttack([make(net), attack])
    with pytest.raises(InputError, match="kth_min below the number of classes"):
        run_attack(inside, x, net(x).argmax(-1))


@pytest.mark.parametrize("make", [pgd, own])
def test_targets_by_rule_and_by_list(make):
    net, (x, y) = network(0), images()
    least = net(x).scatter(1, y[:, None], torch.inf).argmin(1)
    assert torch.equal(run_attack(make_attack(make, net, targets="least_likely"), x, y)[1], least)
    listed = run_attack(make_attack(make, net, targets=[0, 2]), x, y)[1]
    assert torch.isin(listed, torch.tensor([0, 2])).all()
    assert (listed != y).all()
    random = run_attack(make_attack(make, net, targets="random"), x, y)[1]
    assert (random != y).all()
    with pytest.raises(InputError, match="targets: got 'likely'"):
        make_attack(make, net, targets="likely")
    with pytest.raises(InputError, match="nothing aims at the label"):
        run_attack(make_attack(make, net, targets=[1]), x, torch.ones_like(y))
    with pytest.raises(InputError, match=r"targets: got 'random'.*DeepFool cannot aim"):
        make_attack(torchattacks.DeepFool, net, targets="random")


class Holder(torchattacks.attack.Attack):
    """Holds attacks where torchattacks does not look for them."""

    def __init__(self, model, held):
        super().__init__("Holder", model)
        self.held = {"deep": (held,)}


def test_the_bound_reaches_nested_attacks():
    net = network(0)
    inner = torchattacks.MultiAttack([pgd(net), pgd(net)])
    holder = Holder(net, inner)
    set_epsilon(holder, 0.5 * EPS)
    for part in inner.attacks:
        assert (part.eps, part.alpha) == (0.5 * EPS, pytest.approx(0.5 * ALPHA))


def test_no_step_size_goes_with_a_bound_of_zero():
    attack = presets.Fast(network(0), eps=0)
    with pytest.raises(InputError, match=r"^epsilons: got Fast with eps = 0"):
        set_epsilon(attack, 0.1)
    set_epsilon(attack, 0)


def test_a_bound_of_grey_levels_is_warned_of():
    with pytest.warns(UserWarning, match="eps = 8 in L∞"):
        make_attack(lambda net: torchattacks.PGD(net, eps=8), network(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("eps", [8 / 255, 0.1])
def test_half_precision_stays_within_the_bound(dtype, eps):
    net, x = network(0), torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(-1)
    attack = torchattacks.PGD(net, eps=eps, alpha=eps / 4, steps=8)
    wide = craft(attack, x, y)
    net.to(dtype)
    found = craft(attack, x.to(dtype), y)
    moved = (found.double() - x.to(dtype).double()).abs()
    assert found.dtype == dtype
    assert moved.max() <= eps * (1 + 1e-5)
    assert found.min() >= 0
    assert found.max() <= 1
    right = [net(z.to(dtype)).argmax(-1).eq(y).float().mean() for z in (wide, found)]
    assert right[1] <= right[0] + 0.1
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


def test_gradients_of_a_sure_network_do_not_vanish_in_float16():
    """Weights so large that the gradients of pixels are below what float16 can hold."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        net[1].weight[0], net[1].weight[1] = 1.0, -1.0
    x, y = torch.full((4, 1, 4, 4), 0.5), torch.zeros(4, dtype=torch.int64)
    # Logits 8 and −8: p = 1e-7, so float16 has no gradient of it.
    found = craft(torchattacks.FGSM(net.half(), eps=0.1), x.half(), y)
    assert (found - x).abs().min() == pytest.approx(0.1, rel=1e-2)


# --- passes ---------------------------------------------------------------------------------------


def passes(net, make):
    x, y = images()
    with counted_passes(net) as counter:
        run_attack(make(net), x, y)
    assert not net._forward_hooks
    return counter["forwards"] / len(x), counter["backwards"] / len(x)


def ir(model):
    return IRAttack(model, EPS, ALPHA, STEPS, grid=2, draws=3, size=1, mix="losses")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (pgd, (STEPS, STEPS)),
        (lambda net: torchattacks.VMIFGSM(net, EPS, ALPHA, STEPS, N=5), (6 * STEPS, 6 * STEPS)),
        (lambda net: torchattacks.FGSM(net, EPS), (1, 1)),
        (lambda net: torchattacks.GN(net), (0, 0)),
        (lambda net: TransferAttack(net, EPS, ALPHA, STEPS, chunk_size=3), (STEPS, STEPS)),
        (ir, (7 * STEPS, 7 * STEPS)),  # on the margin, loss and v(N) are one
    ],
    ids=["PGD", "VMI-FGSM", "FGSM", "noise", "ours", "IR"],
)
def test_passes_are_the_networks_real_calls(make, expected):
    assert passes(network(0), make) == expected


def test_forwards_without_gradient_are_no_backwards():
    net = network(0)
    with counted_passes(net) as counter:
        net(torch.rand(5, 1, 4, 4)).argmax(1)
        with torch.no_grad():
            net(torch.rand(2, 1, 4, 4))
    net(torch.rand(2, 1, 4, 4))
    assert (counter["forwards"], counter["backwards"]) == (7, 0)


@pytest.mark.parametrize("average", ["logits", "losses"])
def test_members_of_an_ensemble_are_counted(average):
    ensemble = Ensemble([network(0), network(1)], average)
    make = lambda net: TransferAttack(net, EPS, ALPHA, STEPS)  # noqa: E731
    assert passes(ensemble, make) == (2 * STEPS, 2 * STEPS)


def test_hooks_are_gone_after_an_exception():
    net = network(0)
    kept = net.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError), counted_passes(net):  # 16 features do not fit 4
        net(torch.rand(2, 1, 2, 2))
    assert list(net._forward_hooks) == [kept.id]


# --- proportions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "total"), [(3, 10), (1, 400), (55, 60)])
def test_wilson_bounds_are_where_the_score_test_ends(successes, total):
    share = Proportion(successes, total)
    for p in share.interval:  # (rate − p)² = z² p (1 − p) / n at both ends
        assert (share.rate - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / total)
    assert share.interval[0] < share.rate < share.interval[1]


def test_wilson_at_the_ends_and_of_nothing():
    z2 = 1.959963984540054**2
    assert Proportion(0, 10).interval == (0, pytest.approx(z2 / (10 + z2)))
    assert Proportion(10, 10).interval == (pytest.approx(10 / (10 + z2)), 1)
    assert all(map(np.isnan, (Proportion(0, 0).rate, *Proportion(0, 0).interval)))
