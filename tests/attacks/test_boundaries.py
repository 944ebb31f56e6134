"""What comes in as it should not, and what a part or an objective silently left out before."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import interaction_train as it
from interaction_train.attacks import (
    InputDiversity,
    InteractionObjective,
    MaskedObjective,
    Momentum,
    Nesterov,
    Objective,
    Part,
    RandomNoise,
    ScaleInvariance,
    TranslationInvariance,
    VarianceTuning,
    skip_gradient,
)
from interaction_train.errors import InputError

BUDGET = {"eps": 8 / 255, "alpha": 2 / 255, "steps": 5}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    ).eval()


def images(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(6, 3, 8, 8, generator=generator), torch.arange(6)


def test_a_single_noisy_copy_is_noisy():
    x, y = images()
    net = network()
    plain = it.TransferAttack(net, **BUDGET)(x, y)
    noisy = it.TransferAttack(net, **BUDGET, parts=[RandomNoise(2.0)])(x, y)
    assert not torch.equal(plain, noisy)


def test_a_part_with_one_copy_of_its_own_is_applied():
    class Darker(Part):
        def vary(self, rows, copy, step):
            return rows * 0

    x, y = images()
    with pytest.warns(UserWarning, match="gradient was zero"):
        result = it.TransferAttack(network(), **BUDGET, parts=[Darker()])(x, y)
    assert torch.equal(result, x)


def test_the_margin_at_weight_one_is_the_masked_ablation():
    x, y = images()
    net = network()
    groups = it.GroupReduction(it.GridPlayers(4, 4), 4, 4)
    ir = InteractionObjective("margin", 1.0, reduction=groups)
    masked = MaskedObjective("margin", reduction=groups)
    crafted = [it.TransferAttack(net, **BUDGET, objective=o)(x, y) for o in (ir, masked)]
    assert torch.equal(*crafted)
    other = InteractionObjective("margin", 2.0, reduction=groups)
    assert not torch.equal(it.TransferAttack(net, **BUDGET, objective=other)(x, y), crafted[0])


@pytest.mark.parametrize("weight", [0.25, 0.5, 2.0])
@pytest.mark.parametrize("targeted", [False, True])
def test_on_the_margin_the_whole_image_and_the_masks_share_the_weight(weight, targeted):
    """(1 − λ)·v(N) + λ·E_A[v(N∖A) + v(A)], by a plain loop over groups."""
    x, y = images()
    x, net = x.double(), network().double()
    groups = it.GroupReduction(it.GridPlayers(4, 4), 3, 4)
    seen = []

    class Look(Part):
        def update(self, gradient, step):
            seen.append((gradient, step))
            return gradient

    objective = InteractionObjective("margin", weight, reduction=groups)
    attack = it.TransferAttack(net, 0.1, 0.04, 2, objective=objective, parts=[Look()])
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    attack(x, y)
    gradient, step = seen[1]  # in the first step δ is 0
    point = step.adversarial.detach().requires_grad_()
    sign = 1 if targeted else -1
    with torch.no_grad():
        others = net(point).scatter(1, y[:, None], -torch.inf).argmax(1)

    def value(rows):
        logits = net(rows)
        row = torch.arange(len(y))
        return sign * (logits[row, y] - logits[row, others]).sum() / len(y)

    total = (1 - weight) * value(point)
    inside = groups.groups(step.draws, 16)
    for k in range(3):
        cells = inside[:, k].view(-1, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        for mask in (cells, ~cells):
            total = total + weight / 3 * value(torch.where(mask, point, x))
    (want,) = torch.autograd.grad(total, point)
    assert float((gradient - want).abs().max()) < 1e-12


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["logit", "tempered"])
def test_the_logit_and_the_temperature_are_what_they_say(loss, targeted):
    x, y = images()
    x, net = x.double(), network().double()
    objective = Objective("logit") if loss == "logit" else Objective(temperature=5.0)
    attack = it.TransferAttack(net, 0.1, 0.1, 1, objective=objective, norm="L2")
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    point = x.clone().requires_grad_()
    logits = net(point)
    if loss == "logit":
        total = logits[torch.arange(6), y].sum()
    else:
        total = -nn.functional.cross_entropy(logits / 5, y)
    (ascent,) = torch.autograd.grad(total if targeted else -total, point)
    want = (x + 0.1 * ascent / ascent.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)
    assert float((attack(x, y) - want).abs().max()) < 1e-9
    with pytest.raises(InputError, match="temperature"):
        Objective("margin", temperature=2.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_the_bound_and_fools_as_well(dtype):
    x, y = images()
    y = network()(x).argmax(1)
    wide = it.TransferAttack(network(), 0.1, 0.02, 10)(x, y)
    half = network().to(dtype)
    found = it.TransferAttack(half, 0.1, 0.02, 10)(x, y)
    assert found.dtype == torch.float32
    assert float((found - x).abs().max()) <= 0.1 + 1e-6
    right = [(net(image).argmax(1) == y).float().mean() for net, image in ((network(), wide),)]
    fooled = (half(found.to(dtype)).float().argmax(1) == y).float().mean()
    assert abs(float(fooled - right[0])) <= 1 / 6
    stored = it.TransferAttack(half, 0.1, 0.02, 10)(x.to(dtype), y)
    assert stored.dtype == dtype
    assert float((stored.float() - x.to(dtype).float()).abs().max()) <= 0.1
    assert all(not m._forward_pre_hooks for m in half.modules())


@pytest.mark.parametrize("average", ["logits", "probabilities", "losses"])
def test_gradients_of_an_ensemble_in_float16_do_not_overflow(average):
    """Sure of the wrong class: the gradient at the logits is 1/6, which 2^20 times is too much."""
    x, y = images()
    members = [network(seed) for seed in (0, 1)]
    y = (it.Ensemble(members)(x).argmax(1) + 1) % 10
    wide = it.TransferAttack(it.Ensemble(members, average), **BUDGET)(x, y)
    half = it.Ensemble([member.half() for member in members], average)
    found = it.TransferAttack(half, **BUDGET)(x, y)
    assert float((found - wide).abs().mean()) < 0.1 * BUDGET["eps"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: it.TransferAttack([network()]), r"model: got list.*Ensemble"),
        (lambda: it.TransferAttack(network(), parts=["MI"]), r"parts: got 'MI'.*Momentum\(\)"),
        (lambda: it.TransferAttack(network(), parts=[Momentum]), "parts: got <class.*such as"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 3, 8, 8)), torch.arange(2), "images: got ndarray.*as_tensor"),
        (torch.rand(2, 3, 8, 8), [0, 1], "labels: got list"),
        (torch.rand(2, 3, 8, 8), torch.arange(2).int(), r"labels: got torch.int32 \(2,\)"),
        (torch.rand(2, 3, 8, 8), torch.eye(10)[:2].long(), r"labels: got torch.int64 \(2, 10\)"),
        (torch.rand(2, 3, 8, 8) * 255, torch.arange(2), r"images: got values from.*in \[0, 1\]"),
    ],
)
def test_bad_batches(x, y, message):
    with pytest.raises(InputError, match=message):
        it.TransferAttack(network(), **BUDGET)(x, y)


class NoFloat64(TorchDispatchMode):
    """A device without float64, such as Apple's."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError(f"{func} makes float64")
        return found


