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
from itertools import pairwise, product
from typing import Any

import common
import lightning as L
import numpy as np
import torch
import torchattacks
from common import Check, Mean, Part, Study, Summary, columns, paired
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import gammaln
from torch import nn

import interaction_train as it
from interaction_train.callbacks.robust_curve import robust_curve
from interaction_train.callbacks.samples import spread
from interaction_train.indices import resolve_orders
from interaction_train.metrics import rows as measured
from interaction_train.models import CIFAR10_MEAN, CIFAR10_STD, CIFARThinResNet
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import COLOURS, INK, SEQUENTIAL, styled

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
    network: nn.Module, source: str, cells: Sequence[int], images: int, contexts: int, pairs: int
) -> Summary:
    """J(m) on some of the test images that the network gets right.

    Per reading ``[J, standard errors over images]`` over ``orders``, and mean |I| (``mean``). Exact
    up to 16 cells: all orders, one reading.
    """
    device = next(network.parameters()).device
    x, y = (v.to(device) for v in common.right_images([network], source, "test", images))
    grid, n = it.GridPlayers(*cells), math.prod(cells)
    if n <= 16:
        value, interactions = common.exact_orders(network, x, y, grid)
        found = measured.spectrum(measured.exact_rows(interactions, value))
        exact = [found[key].tolist() for key in ("J_plug_in", "J_plug_in_stderr")]
        return {
            "orders": list(range(n - 1)),
            "mean": float(found["plug_in"].mean()),
            "exact": exact,
        }
    metric = it.InteractionSpectrum(
        grid, ratios=RATIOS, pairs=it.NeighbourPairs(2, pairs), contexts=contexts
    ).to(device)
    metric.update(network, x, y)
    result = {key: value.tolist() for key, value in metric.compute().items()}
    readings = {key: [result[f"J_{key}"], result[f"J_{key}_stderr"]] for key in READINGS}
    mean = sum(result["plug_in"]) / len(RATIOS)
    return {"orders": list(resolve_orders(n, ratios=RATIOS)), "mean": mean, **readings}


def theory(n: int, orders: Sequence[int]) -> list[float]:
    """w^(m)/√C(n−2, m), divided by its mean over these orders (Theorem 1)."""
    m = np.array(orders)
    values = (n - 1 - m) * np.exp((gammaln(m + 1) + gammaln(n - 1 - m) - gammaln(n - 1)) / 2)
    return (values / values.mean()).tolist()


def measure_trained(network: str, weights: str, data: dict[str, Any], **size: Any) -> Summary:
    """J(m) of a network whose weights are there already."""
    build = NETWORKS[network]
    published = network.startswith("cifar_")  # in a file with names of its own
    trained = build(weights=weights) if published else it.load_weights(build(), weights)
    return spectrum(trained.eval(), data["source"], **size)


def train(network: str, data: dict[str, Any], seed: int, epochs: int, **more: Any) -> nn.Module:
    """Train at a learning rate that suits the small networks."""
    lr = 0.05 if data["source"] == "digits" else 0.03
    splits = common.splits(**data, seed=seed)
    return common.fit(NETWORKS[network], splits, seed=seed, epochs=epochs, lr=lr, **more)


def follow(
    network: str, data: dict[str, Any], epochs: int, every: int, cells: list[int], images: int,
    contexts: int, seed: int,
) -> Summary:  # fmt: skip
    """J(m) while a network is trained, on the same validation images, right or wrong, every time.

    Epoch 0 is before training.
    """
    L.seed_everything(seed, verbose=False)
    how: dict[str, Any] = {"ratios": RATIOS, "contexts": contexts, "only_correct": False}
    how["pairs"] = it.NeighbourPairs(2, 32)
    before = it.InteractionSpectrum(it.GridPlayers(*cells), **how)
    x, y = common.images(data["source"], "val")
    some = spread(range(len(x)), images)
    before.update(NETWORKS[network]().eval(), x[some], y[some])
    rows, cols = cells
    monitor = it.SpectrumMonitor(rows=rows, cols=cols, n_samples=images, every=every, **how)
    train(network, data, seed, epochs, callbacks=[monitor], limit_val_batches=1.0)
    first, points = before.compute(), monitor.history
    found: Summary = {"epochs": [0, *(point["epoch"] + 1 for point in points)]}
    for key, name, begin in (("J", "J_plug_in", "J"), ("stderr", "J_plug_in_stderr", "J_stderr")):
        keys = [f"val/interaction/{begin}/{ratio:g}" for ratio in RATIOS]
        later = [[point["values"][key] for key in keys] for point in points]
        found[key] = [first[name].tolist(), *later]
    return found


