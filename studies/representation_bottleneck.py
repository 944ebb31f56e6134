"""The representation bottleneck and models of chosen orders (survey, Sec. 5.4).

Three claims: J(m) of a trained network is high for low and high orders m and low in the middle;
training shows it too, epoch by epoch; and of networks trained for chosen orders the low-order one
is the most robust, then the normal, the middle-order and the high-order one.

J(m) is exact over all pairs up to 16 cells, else sampled, in a reading that is biased up (plug-in)
and one that is biased down (split-sign). Payoff log p/(1 − p) of the true class, correctly
classified test images, absent cells show the training mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import common
import lightning as L
import torch
import torchattacks
from common import Check, Mean, Part, Study, Summary, columns, fit, logits, paired, splits, tensors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import interaction_train as it
from interaction_train.callbacks.robust_curve import robust_curve
from interaction_train.callbacks.samples import spread
from interaction_train.indices import resolve_orders
from interaction_train.models import CIFAR10_MEAN, CIFAR10_STD, CIFARThinResNet

RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
READINGS = ("plug_in", "split_sign")
LEAST_ROBUST_LAST = ("low", "normal", "mid", "high")


def small_network(width: int = 16) -> nn.Module:
    """Five convolutions, no BatchNorm, for CIFAR-10."""
    layers: list[nn.Module] = [it.Normalize(CIFAR10_MEAN, CIFAR10_STD)]
    before = 3
    for factor, pool in ((1, True), (2, False), (2, True), (4, False), (4, True)):
        layers += [nn.Conv2d(before, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
        before = factor * width
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * before, 10))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    **{f"digits_{name}": build for name, build in common.DIGITS.items()},
    "cifar_resnet20": partial(CIFARThinResNet, 20),
    "cifar_resnet32": partial(CIFARThinResNet, 32),
    "five_convolutions": small_network,
    "alexnet": it.models.CIFARAlexNet,
    "resnet18": it.models.CIFARResNet,
}


def terms(grid: it.GridPlayers) -> dict[str, Any]:
    """The papers' settings under the names of the models that they make, and two bands."""
    return {
        "low": it.OrderLoss(0.7, 1, "penalize", players=grid),
        "normal": None,
        "mid": it.OrderLoss(0.3, 0.7, "encourage", players=grid),
        "high": it.OrderLoss(0, 0.5, "penalize", players=grid),
        "band+": it.BandLoss(0.5, 0.25, "encourage", players=grid),
        "band−": it.BandLoss(0.5, 0.25, "penalize", players=grid),
    }


def spectrum(
    network: nn.Module, x: Tensor, y: Tensor, cells: Sequence[int], images: int, contexts: int,
    pairs: int,
) -> Summary:  # fmt: skip
    """J(m) on some of the images that the network gets right.

    Per reading ``[J, standard errors over images]`` over ``orders``, and mean |I| (``mean``). Exact
    up to 16 cells: all orders, one reading.
    """
    right = (logits(network, x).argmax(1) == y).nonzero().flatten()
    some = right[spread(len(right), images)]
    device = next(network.parameters()).device
    x, y, grid = x[some].to(device), y[some].to(device), it.GridPlayers(*cells)
    n = grid.rows * grid.cols
    if n <= 16:
        baseline = it.input_baseline(network, None, x)
        game = it.MaskedGame(network, x, baseline, grid, "log_odds", y)
        orders = it.multi_order_interactions(it.exact_values(game).double())
        upper = torch.triu_indices(game.n, game.n, 1)
        strengths = orders[:, :, upper[0], upper[1]].abs().mean(-1).cpu()  # (images, orders)
        found = {"exact": relative(strengths)}
        return {"orders": list(range(game.n - 1)), "mean": float(strengths.mean()), **found}
    metric = it.InteractionSpectrum(
        grid, ratios=RATIOS, pairs=it.NeighbourPairs(2, pairs), contexts=contexts
    ).to(device)
    metric.update(network, x, y)
    result = {key: value.tolist() for key, value in metric.compute().items()}
    found = {key: [result[f"J_{key}"], result[f"J_{key}_stderr"]] for key in READINGS}
    mean = sum(result["plug_in"]) / len(RATIOS)
    return {"orders": list(resolve_orders(n, ratios=RATIOS)), "mean": mean, **found}


