"""Cost of the interaction-reduced attack, against the released procedure and bare passes.

The released procedure is rebuilt here from its description: one image at a time; per step five
calls of 1, 1, 32, 32 and 1 rows (cross entropy, v(N), v(N∖A), v(A), v(∅)); cells drawn with
replacement and masks built cell by cell.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import data_folder, interleaved, parse_arguments, peak_memory, report
from torch import Tensor, nn

from interaction_train.attacks import (
    HybridIRAttack,
    InteractionObjective,
    IRAttack,
    TransferAttack,
)
from interaction_train.game.players import GridPlayers
from interaction_train.losses import GroupReduction, PartitionReduction
from interaction_train.models import CIFARThinResNet, DigitsNet

GRID, DRAWS, SIZE = 16, 32, 32  # the released settings
EPS, ALPHA = 16 / 255, 2 / 255
BLOCKS = 8


class Counting(nn.Module):
    """Counts the rows that pass a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.rows = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.net(x)


def network_and_images(count: int, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained ResNet-20 and CIFAR-10 where INTERACTION_TRAIN_DATA has them, else random ones."""
    folder = data_folder()
    if folder:
        net = CIFARThinResNet(20, weights=folder / "cifar_resnet20.safetensors")
        with np.load(folder / "cifar10_5k.npz") as file:
            images, labels = file["x_test"][:count], file["y_test"][:count]
        x = torch.as_tensor(images / 255, dtype=torch.float32).movedim(-1, 1).contiguous()
        y = torch.as_tensor(labels, dtype=torch.int64)
    else:
        net = CIFARThinResNet(20)
        x = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        y = torch.arange(count) % 10
    return net.eval().to(device), x.to(device), y.to(device)


def released_step(
    net: nn.Module, clean: Tensor, delta: Tensor, y: Tensor, random: object
) -> Tensor:
    """One step of the released procedure for one image, ``(1, C, H, W)``."""
    size = clean.shape[-1] // GRID
    delta = delta.detach().requires_grad_()
    only = torch.zeros(DRAWS, 1, clean.shape[-1], clean.shape[-1], device=clean.device)
    for k in range(DRAWS):
        for cell in random.randint(0, GRID * GRID, SIZE):
            row, column = divmod(int(cell), GRID)
            only[k, :, row * size : (row + 1) * size, column * size : (column + 1) * size] = 1
    cross_entropy = F.cross_entropy(net(clean + delta), y)
    full = net(clean + delta)
    rival = full.detach().scatter(1, y[:, None], -torch.inf).argmax(1)

    def utility(logits: Tensor) -> Tensor:
        return (logits[:, rival] - logits[:, y]).mean()

    interaction = (
        utility(full)
        - utility(net(clean + delta * (1 - only)))
        - utility(net(clean + delta * only))
        + utility(net(clean))
    )
    (gradient,) = torch.autograd.grad(cross_entropy - interaction, delta)
    gradient = gradient / gradient.abs().mean()
    return (delta.detach() + ALPHA * gradient.sign()).clamp(-EPS, EPS)


def costs(device: str) -> dict[str, float]:
    """Rows per image and step."""
    net, x, y = network_and_images(2, device)

    def rows(attack: object) -> float:
        net = Counting(network)
        attack(net)(x, y)
        return net.rows / len(x)

    network = net
    partition = InteractionObjective(reduction=PartitionReduction(GridPlayers(GRID, GRID), BLOCKS))
    plain = rows(lambda net: IRAttack(net, steps=1))
    return {
        "forwards_per_ir_step": plain,
        "forwards_per_partition_step": rows(
            lambda net: TransferAttack(net, steps=1, objective=partition)
        ),
        "hybrid_forwards_over_sum_of_parts": rows(
            lambda net: HybridIRAttack(net, steps=1, samples=20)
        )
        / (plain + 20),
    }


def speed(quick: bool, device: str) -> dict[str, float]:
    """A step for a batch against the released procedure image by image, and against bare passes."""
    batch = 8 if quick else 32
    net, x, y = network_and_images(batch, device)
    rows = batch * (2 * DRAWS + 1)
    chunk = 64 if device == "cpu" else rows
    objective = InteractionObjective(
        "cross_entropy", reduction=GroupReduction(GridPlayers(GRID, GRID), DRAWS, SIZE)
    )
    ours = TransferAttack(net, EPS, ALPHA, 1, objective=objective, random_start=True)
    random = np.random.RandomState(0)
    start = torch.empty_like(x).uniform_(-EPS, EPS)

    def released() -> None:
        for i in range(batch):
            released_step(net, x[i : i + 1], start[i : i + 1], y[i : i + 1], random)

    def bare() -> None:
        for first in range(0, rows, chunk):
            count = min(chunk, rows - first)
            leaf = x.repeat(-(-count // batch), 1, 1, 1)[:count].requires_grad_()
            torch.autograd.grad(net(leaf).sum(), leaf)

    seconds = interleaved(
        {"ours": lambda: ours(x, y), "released": released, "bare": bare},
        3 if quick else 7,
        device,
    )
    return {
        "images_per_second_over_reference": seconds["released"] / seconds["ours"],
        "throughput_over_bare_model": seconds["bare"] / seconds["ours"],
    }


def memory(device: str) -> dict[str, float]:
    """Peak memory with ten times the draws."""
    net = DigitsNet().eval().to(device)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.zeros(8, dtype=torch.int64, device=device)
    peaks = []
    for draws in (64, 640):
        attack = IRAttack(net, steps=1, grid=8, draws=draws, size=8, chunk_size=256)
        peak_memory(device, reset=True)
        attack(x, y)
        peaks.append(peak_memory(device))
    return {"memory_growth_10x_draws": peaks[1] / peaks[0]}


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    torch.manual_seed(0)
    device = arguments.device
    metrics = memory(device) | costs(device) | speed(arguments.quick, device)
    report(
        "attacks",
        device,
        metrics,
        {
            "forwards_per_ir_step": "65",
            "forwards_per_partition_step": f"≤ {2 * BLOCKS + 1}",
            "hybrid_forwards_over_sum_of_parts": "≤ 1",
            "images_per_second_over_reference": "≥ 1" if device == "cpu" else "≥ 3",
            "throughput_over_bare_model": "≥ 0.9",
            "memory_growth_10x_draws": "≤ 1.1",
        },
    )


if __name__ == "__main__":
    main()