def train_for_orders(
    model: str, network: str, data: dict[str, Any], epochs: int, cells: list[int], images: int,
    contexts: int, attacked: int, epsilons: list[float], steps: int, seed: int,
) -> Summary:  # fmt: skip
    """Train for chosen orders; measure J(m), the accuracy, and that under attack."""
    term = terms(it.GridPlayers(*cells))[model]
    losses = {} if term is None else {"orders": it.WeightedTerm(term)}
    trained = train(network, data, seed, epochs, losses=losses)
    x, y = common.images(data["source"], "test")
    found = spectrum(trained, data["source"], cells, images, contexts, 32)
    found["accuracy"] = common.accuracy(trained, x, y)
    device, some = next(trained.parameters()).device, spread(range(len(x)), attacked)
    x, y = x[some].to(device), y[some].to(device)
    size: dict[str, Any] = {"eps": epsilons[0], "alpha": epsilons[0] / 4, "steps": steps}
    # Cross entropy has no gradient where a network is sure; the margin has.
    margin = partial(it.TransferAttack, **size, objective=it.attacks.Objective("margin"))
    pgd, other = (
        robust_curve(make, trained, x, y, epsilons).smallest
        for make in (partial(torchattacks.PGD, **size), margin)
    )
    for name, smallest in (("PGD", pgd), ("both", torch.minimum(pgd, other))):
        survives = (smallest[:, None] > torch.tensor(epsilons)).double()  # (images, ε)
        found[name], found[f"{name}, images"] = (survives.mean(d).tolist() for d in (0, 1))
    return found


def at_ratios(summary: Summary, n: int) -> dict[str, np.ndarray]:
    """J at the seven ratios, relative to the mean over them, and its error, per reading."""
    places = [summary["orders"].index(m) for m in resolve_orders(n, ratios=RATIOS)]
    found = {k: np.array(summary[k])[:, places] for k in ("exact", *READINGS) if k in summary}
    return {reading: values / values[0].mean() for reading, values in found.items()}


def j_columns(names: Sequence[float], j: Sequence[float], error: Sequence[float]) -> Summary:
    """Columns of a table: J(m) with its error at every order or ratio."""
    found: Summary = {}
    for name, value, deviation in zip(names, j, error, strict=True):
        found |= Mean(value, deviation, 0, 0).columns(f"J({name:g})")
    return found


def spectrum_rows(found: Mapping[str, Summary], cells: Mapping[str, int]) -> list[dict[str, Any]]:
    """A row per network, grid and reading; the theory's curve at the end of each grid."""
    curves: list[tuple[Any, ...]] = [
        (name.split("/")[0], cells[name], reading, *values)
        for name, summary in found.items()
        for reading, values in at_ratios(summary, cells[name]).items()
    ]
    for n in sorted(set(cells.values())):
        expected = theory(n, resolve_orders(n, ratios=RATIOS))
        curves.append(("theory", n, "", expected, [math.nan] * len(RATIOS)))
    heads = [dict(zip(("network", "cells", "reading"), row[:3], strict=True)) for row in curves]
    return [head | j_columns(RATIOS, *row[3:]) for head, row in zip(heads, curves, strict=True)]


def bowl(j: Sequence[float], error: Sequence[float]) -> float:
    """How far J at the lower of both ends lies above the middle, in standard errors."""
    middle = len(j) // 2
    return min((j[end] - j[middle]) / math.hypot(error[end], error[middle]) for end in (0, -1))


def depth(j: Sequence[float], error: Sequence[float]) -> tuple[float, float]:
    """The mean of both ends of J over its middle, and the standard error to first order."""
    middle, ends = len(j) // 2, j[0] + j[-1]
    value = ends / 2 / j[middle]
    return value, value * math.hypot(error[0] / ends, error[-1] / ends, error[middle] / j[middle])


