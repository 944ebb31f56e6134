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

import lightning as L
import torch
import torchattacks
from common import (
    Check,
    Mean,
    Part,
    Settings,
    Study,
    Summary,
    fit,
    logits,
    paired,
    spread,
    tensors,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from interaction_train.attacks import Objective, TransferAttack
from interaction_train.callbacks import SpectrumMonitor
from interaction_train.callbacks.robust_curve import robust_curve
from interaction_train.data import DigitsDataModule, ImageDataModule
from interaction_train.game.absence import input_baseline
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers
from interaction_train.indices import resolve_orders
from interaction_train.indices.exact import exact_values, multi_order_interactions
from interaction_train.losses import BandLoss, OrderLoss
from interaction_train.losses.base import InteractionTerm
from interaction_train.metrics import InteractionSpectrum
from interaction_train.models import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    DIGITS_MEAN,
    DIGITS_STD,
    CIFARAlexNet,
    CIFARResNet,
    CIFARThinResNet,
    DigitsMLP,
    DigitsNet,
    Normalize,
    load_weights,
)
from interaction_train.sampling.pairs import NeighbourPairs
from interaction_train.training.objective import WeightedTerm

RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
READINGS = ("plug_in", "split_sign")
LEAST_ROBUST_LAST = ("low", "normal", "mid", "high")


def small_network(width: int = 16) -> nn.Module:
    """Five convolutions, no BatchNorm, for CIFAR-10."""
    layers: list[nn.Module] = [Normalize(CIFAR10_MEAN, CIFAR10_STD)]
    before = 3
    for factor, pool in ((1, True), (2, False), (2, True), (4, False), (4, True)):
        layers += [nn.Conv2d(before, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
        before = factor * width
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * before, 10))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "digits_cnn": DigitsNet,
    "digits_mlp": DigitsMLP,
    "digits_resnet": partial(CIFARThinResNet, 8, mean=DIGITS_MEAN, std=DIGITS_STD, width=8),
    "cifar_resnet20": partial(CIFARThinResNet, 20),
    "cifar_resnet32": partial(CIFARThinResNet, 32),
    "five_convolutions": small_network,
    "alexnet": CIFARAlexNet,
    "resnet18": CIFARResNet,
}


def terms(grid: GridPlayers) -> dict[str, InteractionTerm | None]:
    """The papers' settings under the names of the models that they make, and two bands."""
    return {
        "low": OrderLoss(0.7, 1, "penalize", players=grid),
        "normal": None,
        "mid": OrderLoss(0.3, 0.7, "encourage", players=grid),
        "high": OrderLoss(0, 0.5, "penalize", players=grid),
        "band+": BandLoss(0.5, 0.25, "encourage", players=grid),
        "band−": BandLoss(0.5, 0.25, "penalize", players=grid),
    }


def splits(data: Mapping[str, Any], seed: int = 0) -> L.LightningDataModule:
    """The data module of some arguments."""
    return (ImageDataModule if "source" in data else DigitsDataModule)(**data, seed=seed)


def learning_rate(data: Mapping[str, Any]) -> float:
    """What trains the small networks well."""
    return 0.03 if "source" in data else 0.05


# --- measuring ------------------------------------------------------------------------------------


