"""Momentum along the gradient, momentum from first steps, schedules: against plain loops."""

import math
from itertools import pairwise

import pytest
import torch

from interaction_train.attacks import (
    EnhancedMomentum,
    FlipDecay,
    GlobalMomentum,
    Momentum,
    StepSchedule,
    TransferAttack,
)
from interaction_train.sampling.random import Draws, content_hash
from tests.attacks.parts.test_flatness import ALPHA, EPS, STEPS, agrees, moved, slope, unit
from tests.attacks.parts.test_gradient_parts import batch, network


@pytest.mark.parametrize("sampling", ["linear", "uniform"])
def test_emi(sampling):
    def plain(net, clean, y):
        x, momentum, direction = clean, torch.zeros_like(clean), torch.zeros_like(clean)
        for number in range(1, STEPS + 1):
            factors = torch.linspace(-7, 7, 5).double()
            if sampling == "uniform":
                draws = Draws(content_hash(clean[None]), 0, "attack", number)
                factors = 7 * (2 * draws.uniform("enhanced momentum", 5).double().flatten() - 1)
            found = sum(slope(net, x + c * ALPHA * direction, y) for c in factors) / 5
            direction = unit(found)
            momentum = 0.9 * momentum + direction
            x = moved(x, clean, ALPHA * momentum.sign())
        return x

    agrees([EnhancedMomentum(0.9, 5, 0.7, sampling)], plain)


def test_emi_in_l2_reaches_as_far_as_told():
    seen, kept = [], []
    net, (x, y) = network(), batch()
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    parts = [EnhancedMomentum(copies=2, reach=0.5)]
    attack = TransferAttack(net, 0.4, 0.1, 2, parts=parts, norm="L2")
    attack.on_step = lambda number, images: kept.append(images)
    attack(x, y)
    ends = seen[1].unflatten(0, (4, 2)) - kept[0].unsqueeze(1)
    per_pixel = ends.flatten(2).abs().mean(2)
    assert (per_pixel - 0.5 * 0.4 / x[0].numel() ** 0.5).abs().max() < 1e-6
    assert (ends[:, 0] + ends[:, 1]).abs().max() < 1e-6


def test_gi():
    def plain(net, clean, y):
        momentum = torch.zeros_like(clean)
        for size, steps in ((6 * ALPHA, 2), (ALPHA, STEPS - 2)):
            x = clean
            for _ in range(steps):
                momentum = momentum + unit(slope(net, x, y))
                x = moved(x, clean, size * momentum.sign())
        return x

    agrees([GlobalMomentum(2, 6.0), Momentum()], plain)


def test_gi_goes_back_to_a_random_start():
    net, (x, y) = network(), batch()
    seen = []
    parts = [GlobalMomentum(2), Momentum()]
    attack = TransferAttack(net, EPS, ALPHA, 4, parts=parts, random_start=True)
    attack.on_step = lambda number, images: seen.append(images)
    attack(x, y)
    start = TransferAttack(net, EPS, 0, 1, random_start=True)(x, y)
    assert torch.equal(seen[1], start)
    assert not torch.equal(start, x)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (StepSchedule(), [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
        (StepSchedule("linear"), [1, 0.75, 0.5, 0.25]),
        (StepSchedule("linear", 2), [1 / 3, 2 / 3, 1, 0.5]),
        (StepSchedule("none", 3), [0.25, 0.5, 0.75, 1]),
    ],
    ids=repr,
)
def test_step_sizes(schedule, shares):
    net, (x, y) = network().double(), batch()
    x = x.double() / 2 + 0.25
    for norm in ("Linf", "L2"):
        seen = [x]
        attack = TransferAttack(net, 0.2, 0.01, 4, parts=[schedule], norm=norm)
        attack.on_step = lambda number, images, seen=seen: seen.append(images)
        attack(x, y)
        moves = [(b - a).flatten(1) for a, b in pairwise(seen)]
        sizes = [m.norm(dim=1) if norm == "L2" else m.abs().amax(1) for m in moves]
        want = 0.01 * torch.tensor(shares).double()
        assert (torch.stack(sizes, 1) - want).abs().max() < 1e-8


def test_flips_shorten_a_pixels_steps_for_good():
    """One pixel swings across a maximum, the other climbs: only the first one's steps shrink."""

    class Valley(torch.nn.Module):
        def forward(self, x):
            swinging, climbing = x.flatten(1).unbind(1)
            return torch.stack([100 * (swinging - 0.502) ** 2 - climbing, 0 * climbing], 1)

    seen = [torch.tensor([[0.5, 0.5]])]
    attack = TransferAttack(Valley(), 0.2, 0.01, 4, parts=[FlipDecay(0.5)])
    attack.on_step = lambda number, images: seen.append(images)
    attack(seen[0], torch.tensor([0]))
    moves = torch.cat(seen).diff(dim=0)
    want = torch.tensor([[0.01, 0.01], [-0.005, 0.01], [-0.005, 0.01], [0.0025, 0.01]])
    assert (moves - want).abs().max() < 1e-6