def relative(strengths: Tensor) -> list[list[float]]:
    """J and its standard error (a ratio's, to first order), from ``(images, orders)``."""
    total = strengths.mean()
    j = strengths.mean(0) / total
    residual = (strengths - j * strengths.mean(1, keepdim=True)) / total
    return [j.tolist(), (residual.std(0) / len(strengths) ** 0.5).tolist()]


def theory(n: int, orders: Sequence[int]) -> list[float]:
    """w^(m)/√C(n−2, m), divided by its mean over these orders (Theorem 1)."""
    logs = [
        math.log(n - 1 - m) - (math.lgamma(n - 1) - math.lgamma(m + 1) - math.lgamma(n - 1 - m)) / 2
        for m in orders
    ]
    values = [math.exp(value) for value in logs]
    return [value * len(values) / sum(values) for value in values]


def measure_trained(network: str, weights: str, data: dict[str, Any], **size: Any) -> Summary:
    """J(m) of a network whose weights are there already."""
    build = NETWORKS[network]
    published = network.startswith("cifar_")  # in a file with names of its own
    trained = build(weights=weights) if published else it.load_weights(build(), weights)
    return spectrum(trained.eval(), *tensors(splits(data), "test"), **size)


def train(network: str, data: dict[str, Any], seed: int, epochs: int, **more: Any) -> nn.Module:
    """Train at a learning rate that suits the small networks."""
    lr = 0.03 if "source" in data else 0.05
    return fit(NETWORKS[network], splits(data, seed), seed=seed, epochs=epochs, lr=lr, **more)


def follow(
    network: str, data: dict[str, Any], epochs: int, every: int, cells: list[int],
    images: int, contexts: int, seed: int,
) -> Summary:  # fmt: skip
    """J(m) while a network is trained, on the same validation images, right or wrong, every time.

    Epoch 0 is before training.
    """
    L.seed_everything(seed, verbose=False)
    x, y = tensors(splits(data), "val")
    some = spread(len(x), images)
    before = it.InteractionSpectrum(
        it.GridPlayers(*cells), ratios=RATIOS, pairs=it.NeighbourPairs(2, 32), contexts=contexts,
        only_correct=False,
    )  # fmt: skip
    before.update(NETWORKS[network]().eval(), x[some], y[some])
    start = before.compute()
    monitor = it.SpectrumMonitor(
        rows=cells[0], cols=cells[1], n_samples=images, every=every, contexts=contexts,
        ratios=RATIOS, pairs=it.NeighbourPairs(2, 32), only_correct=False,
    )  # fmt: skip
    train(network, data, seed, epochs, callbacks=[monitor], validate=True)

    def curves(first: str, name: str) -> list[list[float]]:
        begin = f"val/interaction/{name}/"
        points = [point["values"].items() for point in monitor.history]
        later = [[v for k, v in values if k.startswith(begin)] for values in points]
        return [start[first].tolist(), *later]

    return {
        "epochs": [0, *(point["epoch"] + 1 for point in monitor.history)],
        "J": curves("J_plug_in", "J"),
        "stderr": curves("J_plug_in_stderr", "J_stderr"),
    }