@pytest.mark.parametrize(
    "part",
    [
        RandomNoise(copies=2),
        InputDiversity(0.7, 1.0),
        InputDiversity(1.3, 1.0),
        Momentum(),
        Nesterov(),
        ScaleInvariance(2),
        TranslationInvariance(3),
        VarianceTuning(2),
    ],
    ids=repr,
)
def test_parts_need_no_float64(part):
    x, y = images()
    crafted = it.TransferAttack(network(), **BUDGET, parts=[part])(x, y)
    with NoFloat64():
        assert torch.equal(it.TransferAttack(network(), **BUDGET, parts=[part])(x, y), crafted)


@pytest.mark.parametrize("part", [TranslationInvariance(3), InputDiversity()])
def test_parts_for_images_say_so(part):
    net = nn.Sequential(nn.Linear(12, 5))
    with pytest.raises(InputError, match=rf"images: got shape \(4, 12\).*{type(part).__name__}"):
        it.TransferAttack(net, **BUDGET, parts=[part])(torch.rand(4, 12), torch.arange(4))


def test_kth_min_below_the_number_of_classes():
    x, y = images()
    attack = it.TransferAttack(network(), **BUDGET)
    attack.set_mode_targeted_least_likely(kth_min=10, quiet=True)
    with pytest.raises(InputError, match="kth_min: got 10, expected 1 to 9, kth_min below"):
        attack(x, y)


def test_a_bound_of_grey_levels_is_warned_about():
    with pytest.warns(UserWarning, match="TransferAttack has eps = 8"):
        it.TransferAttack(network(), eps=8)


class Positional(nn.Module):
    """A residual branch that no name tells: x + depthwise(x)."""

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.depthwise, self.gamma = nn.Conv2d(4, 4, 3, padding=1, groups=4), gamma

    def forward(self, x):
        branch = self.depthwise(x).tanh()
        return x + self.gamma * branch + (1 - self.gamma) * branch.detach()


class Named(nn.Module):
    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.gamma = gamma

    def forward(self, x):
        branch = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (x + self.gamma * branch + (1 - self.gamma) * branch.detach()).relu()


def residual(gamma: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    layers = [Named(gamma), Positional(gamma), Named(gamma), Positional(gamma)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


def test_branches_of_unknown_kinds_are_found_by_what_they_do():
    """The gradient equals that of γF + (1 − γ)·stopgrad(F) in every block, known or not."""

    class Bare(Positional):
        def forward(self, x):
            return x + self.depthwise(x).tanh()

    class BareNamed(Named):
        def forward(self, x):
            return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()

    torch.manual_seed(0)
    layers = [BareNamed(), Bare(), BareNamed(), Bare()]
    bare = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    x = torch.rand(2, 4, 6, 6, requires_grad=True)
    with skip_gradient(bare, 0.4):
        (found,) = torch.autograd.grad(bare(x)[:, 0].sum(), x)
    (expected,) = torch.autograd.grad(residual(0.4)(x)[:, 0].sum(), x)
    torch.testing.assert_close(found, expected)
    (plain,) = torch.autograd.grad(bare(x)[:, 0].sum(), x)
    assert not torch.allclose(plain, found)
