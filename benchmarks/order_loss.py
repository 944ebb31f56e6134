"""Cost of the order-targeted and band losses, against bare passes and the released procedure.

The released procedure is rebuilt here from its description: one permutation per sample on the CPU,
a forward pass of its own for every coalition, a whole batch of baselines for r1 = 0 and v(N) a
second time for r2 = 1. Nobody has released the band loss; its reference is the same procedure with
its four coalitions. The reference's coalitions run in eval too, which favours it with BatchNorm.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import interleaved, parse_arguments, report
from torch import Tensor, nn

from interaction_train.game.absence import input_baseline
from interaction_train.game.evaluation import evaluation_mode
from interaction_train.game.layers import record
from interaction_train.game.players import GridPlayers
from interaction_train.losses import BandLoss, OrderLoss
from interaction_train.losses.difference import DifferenceLoss
from interaction_train.models import CIFAR10_MEAN, CIFAR10_STD, Normalize

GRID = GridPlayers(16, 16)  # the reference setting
SETTINGS: dict[str, DifferenceLoss] = {
    "penalize_0_0.5": OrderLoss(0, 0.5, "penalize", players=GRID),
    "encourage_0.3_0.7": OrderLoss(0.3, 0.7, "encourage", players=GRID),
    "penalize_0.7_1": OrderLoss(0.7, 1, "penalize", players=GRID),
    "band": BandLoss(0.5, 0.2, "encourage", players=GRID),
}
# Main forward pass included; with BatchNorm v(N) needs a pass in eval.
FORWARDS = {"penalize_0_0.5": 2, "encourage_0.3_0.7": 3, "penalize_0.7_1": 2, "band": 5}


def network(norm: bool, width: int) -> nn.Sequential:
    """Five convolutions, with or without BatchNorm, for 32 x 32 images."""
    layers: list[nn.Module] = [Normalize(CIFAR10_MEAN, CIFAR10_STD)]
    before = 3
    for factor, pool in ((1, True), (2, False), (2, True), (4, False), (4, True)):
        layers.append(nn.Conv2d(before, factor * width, 3, padding=1))
        before = factor * width
        layers += [nn.BatchNorm2d(before)] if norm else []
        layers.append(nn.ReLU(inplace=True))
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * before, 10))


def released_masks(batch: int, places: list[list[slice]], device: str) -> list[Tensor]:
    """Element masks of coalitions, cut out of one permutation per sample on the CPU.

    Args:
        batch: number of samples.
        places: per coalition the stretches of the permutation that are in it.
        device: where the masks go.
    """
    masks = [np.zeros((batch, 256), dtype=np.float32) for _ in places]
    generator = np.random.default_rng(0)
    for b in range(batch):
        order = generator.permutation(256)
        for mask, stretches in zip(masks, places, strict=True):
            for stretch in stretches:
                mask[b, order[stretch]] = 1
    cells = [torch.from_numpy(mask).view(batch, 1, 16, 16) for mask in masks]
    return [F.interpolate(mask, scale_factor=2).to(device) for mask in cells]


def released_loss(net: nn.Module, x: Tensor, y: Tensor, name: str) -> Tensor:
    """The term as the released procedure computes it."""
    loss = SETTINGS[name]
    baseline = input_baseline(net, None, x)

    def v(mask: Tensor) -> Tensor:
        with evaluation_mode(net):
            return net(x * mask + baseline * (1 - mask))

    if isinstance(loss, BandLoss):
        c, h = loss.sizes(256)
        s, a, b = slice(0, c - h), slice(c - h, c), slice(c, c + h)
        places = [[s, a, b], [s, a], [s, b], [s]]
        both, first, second, empty = (v(m) for m in released_masks(len(x), places, x.device.type))
        delta = both - first - second + empty
    else:
        small, large = loss.sizes(256)
        places = [[slice(small)], [slice(large)]]
        one, two = released_masks(len(x), places, x.device.type)
        delta = v(two) - (large / small if small else 1) * v(one)
    log_p = delta.log_softmax(-1)
    if loss.mode == "encourage":
        return F.nll_loss(log_p, y)
    return (log_p.exp() * log_p).sum(-1).mean()


def measure(norm: bool, width: int, batch: int, rounds: int, device: str) -> dict[str, float]:
    """All ratios of one network."""
    net = network(norm, width).to(device)
    x = torch.rand(batch, 3, 32, 32, device=device)
    y = torch.arange(batch, device=device) % 10

    def bare(forwards: int) -> None:
        net.zero_grad(set_to_none=True)
        F.cross_entropy(net(x.repeat(forwards, 1, 1, 1)), y.repeat(forwards)).backward()

    def ours(name: str) -> None:
        net.zero_grad(set_to_none=True)
        with record(net, []) as forward:
            forward.logits = net(x)
        term = SETTINGS[name](net, x, y, forward=forward)
        (F.cross_entropy(forward.logits, y) + term).backward()

    def released(name: str) -> None:
        net.zero_grad(set_to_none=True)
        (F.cross_entropy(net(x), y) + released_loss(net, x, y, name)).backward()

    forwards = {**FORWARDS, "penalize_0.7_1": 3 if norm else 2}
    steps = {f"bare {k}": lambda k=k: bare(k) for k in sorted(set(forwards.values()))}
    steps |= {f"ours {name}": lambda name=name: ours(name) for name in SETTINGS}
    steps |= {f"released {name}": lambda name=name: released(name) for name in SETTINGS}
    seconds = interleaved(steps, rounds, device)
    suffix = "_batchnorm" if norm else ""
    result = {}
    for name, count in forwards.items():
        time = seconds[f"ours {name}"]
        result[f"step_over_bound_{name}{suffix}"] = time / seconds[f"bare {count}"]
        result[f"speed_over_reference_{name}{suffix}"] = seconds[f"released {name}"] / time
    return result


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    torch.manual_seed(0)
    width, batch, rounds = (24, 32, 5) if arguments.quick else (32, 64, 7)
    metrics: dict[str, float] = {}
    for norm in (False, True):
        metrics |= measure(norm, width, batch, rounds, arguments.device)
    wanted = {"step_over_bound": "≤ 1.15"}
    for name in SETTINGS:
        shortcut = name in ("penalize_0_0.5", "penalize_0.7_1")
        wanted[f"speed_over_reference_{name}_batchnorm"] = "≥ 1.0"
        wanted[f"speed_over_reference_{name}"] = "≥ 1.3" if shortcut else "≥ 1.0"
    report("order_loss", arguments.device, metrics, wanted)


if __name__ == "__main__":
    main()
