"""Parts for flat maxima against plain loops, one sample at a time, on the same draws."""

import math

import pytest
import torch

from interaction_train.attacks import (
    ExpectedFlatness,
    FlipDecay,
    GradientRelevance,
    Momentum,
    Nesterov,
    Part,
    PenalizedGradient,
    ReversePerturbation,
    TransferAttack,
)
from interaction_train.sampling.random import Draws, content_hash
from tests.attacks.parts.test_gradient_parts import batch, network

EPS, ALPHA, STEPS = 16 / 255, 1.6 / 255, 5


def slope(net, x, y):
    x = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(net(x[None]), y[None])
    return torch.autograd.grad(loss, x)[0]


def unit(gradient):
    return gradient / gradient.abs().mean()


def drawn(x, stream, number, count, name="attack"):
    draws = Draws(content_hash(x[None]), 0, name, number)
    levels = draws.bits(stream, count, -(-x.numel() // 4)).view(torch.int16)[..., : x.numel()]
    return (levels.double() / 2**15).view(count, *x.shape)


def moved(x, clean, step):
    return (x + step).clamp(clean - EPS, clean + EPS).clamp(0, 1)


def agrees(parts, plain, **settings):
    """The attack with these parts does what ``plain(net, image, label)`` does per sample."""
    net, (images, labels) = network().double(), batch()
    images = images.double()
    ours = TransferAttack(net, EPS, ALPHA, STEPS, parts=parts, **settings)(images, labels)
    want = [plain(net, *pair) for pair in zip(images, labels, strict=True)]
    assert (ours - torch.stack(want)).abs().max() < 1e-12


@pytest.mark.parametrize("samples", [1, 3])
def test_pgn(samples):
    def plain(net, clean, y):
        x, momentum = clean, torch.zeros_like(clean)
        for number in range(1, STEPS + 1):
            total = torch.zeros_like(x)
            for offset in drawn(clean, "neighbours", number, samples):
                near = x + 3 * EPS * offset
                first = slope(net, near, y)
                second = slope(net, near - ALPHA * unit(first), y)
                total += 0.3 * first + 0.7 * second
            momentum = momentum + unit(total / samples)
            x = moved(x, clean, ALPHA * momentum.sign())
        return x

    agrees([PenalizedGradient(samples, weight=0.7), Momentum()], plain)


@pytest.mark.parametrize("samples", [1, 3])
def test_mef(samples):
    def plain(net, clean, y):
        x, momentum = clean, torch.zeros_like(clean)
        moves = [torch.zeros_like(x)] * samples
        for number in range(1, STEPS + 1):
            total = torch.zeros_like(x)
            for i, offset in enumerate(drawn(clean, "neighbours", number, samples)):
                found = slope(net, x + 2 * EPS * offset + 0.15 * EPS * moves[i], y)
                moves[i] = unit(found) - 0.9 * moves[i]
                total += found
            momentum = 0.5 * momentum + unit(total)
            x = moved(x, clean, ALPHA * momentum.sign())
        return x

    agrees([ExpectedFlatness(samples), Momentum(0.5)], plain)


def test_gra_with_its_decay_indicator():
    turned = []

    def plain(net, clean, y):
        x, momentum = clean, torch.zeros_like(clean)
        indicator = torch.full_like(clean, 1 / 0.94)
        for number in range(1, STEPS + 1):
            here = slope(net, x, y)
            offsets = drawn(clean, "relevance", number, 3)
            near = sum(slope(net, x + 3.5 * EPS * offset, y) for offset in offsets) / 3
            cosine = (here * near).sum() / (here.norm() * near.norm())
            before = momentum
            momentum = momentum + unit(cosine * here + (1 - cosine) * near)
            same = before.sign() == momentum.sign()
            indicator = torch.where(same, indicator, indicator * 0.94)
            turned.append(int((~same).sum()))
            x = moved(x, clean, ALPHA * indicator * momentum.sign())
        return x

    agrees([GradientRelevance(3), Momentum(), FlipDecay()], plain)
    assert sum(turned[1:STEPS]) > 0


def test_rap_and_its_late_start():
    def plain(net, clean, y):
        x = clean
        for number in range(1, STEPS + 1):
            worst = x
            if number > 2:
                draws = Draws(content_hash(clean[None]), 0, "attack", number)
                noise = 2 * draws.uniform("start", x.numel()).double().view_as(x) - 1
                worst = (x + EPS * noise).clamp(0, 1)
                for _ in range(4):
                    reverse = worst - EPS / 4 * slope(net, worst, y).sign()
                    worst = reverse.clamp(x - EPS, x + EPS).clamp(0, 1)
            x = moved(x, clean, ALPHA * slope(net, worst, y).sign())
        return x

    agrees([ReversePerturbation(1.0, 4, late_start=0.4)], plain)


def test_rap_finds_a_worse_point_in_the_ball():
    seen = []

    class Watching(Part):
        def lookahead(self, point, step):
            seen.append((step.adversarial, point))
            return point

    net, (x, y) = network(), batch()
    parts = [ReversePerturbation(2.0, 4, late_start=0), Watching()]
    TransferAttack(net, 0.3, 0.1, 3, parts=parts, norm="L2")(x, y)
    for before, worst in seen:
        assert bool(((worst - before).flatten(1).norm(dim=1) <= 0.6 + 1e-5).all())
        losses = [
            torch.nn.functional.cross_entropy(net(at), y, reduction="none")
            for at in (before, worst)
        ]
        assert bool((losses[1] < losses[0]).all())


@pytest.mark.parametrize("order", ["before", "after"])
def test_neighbours_lie_around_where_other_parts_look(order):
    def plain(net, clean, y):
        x, momentum = clean, torch.zeros_like(clean)
        for number in range(1, STEPS + 1):
            total = torch.zeros_like(x)
            for offset in drawn(clean, "neighbours", number, 2, "attack 1"):
                near = x + ALPHA * momentum + EPS * offset
                first = slope(net, near, y)
                total += (first + slope(net, near - ALPHA * unit(first), y)) / 2
            momentum = momentum + unit(total)
            x = moved(x, clean, ALPHA * momentum.sign())
        return x

    flat = PenalizedGradient(2, beta=1)
    agrees([Nesterov(), flat] if order == "before" else [Part(), flat, Nesterov()], plain)


def test_l2_neighbours_have_the_length_of_epsilon():
    seen = []
    net, (x, y) = network(), batch()
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    TransferAttack(net, 0.4, 0.1, 1, parts=[ExpectedFlatness(1, beta=1.0)], norm="L2")(x, y)
    length = (seen[0] - x).flatten(1).norm(dim=1)
    assert (length - 0.4 / math.sqrt(3)).abs().max() < 0.04  # the root mean square of uniform noise
