"""Cost and error of sampled multi-order interactions, against the released procedure.

The released procedure is rebuilt here from its description: for every pair and order it draws
contexts of its own, one by one in NumPy, and makes four batched passes over them; the two end
orders, which have one context each, are treated like the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import data_folder, interleaved, parse_arguments, peak_memory, report
from matplotlib.figure import Figure
from torch import Tensor, nn

from interaction_train.data import DigitsDataModule
from interaction_train.game.absence import default_baseline
from interaction_train.game.chunks import CANDIDATES
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.indices import REFERENCE_RATIOS, resolve_orders, sample_multi_order
from interaction_train.indices.flips import sample
from interaction_train.indices.plans import order_plan
from interaction_train.indices.readings import plug_in, split_sign
from interaction_train.models import CIFARResNet, CIFARThinResNet, DigitsNet
from interaction_train.sampling.pairs import GivenPairs, NeighbourPairs, RandomPairs
from interaction_train.sampling.random import Draws, content_hash
from interaction_train.tracking.figures import legend_below, new_figure, save_figure
from interaction_train.tracking.style import COLOURS, styled

RADIUS = 2  # pairs of the reference protocol
GRID = GridPlayers(16, 16)
_LINES = ("o-", "s--", "x:")  # RMSE, bias, spread


def sharing(size: int) -> float:
    """Useful differences per evaluation, averaged over the reference's orders."""
    rows = 0

    class Count(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal rows
            rows += len(x)
            return x[:, :2]

    x, y = torch.ones(1, 256), torch.zeros(1, dtype=torch.int64)
    game = MaskedGame(Count(), x, 0.0, UnitPlayers(), "logit", y, chunk_size=8192)
    ratios = []
    for order in resolve_orders(256):
        rows = 0
        estimates = sample_multi_order(game, RandomPairs(1, size), 30, orders=[order])
        ratios.append(int(estimates.count.sum()) / rows)
    return sum(ratios) / len(ratios)


def released(game: MaskedGame, order: int, pairs: list, contexts: int, seed: int) -> Tensor:
    """Δ of every pair and context ``(pairs, contexts)``, as released; one sample."""
    rng = np.random.default_rng(seed)
    result = []
    for i, j in pairs:
        rest = np.setdiff1d(np.arange(game.n), [i, j])
        masks = np.zeros((contexts, game.n), dtype=bool)
        for k in range(contexts):
            masks[k, rng.choice(rest, order, replace=False)] = True
        context = torch.as_tensor(masks, device=game.present.device)
        values = []
        for extra in ([i, j], [i], [j], []):
            mask = context.clone()
            mask[:, extra] = True
            values.append(game(mask)[0])
        result.append(values[0] - values[1] - values[2] + values[3])
    return torch.stack(result)


def colour(count: int, device: str) -> Tensor:
    """Images without a download."""
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(x, size=32, mode="bilinear").to(device)


def speed(quick: bool, device: str) -> dict[str, float]:
    """Differences per second on a ResNet-18, over the released procedure's."""
    net = CIFARResNet().eval().to(device)
    y = torch.zeros(1, dtype=torch.int64, device=device)
    game = MaskedGame(net, colour(1, device), 0.5, GRID, "log_odds", y)
    contexts = 50 if quick else 100
    orders = [76] if quick else resolve_orders(256)  # quick: one of middling yield
    # The released procedure sends all contexts of a pair through the network at once.
    theirs = MaskedGame(net, game.present, 0.5, GRID, "log_odds", y, chunk_size=contexts)
    gained = 0

    def ours() -> None:
        nonlocal gained
        wanted = 2 if quick else 6
        gained = sample_multi_order(game, RandomPairs(1, 16), wanted, orders=orders).differences

    def reference() -> None:
        for order in orders:
            released(theirs, order, [(3, 77)], contexts, 0)

    seconds = interleaved({"ours": ours, "reference": reference}, 2 if quick else 3, device)
    theirs_rate = len(orders) * contexts / seconds["reference"]
    return {"differences_per_second_over_reference": gained / seconds["ours"] / theirs_rate}


def thin(device: str) -> nn.Module:
    """ResNet-20, with its published weights where they are."""
    folder = data_folder()
    path = folder / "cifar_resnet20.safetensors" if folder else None
    return CIFARThinResNet(weights=path).eval().to(device)


def throughput(quick: bool, device: str) -> dict[str, float]:
    """Rows per second through the estimator over the bare model's, at the same chunk size."""
    net, chunk = thin(device), 64
    y = torch.zeros(1, dtype=torch.int64, device=device)
    game = MaskedGame(net, colour(1, device), 0.5, GRID, "log_odds", y, chunk_size=chunk)
    batch = colour(chunk, device)
    rows = 0

    def ours() -> None:
        nonlocal rows
        contexts = 8 if quick else 50
        rows = sample_multi_order(game, RandomPairs(1, 16), contexts, orders=[127]).evaluations

    def bare() -> None:
        with torch.no_grad():
            for _ in range(rows // chunk):
                net(batch)
            if rows % chunk:
                net(batch[: rows % chunk])

    seconds = interleaved({"ours": ours, "bare": bare}, 4 if quick else 9, device)
    return {"throughput_over_bare_model": seconds["bare"] / seconds["ours"]}


def chunks(quick: bool, device: str) -> dict[str, float]:
    """The chosen chunk size against the best fixed one."""
    net = thin(device)
    y = torch.zeros(1, dtype=torch.int64, device=device)
    x = colour(1, device)
    masks = (
        torch.rand(256 if quick else 1024, 256, generator=torch.Generator().manual_seed(0)) < 0.5
    )
    masks = masks.to(device)
    auto = MaskedGame(net, x, 0.5, GRID, "log_odds", y)
    auto.choose_chunk(10**6)
    steps = {"auto": lambda: auto(masks)}
    for size in CANDIDATES:
        game = MaskedGame(net, x, 0.5, GRID, "log_odds", y, chunk_size=size)
        steps[str(size)] = lambda game=game: game(masks)
    seconds = interleaved(steps, 5 if quick else 15, device)
    print(f"chunk sizes, ms: { {k: round(1000 * v) for k, v in seconds.items()} }")
    best = min(value for name, value in seconds.items() if name != "auto")
    return {"auto_chunk_over_best_fixed": best / seconds["auto"]}


def memory(device: str) -> dict[str, float]:
    """The process's peak memory (on CUDA that of its tensors) with ten times the coalitions."""
    net = DigitsNet().eval().to(device)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.zeros(1, dtype=torch.int64, device=device)
    peaks = []
    for contexts in (200, 2000):
        game = MaskedGame(net, x, 0.3, GridPlayers(8, 8), "log_odds", y, chunk_size=256)
        peak_memory(device, reset=True)
        sample_multi_order(game, RandomPairs(1, 16), contexts, orders=[31])
        peaks.append(peak_memory(device))
    return {"memory_growth_10x_coalitions": peaks[1] / peaks[0]}


def digits_network() -> tuple[nn.Module, Tensor, Tensor, GridPlayers]:
    """A network trained here, and a test image."""
    torch.manual_seed(0)
    net, data = DigitsNet(), DigitsDataModule()
    data.setup()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(4):
        for x, y in data.train_dataloader():
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    x, y = next(iter(data.test_dataloader()))
    return net.eval(), x[:1], y[:1], GridPlayers(8, 8)


def resnet_network(device: str) -> tuple[nn.Module, Tensor, Tensor, GridPlayers] | None:
    """ResNet-20 and a real image, where both are there."""
    folder = data_folder()
    if folder is None:
        return None
    data = np.load(folder / "cifar10_5k.npz")
    x = torch.as_tensor(data["x_test"][:1]).permute(0, 3, 1, 2).float() / 255
    y = torch.as_tensor(data["y_test"][:1]).long()
    return thin(device), x.to(device), y.to(device), GRID


def curve(absolute: Tensor) -> Tensor:
    """J ``(orders,)`` from strengths."""
    return absolute / absolute.mean()


def equal_rmse(quick: bool, device: str) -> dict[str, float]:
    """Forwards for the same RMSE of the J curve of a fixed image, against a long reference run."""
    setting = None if quick else resnet_network(device)
    net, x, y, grid = setting or digits_network()
    net, x, y = net.to(device), x.to(device), y.to(device)
    n = grid.rows * grid.cols
    mean = default_baseline(net)
    game = MaskedGame(net, x, 0.3 if mean is None else mean, grid, "log_odds", y)
    ratios = tuple({round(r * (n - 2)): r for r in REFERENCE_RATIOS}.values())
    near = [
        (i, j)
        for i, j in combinations(range(n), 2)
        if abs(i // grid.cols - j // grid.cols) <= RADIUS
        and abs(i % grid.cols - j % grid.cols) <= RADIUS
    ]

    def reference(pairs: int, contexts: int, seed: int) -> tuple[Tensor, int]:
        # Statistically the released procedure; the end orders give one context's value again.
        chosen = np.random.default_rng(seed).choice(len(near), pairs, replace=False)
        given = GivenPairs([near[k] for k in chosen])
        run = sample_multi_order(game, given, contexts, ratios=ratios, share=False, seed=seed)
        return curve(run.over_pairs(plug_in(run))[0]), len(ratios) * pairs * contexts * 4

    def ours(pairs: int, contexts: int, seed: int) -> tuple[Tensor, int]:
        # The middle of the bracket.
        run = sample_multi_order(
            game, NeighbourPairs(RADIUS, pairs), contexts, ratios=ratios, seed=seed
        )
        middle = run.over_pairs(plug_in(run)) + run.over_pairs(split_sign(run))
        return curve(middle[0] / 2), run.evaluations

    repeats = 6
    # As in the protocol, half as many contexts as pairs; the long run of the full benchmark is
    # nearly as long as the protocol itself, 200 pairs and 100 contexts.
    sizes, long = ([(40, 20)], (128, 63)) if quick else ([(32, 16), (60, 30)], (194, 93))
    truth, long_forwards = reference(*long, 10**6)
    points = {"reference": [_errors(reference, *s, truth, repeats) for s in sizes]}
    title = f"J(m) of {type(net).__name__}, {n} players, against a run of {long_forwards:,} passes"
    settings = [(16, 4), (32, 4), (64, 4)] if quick else [(32, 4), (64, 4), (100, 4)]
    points["ours"] = [_errors(ours, *s, truth, repeats) for s in settings]
    save_figure(_figure(points, title), Path("runs", "benchmarks", "estimators_rmse.png"))
    for name, rows in points.items():
        for forwards, rmse, bias, spread in rows:
            print(
                f"{name}: {forwards:.0f} forwards, RMSE of J {rmse:.3f} "
                f"(bias {bias:.3f}, spread {spread:.3f})"
            )
    forwards, wanted = points["reference"][-1][:2]
    # On the line through the measured points, in logarithms.
    measured = np.log([row[:2] for row in points["ours"]])
    slope, offset = np.polyfit(measured[:, 1], measured[:, 0], 1)
    needed = float(np.exp(slope * np.log(wanted) + offset))
    return {
        "forwards_over_reference_equal_rmse": needed / forwards,
        "long_reference_over_reference_forwards": long_forwards / forwards,
    }


def _errors(
    run: Callable[[int, int, int], tuple[Tensor, int]],
    pairs: int,
    contexts: int,
    truth: Tensor,
    repeats: int,
) -> tuple[float, float, float, float]:
    """Mean forwards, RMSE of the curve, and its bias and spread (roots of means over orders)."""
    runs = [run(pairs, contexts, seed) for seed in range(repeats)]
    curves = torch.stack([c for c, _ in runs])
    rmse = (curves - truth).square().mean().sqrt()
    spread = curves.var(0).mean().sqrt()
    # The squared mean error also holds 1/repeats of the variance.
    bias = ((curves.mean(0) - truth).square().mean() - spread.square() / repeats).clamp(min=0)
    forwards = sum(f for _, f in runs) / repeats
    return forwards, float(rmse), float(bias.sqrt()), float(spread)


@styled()
def _figure(points: dict[str, list[tuple[float, float, float, float]]], title: str) -> Figure:
    figure, axes = new_figure()
    for (name, rows), colour in zip(points.items(), COLOURS, strict=False):
        forwards, *errors = zip(*rows, strict=True)
        for label, values, style in zip(("RMSE", "bias", "spread"), errors, _LINES, strict=True):
            axes.loglog(forwards, values, style, color=colour, label=f"{name}, {label}")
    axes.set(xlabel="forward passes per image", ylabel="error of J(m), root mean over orders")
    axes.set_title(title)
    axes.grid(visible=True, which="both")
    legend_below(axes)
    return figure


def cuda() -> dict[str, float]:
    """No host sync (an error otherwise), channels last, and what bfloat16 adds."""
    net = CIFARResNet().eval().cuda().to(memory_format=torch.channels_last)
    x = colour(8, "cuda").contiguous(memory_format=torch.channels_last)
    y = torch.zeros(8, dtype=torch.int64, device="cuda")
    game = MaskedGame(net, x, 0.5, GRID, "log_odds", y, chunk_size=512)
    draws = Draws(content_hash(x), 0, "sync")
    blocks = RandomPairs(2, 16).blocks(GRID, x.shape[1:], draws)
    plans = {str(m): order_plan(256, m, blocks, 20, draws) for m in (0, 13, 127)}
    sample(game, blocks, plans, draws)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sample(game, blocks, plans, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    full = sample_multi_order(game, RandomPairs(2, 16), 20, orders=[13, 127])
    with torch.autocast("cuda", torch.bfloat16):
        half = sample_multi_order(game, RandomPairs(2, 16), 20, orders=[13, 127])
    added = (half.value - full.value).nan_to_num().square().mean()
    sampling = full.stderr.nan_to_num().square().mean()
    return {"bf16_noise_over_sampling_noise": float((added / sampling).sqrt())}


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    quick, device = arguments.quick, arguments.device
    torch.manual_seed(0)
    start = time.perf_counter()
    metrics = {f"differences_per_evaluation_p{size}": sharing(size) for size in (16, 32)}
    metrics |= memory(device)
    metrics |= speed(quick, device)
    metrics |= throughput(quick, device)
    metrics |= chunks(quick, device)
    metrics |= equal_rmse(quick, device)
    if device.startswith("cuda"):
        metrics |= cuda()
    print(f"{time.perf_counter() - start:.0f} s")
    report(
        "estimators",
        device,
        metrics,
        {
            "differences_per_evaluation_p16": "≥ 0.75",
            "differences_per_evaluation_p32": "≥ 0.85",
            "differences_per_second_over_reference": "≥ 3",
            "throughput_over_bare_model": "≥ 0.9",
            "forwards_over_reference_equal_rmse": "≤ 0.25",
            "auto_chunk_over_best_fixed": "≥ 0.95",
            "memory_growth_10x_coalitions": "≤ 1.1",
            "long_reference_over_reference_forwards": "≥ 10",
        },
    )


if __name__ == "__main__":
    main()
