"""The interaction loss beside dropout and other regularisers (survey, Sec. 5.3, Table 3).

Networks with few training samples are trained without a regulariser, with dropout (rates and
places), weight decay, label smoothing, mixup, a confidence penalty, the interaction loss, and the
interaction loss with dropout, each of which has the same number of settings to choose from. The
setting is chosen by the validation NLL, averaged over seeds that take no further part. The chosen
ones, and the loss at its defaults, are trained with other seeds (100 more than those that the
results name), each with a split of its own, and reported on test samples; differences are paired by
seed, p-values are those of paired t-tests, after Holm over the comparisons of a bed.

Claims: dropout lowers the interactions; the loss does better than dropout and than weight decay, in
accuracy, or in NLL where the accuracies do not differ; beside dropout it does better than dropout
alone; at λ = 1, with nothing chosen, it never does harm, neither early in the network nor late.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import torchattacks
from common import Check, Mean, Part, Settings, Study, Summary, columns, logits, paired
from loss_variants import SCHEDULES, Variant
from matplotlib.figure import Figure
from scipy import stats
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error
from torchvision.models.vgg import make_layers

import interaction_train as it
from interaction_train.data import sources
from interaction_train.models.networks import CIFAR10_MEAN, CIFAR10_STD
from interaction_train.tracking.figures import legend_below, new_figure
from interaction_train.tracking.style import INK, styled

NONE, DROPOUT, DECAY = "none", "dropout", "weight decay"
LOSS, BOTH = "interaction loss", "interaction loss and dropout"
EARLY, LATE = "interaction loss at λ = 1, early", "interaction loss at λ = 1, late"
FALLING = "interaction loss at λ = 3, late, falling"
DEFAULTS = {
    EARLY: {"weight": 1.0},
    LATE: {"weight": 1.0, "layer": "after"},
    FALLING: {"weight": 3.0, "layer": "after", "schedule": "falling"},
}

Parts = dict[str, tuple[Tensor, Tensor]]
Plan = dict[str, dict[str, Any]]


@cache
def load(source: str) -> Parts:
    """``tabular``, or an image source: the pool that is split, and test samples if it has some."""
    if source == "tabular":
        cancer = load_breast_cancer()
        x = torch.as_tensor(stats.zscore(cancer.data), dtype=torch.float32)
        return {"pool": (x, torch.as_tensor(cancer.target, dtype=torch.int64))}
    found: Parts = {}
    for name, part in sources.load(source, "data", None, download=True).items():
        x, y = part[:]
        found["pool" if name == "train" else name] = (
            x.float() / 255 if x.dtype == torch.uint8 else x,
            y,
        )
    return found


def split(found: Parts, bed: Settings, seed: int) -> Parts:
    """Training, validation and test samples of a seed; the last are fixed, or what is left."""
    order = torch.randperm(len(found["pool"][1]), generator=torch.Generator().manual_seed(seed))
    train, val, rest = order.tensor_split([bed["train"], bed["train"] + bed["val"]])
    x, y = found["pool"]
    test = found.get("test", (x[rest], y[rest]))
    test = test[0][: bed["test"]], test[1][: bed["test"]]
    return {"train": (x[train], y[train]), "val": (x[val], y[val]), "test": test}


def build(name: str, rate: float, everywhere: bool) -> nn.Module:
    """A network: ``before``, dropout where it is everywhere, ``after`` and the last layer.

    Dropout is before the last layer, and with ``everywhere`` after ``before`` and before further
    linear layers; in the paper's ``alexnet`` and ``vgg11`` in one place.
    """
    if name in ("alexnet", "vgg11"):
        paper = {"alexnet": it.models.CIFARAlexNet, "vgg11": it.models.CIFARVGG}
        return paper[name](dropout=rate)
    inner = rate if everywhere else 0.0
    before: list[nn.Module]
    after: list[nn.Module]
    if name in ("tabular", "mlp"):
        inputs, hidden, classes = (30, 128, 2) if name == "tabular" else (784, 512, 10)
        before = [nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU()]
        after = [nn.Linear(hidden, hidden)]
    elif name == "vgg":  # VGG-11 at a quarter of its width, cut after its second pooling
        widths: list[str | int] = [16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M"]
        features = list(make_layers(widths))
        before, after, hidden, classes = features[:6], features[6:], 128, 10
        after += [nn.Flatten(), nn.Dropout(inner), nn.Linear(128, hidden)]
    else:
        width, units, hidden, classes = (8, 784, 64, 10) if name == "cnn" else (16, 512, 64, 10)
        before = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        after = [nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU()]
        after += [nn.MaxPool2d(2)] if name == "cnn" else []
        after += [nn.Flatten(), nn.Dropout(inner), nn.Linear(units, hidden)]
    after += [nn.ReLU()]
    last = nn.Sequential(nn.Dropout(rate), nn.Linear(hidden, classes))
    if name == "vgg":
        before = [it.Normalize(CIFAR10_MEAN, CIFAR10_STD), *before]
        for layer in (*before, *after):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    parts = {"before": nn.Sequential(*before), "dropout": nn.Dropout(inner)}
    return nn.Sequential(OrderedDict(**parts, after=nn.Sequential(*after), last=last))


def train(
    bed: Mapping[str, Any], seed: int, *, dropout: float = 0.0, everywhere: bool = False,
    decay: float = 0.0, smoothing: float = 0.0, mixup: float = 0.0, penalty: float = 0.0,
    weight: float = 0.0, layer: str = "before", loss: Settings | None = None,
    early: float = 0.0, schedule: str = "constant", measured: bool = False,
) -> Summary:  # fmt: skip
    """Train one network with Adam along a cosine, and measure it, on test samples if ``measured``.

    ``seed`` is that of the split, the first weights, the order of batches and all draws; ``decay``
    is decoupled, ``mixup`` α of the Beta distribution, ``penalty`` the weight of minus the outputs'
    entropy, ``weight`` λ of the interaction loss at ``layer`` (``before``, early, or ``after``, the
    last hidden one), and ``loss`` its settings other than the defaults. A second term is early,
    at ``early`` times the weight, and ``schedule`` is the weights' course.
    """
    data = split(load(bed["source"]), bed, seed)
    torch.manual_seed(seed)
    network = build(bed["network"], dropout, everywhere).to(memory_format=torch.channels_last)
    layers, course = bed.get("layers", {}), SCHEDULES[schedule]
    terms = {Variant(layers.get(layer, layer), seed=seed, **(loss or {})): weight}
    if early:
        second = layers.get("before", "before")
        terms[Variant(second, seed=seed, name="second", **(loss or {}))] = early * weight
    x, y = data["train"]
    one_hot = F.one_hot(y).float()
    steps = len(x) // bed["batch"]
    optimizer = torch.optim.AdamW(network.parameters(), bed["lr"], weight_decay=decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, bed["epochs"] * steps)
    beta = torch.distributions.Beta(mixup or 1.0, mixup or 1.0)
    wanted = [name for term in terms for name in term.layers] if weight else []
    for _ in range(bed["epochs"]):
        for batch in torch.randperm(len(x)).split(bed["batch"])[:steps]:
            images, labels = x[batch], one_hot[batch]
            if mixup:
                share, other = beta.sample(), torch.randperm(len(images))
                images = torch.lerp(images[other], images, share)
                labels = torch.lerp(labels[other], labels, share)
            strength = course(scheduler.last_epoch / scheduler.T_max)
            with it.record(network, wanted) as forward:
                forward.logits = network(images)
            total = F.cross_entropy(forward.logits, labels, label_smoothing=smoothing)
            for term, factor in terms.items() if weight and strength else ():
                value = term(network, images, labels, forward=forward)
                total = total + factor * strength * value
            if penalty:
                log_p = forward.logits.log_softmax(1)
                total = total + penalty * (log_p.exp() * log_p).sum(1).mean()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            scheduler.step()
    found = quality(network, *data["val"])
    return {**found, **measure(network, data, bed, seed)} if measured else found


def quality(network: nn.Module, x: Tensor, y: Tensor) -> Summary:
    """Accuracy, NLL and the expected calibration error (15 bins)."""
    z = logits(network, x)
    error = multiclass_calibration_error(z.softmax(1), y, z.shape[1], n_bins=15)
    accuracy = (z.argmax(1) == y).double().mean()
    return {"accuracy": float(accuracy), "NLL": float(F.cross_entropy(z, y)), "ECE": float(error)}


def measure(network: nn.Module, data: Parts, bed: Mapping[str, Any], seed: int) -> Summary:
    """What is reported of a network, on test samples."""
    x, y = data["test"]
    found = quality(network, x, y)
    found["gap"] = quality(network, *data["train"])["accuracy"] - found["accuracy"]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    found["noise"] = quality(network, x + bed["noise"] * noise, y)["accuracy"]
    if bed["images"]:
        x, y = x[: bed["images"]], y[: bed["images"]]
        attack = torchattacks.PGD(network, eps=bed["eps"], alpha=bed["eps"] / 4, steps=10)
        found["PGD"] = quality(network, attack(x, y), y)["accuracy"]
        mean = data["train"][0].mean((0, 2, 3)).tolist()
        exact = it.callbacks.ExactInteractions(3, 3, baseline=mean).evaluate(network, x, y)
        found["mean |I|"], found["strength"] = (exact[k]["value"] for k in ("mean_abs", "strength"))
    return {f"test {key}": value for key, value in found.items()}


def plan(
    part: Part, choices: Mapping[str, Sequence[Settings]], seeds: Sequence[int], **more: Any
) -> Plan:
    """Name of the run → the arguments of :func:`train`, seed by seed."""
    bed = {**part.settings["bed"]}
    if bed["source"].endswith(".npz"):
        bed["source"] = str(part.study.file(bed["source"]))
    return {
        f"{kind}_{number}/seed_{seed}": {"bed": bed, "seed": seed, **chosen, **more}
        for seed in seeds
        for kind, settings in choices.items()
        for number, chosen in enumerate(settings)
    }


def lowest(
    found: Mapping[str, Summary], choices: Mapping[str, Sequence[Settings]], seeds: Iterable[int]
) -> dict[str, int]:
    """Of every kind the number of the setting with the lowest mean validation NLL."""
    nll = {
        kind: [
            np.mean([found[f"{kind}_{number}/seed_{seed}"]["NLL"] for seed in seeds])
            for number in range(len(settings))
        ]
        for kind, settings in choices.items()
    }
    return {kind: int(np.argmin(values)) for kind, values in nll.items()}


def choose(part: Part) -> dict[str, list[dict[str, Any]]]:
    """Of every regulariser the setting chosen on the choosing seeds, and the loss's defaults."""
    choices = {NONE: [{}], **part.settings["choices"]}
    seeds = range(part.settings["choosing_seeds"])
    best = lowest(part.runs(plan(part, choices, seeds), train), choices, seeds)
    chosen = {kind: [choices[kind][number]] for kind, number in best.items()}
    chosen |= {kind: [setting] for kind, setting in DEFAULTS.items()}
    if part.settings["bed"]["source"] == "tabular":  # whose log odds are additive at the end
        del chosen[LATE], chosen[FALLING]
    return chosen