def order_rows(models: Mapping[str, list[Summary]], epsilons: Sequence[float]) -> tuple[Any, Any]:
    """Two tables, a row per model: J(m), and robustness."""
    spectra, robust = [], []
    for model, runs in models.items():
        head = {"model": model, **columns({"accuracy": [run["accuracy"] for run in runs]})}
        orders, mean = runs[0]["orders"], Mean.of(run["mean"] for run in runs).value
        values = j_of(runs)
        error = np.square(values[:, 1]).mean(0) / len(runs)
        if len(runs) > 1:  # what varies between images, and what varies between seeds
            error = error + values[:, 0].var(0, ddof=1) / len(runs)
        shown = (orders, values[:, 0].mean(0), np.sqrt(error))
        some = slice(None, None, 2 if len(orders) > 8 else 1)
        spectra.append({**head, "mean |I|": mean, **j_columns(*(v[some] for v in shown))})
        stands = {f"PGD ε={e:.3g}": [run["PGD"][k] for run in runs] for k, e in enumerate(epsilons)}
        stands["PGD, mean over ε"] = robustness(runs, "PGD")
        stands["PGD and margin, mean over ε"] = robustness(runs, "both")
        robust.append({**head, **columns(stands)})
    return spectra, robust


def j_of(runs: Sequence[Summary]) -> np.ndarray:
    """J and its error over all orders, ``(runs, 2, orders)``."""
    return np.array([run["exact" if "exact" in run else "plug_in"] for run in runs])


def robustness(runs: Sequence[Summary], attack: str) -> list[float]:
    """Accuracy under an attack, averaged over ε, of every seed, or image of a single run."""
    return common.units([run[f"{attack}, images" if len(runs) == 1 else attack] for run in runs])