def train_for_orders(
    model: str, network: str, data: dict[str, Any], epochs: int, cells: list[int], images: int,
    contexts: int, attacked: int, epsilons: list[float], steps: int, seed: int,
) -> Summary:  # fmt: skip
    """Train for chosen orders; measure J(m), the accuracy, and that under attack."""
    term = terms(it.GridPlayers(*cells))[model]
    losses = {} if term is None else {"orders": it.WeightedTerm(term)}
    trained = train(network, data, seed, epochs, losses=losses)
    x, y = tensors(splits(data), "test")
    device = next(trained.parameters()).device
    right = (logits(trained, x).argmax(1) == y).double().mean()
    some = spread(len(x), attacked)
    first = epsilons[0]
    attacks = {
        "PGD": partial(torchattacks.PGD, eps=first, alpha=first / 4, steps=steps),
        # Cross entropy has no gradient where a network is sure; the margin has.
        "margin": partial(
            it.TransferAttack, eps=first, alpha=first / 4, steps=steps,
            objective=it.attacks.Objective("margin"),
        ),
    }  # fmt: skip
    smallest = {
        name: robust_curve(make, trained, x[some].to(device), y[some].to(device), epsilons).smallest
        for name, make in attacks.items()
    }
    stands = {"PGD": smallest["PGD"], "both": torch.minimum(*smallest.values())}
    found = spectrum(trained, x, y, cells, images, contexts, 32)
    found["accuracy"] = float(right)
    for name, values in stands.items():
        survives = (values[:, None] > torch.tensor(epsilons)).double()  # (images, ε)
        found[name], found[f"{name}, images"] = (survives.mean(d).tolist() for d in (0, 1))
    return found


def at_ratios(summary: Summary, n: int) -> dict[str, list[list[float]]]:
    """J at the seven ratios, relative to the mean over them, per reading."""
    places = [summary["orders"].index(m) for m in resolve_orders(n, ratios=RATIOS)]
    found = {}
    for reading in ("exact", *READINGS):
        if reading in summary:
            j, error = ([values[p] for p in places] for values in summary[reading])
            mean = sum(j) / len(j)
            found[reading] = [[v / mean for v in j], [e / mean for e in error]]
    return found


def spectrum_rows(found: Mapping[str, Summary], cells: Mapping[str, int]) -> list[dict[str, Any]]:
    """A row per network, grid and reading; the theory's curve at the end of each grid."""
    rows = []
    for name, summary in found.items():
        for reading, (j, error) in at_ratios(summary, cells[name]).items():
            head = {"network": name.split("/")[0], "cells": cells[name], "reading": reading}
            rows.append(head | _ratio_columns(j, error))
    for n in sorted(set(cells.values())):
        j = theory(n, resolve_orders(n, ratios=RATIOS))
        head = {"network": "theory", "cells": n, "reading": ""}
        rows.append(head | _ratio_columns(j, [math.nan] * len(j)))
    return rows