def holm(p: Sequence[float]) -> list[float]:
    """p-values after Holm's correction for their number."""
    order = np.argsort(p)
    scaled = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(scaled).clip(max=1.0)
    return corrected.tolist()


def compare(frame: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row per pair: what the first gains over the second, by seed, with p-values after Holm."""
    rows, p = [], []
    for first, other in pairs:
        row: dict[str, Any] = {"gain of": first, "over": other}
        for key, sign in (("accuracy", 1), ("NLL", -1)):
            ours, theirs = (frame.loc[[kind], key].to_numpy() for kind in (first, other))
            row |= Mean.of(sign * (ours - theirs)).columns(key, interval=True)
            p.append(float(stats.ttest_rel(ours, theirs).pvalue) if len(ours) > 1 else math.nan)
        rows.append(row)
    corrected = holm(p)
    for number, row in enumerate(rows):
        row["p, accuracy"], row["p, NLL"] = corrected[2 * number : 2 * number + 2]
    return rows


MARKERS = "osD^v<>PX*hd"


def better(row: Mapping[str, Any]) -> bool:
    """More accurate by more than the interval; or not less accurate, and lower in NLL."""
    return row["accuracy_low"] > 0 or (row["accuracy_high"] >= 0 and row["NLL_low"] > 0)


@styled()
def figure(frame: pd.DataFrame, title: str) -> Figure:
    """Gains over no regulariser in accuracy and NLL, with 95 % intervals."""
    drawn, axes = new_figure(6.5, 5)
    axes.axhline(0, color=INK, lw=0.8)
    axes.axvline(0, color=INK, lw=0.8)
    kinds = frame.index.unique().drop(NONE)
    for kind, marker in zip(kinds, MARKERS, strict=False):
        y, x = (paired(frame.loc[[kind], k], frame.loc[[NONE], k]) for k in ("accuracy", "NLL"))
        errors = 100 * (y.high - y.value), x.high - x.value
        axes.errorbar(
            -x.value, 100 * y.value, *errors, fmt=marker, label=kind, elinewidth=1, markersize=6
        )
    axes.set(xlabel="test NLL lower by (nats)", ylabel="test accuracy higher by (points)")
    axes.set_title(f"{title}\ngains over no regulariser, with 95 % intervals")
    legend_below(axes)
    return drawn


def report(
    part: Part, chosen: Mapping[str, Sequence[Settings]], found: Mapping[str, Summary]
) -> None:
    """Tables, figure and verdict."""
    rows = [{"kind": name.split("_")[0], **summary} for name, summary in found.items()]
    frame = pd.DataFrame(rows).set_index("kind")
    frame = frame.filter(like="test ").rename(columns=lambda name: name.removeprefix("test "))
    table = []
    for kind, (settings,) in chosen.items():
        shown = ", ".join(f"{key} {value}" for key, value in settings.items())
        values = {key: frame.loc[[kind], key].tolist() for key in frame.columns}
        table.append({"trained with": kind, "setting": shown, **columns(values)})
    part.table(table)
    others = [(LOSS, kind) for kind in chosen if kind not in (LOSS, *DEFAULTS)]
    both = [(BOTH, kind) for kind in (DROPOUT, DECAY, NONE)]
    pairs = [*others, *both, *((kind, NONE) for kind in DEFAULTS)]
    compared = compare(frame, [pair for pair in pairs if {*pair} <= {*chosen}])
    part.table(compared, "gains")
    part.figure(figure(frame, part.settings["title"]))
    checks = []
    for key in frame.columns.intersection(["mean |I|", "strength"]):
        change = paired(frame.loc[[DROPOUT], key], frame.loc[[NONE], key])
        checks.append(Check(f"dropout lowers {key}", change.clearly(-1), f"by {change}"))
    for row in compared:
        ours, other = row["gain of"], row["over"]
        if ours in DEFAULTS:
            harm = row["accuracy_high"] < 0 or row["NLL_high"] < 0
            checks.append(Check(f"{ours} does no harm", not harm, _numbers(row)))
        elif other in (DROPOUT, DECAY, NONE):
            checks.append(Check(f"the {ours} does better than {other}", better(row), _numbers(row)))
    part.verdict(checks)


def _numbers(row: Mapping[str, Any]) -> str:
    gain = Mean(row["accuracy"], 0.0, row["accuracy_low"], row["accuracy_high"])
    return (
        f"{gain.points()}, NLL {-row['NLL']:+.3f} [{-row['NLL_high']:+.3f}, {-row['NLL_low']:+.3f}]"
    )


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            chosen = choose(part)
            seeds = [100 + seed for seed in part.seeds]  # none of those that chose
            report(part, chosen, part.runs(plan(part, chosen, seeds, measured=True), train))


if __name__ == "__main__":
    main()