@styled()
def figure(
    found: Mapping[str, Summary], cells: Mapping[str, int], training: Summary,
    models: Mapping[str, list[Summary]], epsilons: Sequence[float],
) -> Figure:  # fmt: skip
    """J(m) beside the theory, over training, of the models, and their robustness."""
    drawn, panels = new_panels(2, 2, 9, 8)
    networks, epochs, orders, robust = panels.flat
    draw_networks(networks, found, cells)
    last = len(training["epochs"]) - 1
    for place in sorted({0, 1, (last + 1) // 2, last}):
        style = {
            "color": SEQUENTIAL(0.85 * (1 - place / max(1, last))),
            "ls": "-",
            "marker": "o",
        }
        j, error = training["J"][place], training["stderr"][place]
        epochs.errorbar(RATIOS, j, error, label=f"epoch {training['epochs'][place]}", **style)
    epochs.set(
        xlabel="order m/(n−2)",
        ylabel="J(m), plug-in",
        title="Over training (bars: one standard error)",
    )
    for model, runs in models.items():
        style = {"ls": "--" if model.startswith("band") else "-", "label": model}
        values = j_of(runs)[:, 0].T
        common.curve(orders, runs[0]["orders"], [Mean.of(v) for v in values], **style)
        under = np.array([[run["accuracy"], *run["PGD"]] for run in runs])
        common.curve(robust, [0, *epsilons], [Mean.of(v) for v in under.T], **style)
    orders.set(xlabel="order m", ylabel="J(m)", title="Models trained for chosen orders")
    orders.xaxis.set_major_locator(MaxNLocator(integer=True))
    robust.set(
        xlabel="ε of PGD (pixel values in [0, 1])",
        ylabel="accuracy",
        title="Their robustness (bars: one standard error)",
    )
    for axes in drawn.axes:
        axes.set_ylim(bottom=0)
        handles, labels = axes.get_legend_handles_labels()  # below, where no curve is
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return drawn


def draw_networks(axes: Axes, found: Mapping[str, Summary], cells: Mapping[str, int]) -> None:
    """J(m) of trained networks by colour, readings by line, and the theory's curve."""
    colours: dict[str, str] = {}
    styles, top = {"exact": "--", "plug_in": "-", "split_sign": "-."}, 0.0
    legend: dict[str, dict[str, Any]] = {}
    for name, summary in found.items():
        network = name.split("/")[0]
        colour = colours.setdefault(network, COLOURS[len(colours) % len(COLOURS)])
        for reading, (j, error) in at_ratios(summary, cells[name]).items():
            axes.errorbar(RATIOS, j, error, ls=styles[reading], marker="o", color=colour)
            line = {"ls": styles[reading], "color": INK}
            legend[f"{cells[name]} cells, {reading.replace('_', '-')}"] = line
            top = max(top, *j)
    for label, style in (legend | {k: {"color": c} for k, c in colours.items()}).items():
        axes.plot([], [], label=label, **style)
    n = max(cells.values())
    expected = theory(n, resolve_orders(n, ratios=RATIOS))
    label = f"theory, {n} cells:\n{expected[0]:.2g}, about 0, {expected[-1]:.2g}"
    axes.plot(RATIOS, np.minimum(expected, 1.6 * top), ":", color=INK, label=label)
    axes.set(xlabel="order m/(n−2)", ylabel="J(m)", title="Trained networks")
    axes.set_ylim(top=1.6 * top)


def judge(
    part: Part, found: Mapping[str, Summary], cells: Mapping[str, int], training: Summary,
    models: Mapping[str, list[Summary]],
) -> None:  # fmt: skip
    """The verdict over the shape of J(m), what training has to do with it, and robustness."""
    ends = [
        min(bowl(*values) for values in at_ratios(summary, cells[name]).values())
        for name, summary in found.items()
    ]
    deep = sum(end > 2 for end in ends)
    before, after = (depth(training["J"][k], training["stderr"][k]) for k in (0, -1))
    deeper = after[0] - before[0] > 2 * math.hypot(before[1], after[1])
    by = f"by over 2 standard errors in {deep} of {len(ends)} networks and grids, at least "
    by += f"{min(ends):.1f}"
    shown = [f"{value:.2f} ± {error:.2f}" for value, error in (before, after)]
    change = f"mean of the ends over the middle {shown[0]} before, {shown[1]} after"
    checks = [
        Check("J is higher at both ends than in the middle", deep == len(ends), by),
        Check("training makes it so", deeper, change),
    ]
    for first, second in pairwise(LEAST_ROBUST_LAST):
        gap = paired(robustness(models[first], "PGD"), robustness(models[second], "PGD"))
        says = f"the {first} model is more robust than the {second} one"
        checks.append(Check(says, gap.clearly(1), gap.points()))
    part.verdict(checks)


def plans(part: Part) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """The runs, of trained networks, in training and for chosen orders; cells of the first."""
    asked, digits = part.settings, part.data == "digits"
    data: dict[str, Any] = {"source": part.study.source(part.data)}
    if not digits:
        data |= {"batch_size": 64, "augment": part.study.scale == "full"}
    plan: dict[str, dict[str, Any]] = {}
    cells = {}
    for name, (rows, cols) in product(asked["networks"], asked["grids"]):
        weights = name if digits else str(part.study.file(f"{name}.safetensors"))
        run = {"network": name, "weights": weights, **asked["measured"], "cells": [rows, cols]}
        plan[f"spectrum/{name}/{rows}x{cols}"] = run
        cells[f"{name}/{rows}x{cols}"] = rows * cols
    plan["training"] = {"seed": 0, **asked["training"]}
    for seed, model in product(part.seeds, asked["models"]):
        plan[f"orders/{model}/seed_{seed}"] = {"model": model, **asked["orders"], "seed": seed}
    kinds = {name: {"kind": name.split("/")[0], "data": data, **run} for name, run in plan.items()}
    return kinds, cells


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    kinds: dict[str, Callable[..., Summary]]
    kinds = {"spectrum": measure_trained, "training": follow, "orders": train_for_orders}
    for part in study.parts():
        with part:
            plan, cells = plans(part)
            done = part.runs(plan, lambda kind, **settings: kinds[kind](**settings))
            found = {name: done[f"spectrum/{name}"] for name in cells}
            history, epsilons = done["training"], part.settings["orders"]["epsilons"]
            models = {
                model: [done[f"orders/{model}/seed_{seed}"] for seed in part.seeds]
                for model in part.settings["models"]
            }
            part.table(spectrum_rows(found, cells), "spectra")
            epochs = zip(history["epochs"], history["J"], history["stderr"], strict=True)
            rows = [{"epoch": epoch, **j_columns(RATIOS, *values)} for epoch, *values in epochs]
            part.table(rows, "training")
            spectra, robust = order_rows(models, epsilons)
            part.table(spectra, "orders")
            part.table(robust, "robustness")
            part.figure(figure(found, cells, history, models, epsilons))
            judge(part, found, cells, history, models)


if __name__ == "__main__":
    main()