def spectrum(
    network: nn.Module, x: Tensor, y: Tensor, cells: Sequence[int], images: int, contexts: int,
    pairs: int,
) -> Summary:  # fmt: skip
    """J(m) on some of the images that the network gets right.

    Returns:
        ``orders``, per reading ``[J, standard errors over images]`` over these orders, and mean |I|
        (``mean``). Exact up to 16 cells: all orders, one reading.
    """
    right = (logits(network, x).argmax(1) == y).nonzero().flatten()
    some = right[spread(images, len(right))]
    device = next(network.parameters()).device
    x, y, grid = x[some].to(device), y[some].to(device), GridPlayers(*cells)
    n = grid.rows * grid.cols
    if n <= 16:
        game = MaskedGame(network, x, input_baseline(network, None, x), grid, "log_odds", y)
        orders = multi_order_interactions(exact_values(game).double())
        upper = torch.triu_indices(game.n, game.n, 1)
        strengths = orders[:, :, upper[0], upper[1]].abs().mean(-1).cpu()  # (images, orders)
        found = {"exact": relative(strengths)}
        return {"orders": list(range(game.n - 1)), "mean": float(strengths.mean()), **found}
    metric = InteractionSpectrum(
        grid, ratios=RATIOS, pairs=NeighbourPairs(2, pairs), contexts=contexts
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


def measure_trained(
    network: str, weights: str, data: dict[str, Any], cells: list[int], images: int,
    contexts: int, pairs: int,
) -> Summary:  # fmt: skip
    """J(m) of a network whose weights are there already."""
    build = NETWORKS[network]
    published = network.startswith("cifar_")  # in a file with names of its own
    trained = build(weights=weights) if published else load_weights(build(), weights)
    trained.eval()
    x, y = tensors(splits(data), "test")
    return spectrum(trained, x, y, cells, images, contexts, pairs)


def follow(
    network: str, data: dict[str, Any], epochs: int, every: int, cells: list[int],
    images: int, contexts: int, seed: int,
) -> Summary:  # fmt: skip
    """J(m) while a network is trained, on the same validation images, right or wrong, every time.

    Epoch 0 is before training.
    """
    L.seed_everything(seed, verbose=False)
    x, y = tensors(splits(data), "val")
    some = spread(images, len(x))
    before = InteractionSpectrum(
        GridPlayers(*cells), ratios=RATIOS, pairs=NeighbourPairs(2, 32), contexts=contexts,
        only_correct=False,
    )  # fmt: skip
    before.update(NETWORKS[network]().eval(), x[some], y[some])
    start = before.compute()
    monitor = SpectrumMonitor(
        rows=cells[0], cols=cells[1], n_samples=images, every=every, contexts=contexts,
        ratios=RATIOS, pairs=NeighbourPairs(2, 32), only_correct=False,
    )  # fmt: skip
    fit(
        NETWORKS[network], splits(data, seed), seed=seed, epochs=epochs, lr=learning_rate(data),
        callbacks=[monitor], validate=True,
    )  # fmt: skip
    found: Summary = {"epochs": [0, *(point["epoch"] + 1 for point in monitor.history)]}
    for key, name in (("J", "J"), ("stderr", "J_stderr")):
        begin = start["J_plug_in" + "_stderr" * (key == "stderr")].tolist()
        found[key] = [begin] + [
            [v for k, v in point["values"].items() if k.startswith(f"val/interaction/{name}/")]
            for point in monitor.history
        ]
    return found


def train_for_orders(
    model: str, network: str, data: dict[str, Any], epochs: int, cells: list[int], images: int,
    contexts: int, attacked: int, epsilons: list[float], steps: int, seed: int,
) -> Summary:  # fmt: skip
    """Train for chosen orders; measure J(m), the accuracy, and that under attack."""
    term = terms(GridPlayers(*cells))[model]
    trained = fit(
        NETWORKS[network], splits(data, seed), seed=seed, epochs=epochs, lr=learning_rate(data),
        losses={} if term is None else {"orders": WeightedTerm(term)},
    )  # fmt: skip
    x, y = tensors(splits(data), "test")
    device = next(trained.parameters()).device
    right = (logits(trained, x).argmax(1) == y).double().mean()
    some = spread(attacked, len(x))
    first = epsilons[0]
    attacks = {
        "PGD": partial(torchattacks.PGD, eps=first, alpha=first / 4, steps=steps),
        # Cross entropy has no gradient where a network is sure; the margin has.
        "margin": partial(
            TransferAttack, eps=first, alpha=first / 4, steps=steps, objective=Objective("margin")
        ),
    }
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


# --- tables and figures ---------------------------------------------------------------------------


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
    columns: dict[str, float] = {}
    for ratio, value, deviation in zip(RATIOS, j, error, strict=True):
        columns |= {f"J({ratio:g})": value, f"J({ratio:g})_stderr": deviation}
    return columns


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
        accuracy = Mean.of(run["accuracy"] for run in runs)
        reading = "exact" if "exact" in runs[0] else "plug_in"
        orders = runs[0]["orders"]
        row = {"model": model, **accuracy.columns("accuracy")}
        row["mean |I|"] = Mean.of(run["mean"] for run in runs).value
        j = torch.tensor([run[reading] for run in runs], dtype=torch.float64)  # (seeds, 2, orders)
        error = j[:, 1].square().mean(0) / len(runs)
        if len(runs) > 1:  # what varies between images, and what varies between seeds
            error = error + j[:, 0].var(0) / len(runs)
        for place in range(0, len(orders), 2 if len(orders) > 8 else 1):
            name = f"J({orders[place]})"
            row |= {
                name: float(j[:, 0, place].mean()),
                f"{name}_stderr": float(error[place] ** 0.5),
            }
        spectra.append(row)
        row = {"model": model, **accuracy.columns("accuracy")}
        for place, epsilon in enumerate(epsilons):
            row |= Mean.of(run["PGD"][place] for run in runs).columns(f"PGD ε={epsilon:.3g}")
        for name, title in (("PGD", "PGD, mean over ε"), ("both", "PGD and margin, mean over ε")):
            row |= Mean.of(robustness(runs, name)).columns(title)
        robust.append(row)
    return spectra, robust


def robustness(runs: Sequence[Summary], attack: str) -> list[float]:
    """Accuracy under an attack, averaged over ε, of every seed, or image of a single run."""
    if len(runs) == 1:
        return [float(value) for value in runs[0][f"{attack}, images"]]
    return [sum(run[attack]) / len(run[attack]) for run in runs]


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
        curve = [
            Mean.of(values)
            for values in zip(*([run["accuracy"], *run["PGD"]] for run in runs), strict=True)
        ]
        axes[1, 1].errorbar(
            [0, *epsilons], [m.value for m in curve], [m.stderr for m in curve], ls=style,
            marker="o", ms=3, label=model,
        )  # fmt: skip
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
    curve = theory(n, resolve_orders(n, ratios=RATIOS))
    label = f"theory, {n} cells:\n{curve[0]:.2g}, about 0, {curve[-1]:.2g}"
    axes.plot(RATIOS, [min(value, 1.6 * top) for value in curve], ":", color="black", label=label)
    axes.set(xlabel="order m/(n−2)", ylabel="J(m)", title="trained networks")
    axes.set_ylim(top=1.6 * top)


def judge(
    part: Part, found: Mapping[str, Summary], cells: Mapping[str, int], training: Summary,
    models: Mapping[str, list[Summary]],
) -> None:  # fmt: skip
    """The verdict over the shape of J(m), what training has to do with it, and robustness."""
    ends = [
        min(min(bowl(*curve)) for curve in at_ratios(summary, cells[name]).values())
        for name, summary in found.items()
    ]
    deep = sum(end > 2 for end in ends)
    before, after = (depth(training["J"][k], training["stderr"][k]) for k in (0, -1))
    deeper = after[0] - before[0] > 2 * math.hypot(before[1], after[1])
    checks = [
        Check(
            "J is higher at both ends than in the middle",
            deep == len(ends),
            f"by over 2 standard errors in {deep} of {len(ends)} networks and grids, "
            f"at least {min(ends):.1f}",
        ),
        Check(
            "training makes it so",
            deeper,
            f"mean of the ends over the middle {before[0]:.2f} ± {before[1]:.2f} before, "
            f"{after[0]:.2f} ± {after[1]:.2f} after",
        ),
    ]
    for first, second in pairwise(LEAST_ROBUST_LAST):
        gap = paired(robustness(models[first], "PGD"), robustness(models[second], "PGD"))
        says = f"the {first} model is more robust than the {second} one"
        checks.append(Check(says, gap.clearly(1), gap.points()))
    part.verdict(checks)


def study_part(
    part: Part,
    networks: Mapping[str, Settings],
    training: Settings,
    orders: Settings,
    models: Sequence[str],
) -> None:
    """Do all runs of a data set and write what came out.

    Args:
        part: the part.
        networks: arguments of :func:`measure_trained`.
        training: arguments of :func:`follow`.
        orders: arguments of :func:`train_for_orders`, without model and seed.
        models: names in :func:`terms`.
    """
    wanted = {
        f"{model}/seed_{seed}": {"model": model, **orders, "seed": seed}
        for seed in part.seeds
        for model in models
    }
    plan = {f"spectrum/{name}": settings for name, settings in networks.items()}
    plan |= {"training": training, **{f"orders/{name}": run for name, run in wanted.items()}}

    def work(**settings: Any) -> Summary:
        """Which of the three it is shows in the arguments."""
        if "weights" in settings:
            return measure_trained(**settings)
        return train_for_orders(**settings) if "model" in settings else follow(**settings)

    done = part.runs(plan, work)
    found = {name: done[f"spectrum/{name}"] for name in networks}
    cells = {name: math.prod(settings["cells"]) for name, settings in networks.items()}
    trained = {
        model: [done[f"orders/{model}/seed_{seed}"] for seed in part.seeds] for model in models
    }
    epsilons = orders["epsilons"]
    part.table(spectrum_rows(found, cells), "spectra")
    history = done["training"]
    part.table(
        [
            {"epoch": epoch, **_ratio_columns(j, error)}
            for epoch, j, error in zip(
                history["epochs"], history["J"], history["stderr"], strict=True
            )
        ],
        "training",
    )
    spectra, robust = order_rows(trained, epsilons)
    part.table(spectra, "orders")
    part.table(robust, "robustness")
    part.figure(figure(found, cells, history, trained, epsilons))
    judge(part, found, cells, history, trained)


def digits(study: Study, part: Part) -> None:
    """Packaged networks, exact on few cells and sampled on 64; DigitsNet for the rest."""
    pick = study.pick
    trained = pick(("digits_mlp",), *[("digits_cnn", "digits_mlp", "digits_resnet")] * 2)
    coarse = pick([2, 2], [4, 3], [4, 4])
    networks = {
        f"{name}/{rows}x{cols}": {
            "network": name, "weights": name, "data": {}, "cells": [rows, cols],
            "images": pick(2, 24, 100), "contexts": pick(4, 24, 100), "pairs": pick(8, 64, 200),
        }
        for name in trained
        for rows, cols in pick(([8, 8],), (coarse, [8, 8]), (coarse, [8, 8]))
    }  # fmt: skip
    training = {
        "network": "digits_cnn", "data": {}, "epochs": pick(2, 30, 100), "every": pick(1, 5, 1),
        "cells": pick([4, 4], [8, 8], [8, 8]), "images": pick(16, 24, 64),
        "contexts": pick(2, 16, 100), "seed": 0,
    }  # fmt: skip
    orders = {
        "network": "digits_cnn", "data": {}, "epochs": pick(1, 20, 100), "cells": coarse,
        "images": pick(2, 24, 100), "contexts": 0, "attacked": pick(8, 360, 360),
        "epsilons": [0.05, 0.1, 0.15, 0.2, 0.3], "steps": pick(2, 20, 100),
    }  # fmt: skip
    names = pick(LEAST_ROBUST_LAST, LEAST_ROBUST_LAST, tuple(terms(GridPlayers(4, 4))))
    study_part(part, networks, training, orders, names)


def cifar10(study: Study, part: Part) -> None:
    """Published weights on 256 cells; quick: a small network on 9 cells for the rest."""
    pick = study.pick
    data = {"source": study.cifar10, "batch_size": 64, "augment": study.scale == "full"}
    names = pick(("cifar_resnet20",), ("cifar_resnet20",), ("cifar_resnet20", "cifar_resnet32"))
    networks = {
        f"{name}/16x16": {
            "network": name, "weights": str(study.file(f"{name}.safetensors")), "data": data,
            "cells": [16, 16], "images": pick(1, 8, 100), "contexts": pick(2, 16, 100),
            "pairs": pick(8, 32, 200),
        }
        for name in names
    }  # fmt: skip
    training = {
        "network": pick("five_convolutions", "five_convolutions", "resnet18"), "data": data,
        "epochs": pick(1, 4, 300), "every": pick(1, 1, 10), "cells": [16, 16],
        "images": pick(2, 16, 64), "contexts": pick(2, 6, 50), "seed": 0,
    }  # fmt: skip
    orders = {
        "network": pick("five_convolutions", "five_convolutions", "alexnet"), "data": data,
        "epochs": pick(1, 4, 300), "cells": pick([2, 2], [3, 3], [16, 16]),
        "images": pick(2, 64, 100), "contexts": pick(2, 2, 100), "attacked": pick(4, 200, 1000),
        "epsilons": [1 / 255, 2 / 255, 4 / 255, 8 / 255], "steps": pick(1, 10, 100),
    }  # fmt: skip
    models = pick(LEAST_ROBUST_LAST, LEAST_ROBUST_LAST, tuple(terms(GridPlayers(4, 4))))
    study_part(part, networks, training, orders, models)


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    if study.wants("digits"):
        with study.part("digits", study.pick((0,), (0, 1, 2), range(10))) as part:
            digits(study, part)
    if study.wants("cifar10"):
        with study.part("cifar10", study.pick((0,), (0,), range(3))) as part:
            cifar10(study, part)


if __name__ == "__main__":
    main()