def _ratio_columns(j: Sequence[float], error: Sequence[float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for ratio, value, deviation in zip(RATIOS, j, error, strict=True):
        found |= Mean(value, deviation, 0, 0).columns(f"J({ratio:g})")
    return found


def bowl(j: Sequence[float], error: Sequence[float]) -> tuple[float, float]:
    """How far J at both ends lies above J in the middle, in standard errors."""
    middle = len(j) // 2
    low, high = (
        (j[end] - j[middle]) / math.hypot(error[end], error[middle]) for end in (0, len(j) - 1)
    )
    return low, high


def depth(j: Sequence[float], error: Sequence[float]) -> tuple[float, float]:
    """The mean of both ends of J over its middle, and the standard error to first order."""
    middle, ends = len(j) // 2, j[0] + j[-1]
    value = ends / 2 / j[middle]
    return value, value * math.hypot(error[0] / ends, error[-1] / ends, error[middle] / j[middle])


def order_rows(models: Mapping[str, list[Summary]], epsilons: Sequence[float]) -> tuple[Any, Any]:
    """Two tables, a row per model: J(m), and robustness."""
    spectra, robust = [], []
    for model, runs in models.items():
        accuracy = columns({"accuracy": [run["accuracy"] for run in runs]})
        reading = "exact" if "exact" in runs[0] else "plug_in"
        orders = runs[0]["orders"]
        mean = Mean.of(run["mean"] for run in runs).value
        row: dict[str, Any] = {"model": model, **accuracy, "mean |I|": mean}
        j = torch.tensor([run[reading] for run in runs], dtype=torch.float64)  # (seeds, 2, orders)
        error = j[:, 1].square().mean(0) / len(runs)
        if len(runs) > 1:  # what varies between images, and what varies between seeds
            error = error + j[:, 0].var(0) / len(runs)
        for place in range(0, len(orders), 2 if len(orders) > 8 else 1):
            shown = Mean(float(j[:, 0, place].mean()), float(error[place] ** 0.5), 0, 0)
            row |= shown.columns(f"J({orders[place]})")
        spectra.append(row)
        stands = {f"PGD ε={e:.3g}": [run["PGD"][k] for run in runs] for k, e in enumerate(epsilons)}
        stands["PGD, mean over ε"] = robustness(runs, "PGD")
        stands["PGD and margin, mean over ε"] = robustness(runs, "both")
        robust.append({"model": model, **accuracy, **columns(stands)})
    return spectra, robust


def robustness(runs: Sequence[Summary], attack: str) -> list[float]:
    """Accuracy under an attack, averaged over ε, of every seed, or image of a single run."""
    return common.units([run[f"{attack}, images" if len(runs) == 1 else attack] for run in runs])


def figure(
    found: Mapping[str, Summary], cells: Mapping[str, int], training: Summary,
    models: Mapping[str, list[Summary]], epsilons: Sequence[float],
) -> Figure:  # fmt: skip
    """J(m) beside the theory, over training, of the models, and their robustness."""
    drawn = Figure(figsize=(9, 7), layout="constrained")
    axes = drawn.subplots(2, 2)
    _draw_networks(axes[0, 0], found, cells)
    epochs, count = training["epochs"], len(training["epochs"])
    for place in sorted({0, 1, count // 2, count - 1}):
        shade = 0.25 + 0.7 * place / max(1, count - 1)
        axes[0, 1].errorbar(
            RATIOS, training["J"][place], training["stderr"][place], marker="o", ms=3,
            color=(0.1, 0.3, 0.6, shade), label=f"epoch {epochs[place]}",
        )  # fmt: skip
    axes[0, 1].set(xlabel="order m/(n−2)", ylabel="J(m), plug-in", title="over training")
    for model, runs in models.items():
        reading = "exact" if "exact" in runs[0] else "plug_in"
        j = torch.tensor([run[reading][0] for run in runs]).mean(0)
        style = "--" if model.startswith("band") else "-"
        axes[1, 0].plot(runs[0]["orders"], j, style, marker="o", ms=3, label=model)
        under = zip(*([run["accuracy"], *run["PGD"]] for run in runs), strict=True)
        means = [Mean.of(values) for values in under]
        common.curve(axes[1, 1], [0, *epsilons], means, ls=style, label=model)
    axes[1, 0].set(xlabel="order m", ylabel="J(m)", title="models of chosen orders")
    axes[1, 1].set(xlabel="ε of PGD (pixel values)", ylabel="accuracy", title="their robustness")
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, ncols=2 if axis is axes[0, 0] else 1)
    return drawn


def _draw_networks(axes: Axes, found: Mapping[str, Summary], cells: Mapping[str, int]) -> None:
    names = list(dict.fromkeys(name.split("/")[0] for name in found))
    styles = {"exact": "--", "plug_in": "-", "split_sign": "-."}
    top, seen = 0.0, []
    for name, summary in found.items():
        colour = f"C{names.index(name.split('/')[0])}"
        for reading, (j, error) in at_ratios(summary, cells[name]).items():
            axes.errorbar(RATIOS, j, error, ls=styles[reading], marker="o", ms=3, color=colour)
            top = max(top, *j)
            if (label := f"{cells[name]} cells, {reading.replace('_', '-')}") not in seen:
                axes.plot([], [], styles[reading], color="black", label=label)
                seen.append(label)
    for place, name in enumerate(names):
        axes.plot([], [], color=f"C{place}", label=name)
    n = max(cells.values())
    expected = theory(n, resolve_orders(n, ratios=RATIOS))
    label = f"theory, {n} cells:\n{expected[0]:.2g}, about 0, {expected[-1]:.2g}"
    axes.plot(RATIOS, [min(v, 1.6 * top) for v in expected], ":", color="black", label=label)
    axes.set(xlabel="order m/(n−2)", ylabel="J(m)", title="trained networks")
    axes.set_ylim(top=1.6 * top)


def judge(
    part: Part, found: Mapping[str, Summary], cells: Mapping[str, int], training: Summary,
    models: Mapping[str, list[Summary]],
) -> None:  # fmt: skip
    """The verdict over the shape of J(m), what training has to do with it, and robustness."""
    ends = [
        min(min(bowl(*values)) for values in at_ratios(summary, cells[name]).values())
        for name, summary in found.items()
    ]
    deep = sum(end > 2 for end in ends)
    before, after = (depth(training["J"][k], training["stderr"][k]) for k in (0, -1))
    deeper = after[0] - before[0] > 2 * math.hypot(before[1], after[1])
    by = f"by over 2 standard errors in {deep} of {len(ends)} networks and grids, at least "
    by += f"{min(ends):.1f}"
    change = f"mean of the ends over the middle {before[0]:.2f} ± {before[1]:.2f} before, "
    change += f"{after[0]:.2f} ± {after[1]:.2f} after"
    checks = [
        Check("J is higher at both ends than in the middle", deep == len(ends), by),
        Check("training makes it so", deeper, change),
    ]
    for first, second in pairwise(LEAST_ROBUST_LAST):
        gap = paired(robustness(models[first], "PGD"), robustness(models[second], "PGD"))
        says = f"the {first} model is more robust than the {second} one"
        checks.append(Check(says, gap.clearly(1), gap.points()))
    part.verdict(checks)


def plans(part: Part) -> dict[str, dict[str, dict[str, Any]]]:
    """The runs of the three kinds: of trained networks, in training, and for chosen orders."""
    asked = part.settings
    data: dict[str, Any] = {}
    if part.data == "cifar10":
        full = part.study.scale == "full"
        data = {"source": part.study.cifar10, "batch_size": 64, "augment": full}
    networks = {}
    for name in asked["networks"]:
        weights = name if part.data == "digits" else str(part.study.file(f"{name}.safetensors"))
        shared = {"network": name, "weights": weights, "data": data, **asked["measured"]}
        for rows, cols in asked["grids"]:
            networks[f"{name}/{rows}x{cols}"] = {**shared, "cells": [rows, cols]}
    models = {
        f"{model}/seed_{seed}": {"model": model, "data": data, **asked["orders"], "seed": seed}
        for seed in part.seeds
        for model in asked["models"]
    }
    training = {"training": {"data": data, "seed": 0, **asked["training"]}}
    return {"spectrum": networks, "training": training, "orders": models}


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    kinds: dict[str, Callable[..., Summary]]
    kinds = {"spectrum": measure_trained, "training": follow, "orders": train_for_orders}
    for part in study.parts():
        with part:
            wanted = plans(part)
            plan = {
                f"{kind}/{name}": {"kind": kind, **settings}
                for kind, runs in wanted.items()
                for name, settings in runs.items()
            }
            done = part.runs(plan, lambda kind, **settings: kinds[kind](**settings))
            found = {name: done[f"spectrum/{name}"] for name in wanted["spectrum"]}
            cells = {name: math.prod(run["cells"]) for name, run in wanted["spectrum"].items()}
            history, epsilons = done["training/training"], part.settings["orders"]["epsilons"]
            models = {
                model: [done[f"orders/{model}/seed_{seed}"] for seed in part.seeds]
                for model in part.settings["models"]
            }
            part.table(spectrum_rows(found, cells), "spectra")
            epochs = zip(history["epochs"], history["J"], history["stderr"], strict=True)
            rows = [{"epoch": epoch, **_ratio_columns(*values)} for epoch, *values in epochs]
            part.table(rows, "training")
            spectra, robust = order_rows(models, epsilons)
            part.table(spectra, "orders")
            part.table(robust, "robustness")
            part.figure(figure(found, cells, history, models, epsilons))
            judge(part, found, cells, history, models)


if __name__ == "__main__":
    main()
