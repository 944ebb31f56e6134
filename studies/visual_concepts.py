"""Which visual concepts have which orders: textures and shapes, common images and outliers.

The survey's Sec. 4.2, on J(m) of groups of samples from one pass. It says that (a) networks encode
textures more flexibly than shapes, whose distribution over orders is stable; (b) low orders stand
for common concepts without much structure, middle and high orders for complex ones; (c) shapes of
high orders are large, or outliers. Textures, outlines and digits are made by code (``stimuli.py``):
which is which is known. Flexibility is the mean total variation of an image's J(m) from that of its
class; low and high are the first and last .3 of the orders; near and far are the thirds of a class
nearest to and farthest from its mean feature before the last layer. Images are right ones.

Orders are exact on a 3 × 3 grid. On the fine grid they are sampled, and the flexibility is
corrected for the noise of the contexts drawn. CIFAR-10 has no known kinds: its classes are the
groups there, and only near and far are judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import common
import lightning as L
import torch
from common import Check, Mean, Part, Study, Summary, paired
from matplotlib.figure import Figure
from stimuli import CLASSES, KINDS, SIDE, Stimuli, stimuli
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import interaction_train as it
from interaction_train.callbacks.samples import spread
from interaction_train.indices.map_figure import interaction_maps_figure
from interaction_train.indices.maps import InteractionMaps, interaction_maps
from interaction_train.metrics import flexibility, split_groups
from interaction_train.metrics.rows import column, exact_rows
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import styled

CIFAR = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
CELLS = it.GridPlayers(3, 3)
LOW, HIGH = 0.3, 0.7  # as parts of the last order
RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
TITLES = {  # of the table's columns
    "flexibility": "flexibility",
    "fine flexibility": "flexibility, fine grid",
    "between networks": "flexibility between networks",
    "mean order": "mean order",
    "low": "low orders",
    "high": "high orders",
    "high near": "high orders, near",
    "high far": "high orders, far",
}


def names(data: str) -> Sequence[str]:
    """Of the classes."""
    return CLASSES if data == "textures" else CIFAR


def trained(
    study: Study, data: str, seed: int, size: Mapping[str, Any]
) -> tuple[nn.Module, Stimuli]:
    """A network of that seed, and images to measure it on."""
    options = {"seed": seed, "epochs": size["epochs"], "lr": 0.05}
    if data == "textures":
        train = TensorDataset(*stimuli(size["train"], seed, training=True)[:2])
        module = L.LightningDataModule.from_datasets(train, batch_size=64)
        build: Any = partial(
            it.models.DigitsNet, len(CLASSES), image_size=SIDE, mean=(0.5,), std=(0.14,)
        )
        network = common.fit(build, module, classes=len(CLASSES), **options)
        return network, stimuli(size["images"], seed, training=False)
    source = study.source(data)
    build = partial(it.models.CIFARThinResNet, 20)
    if study.scale == "full":
        network = common.fit(build, common.splits(source, seed), **options)
    else:
        network = build(weights=study.file("cifar_resnet20.safetensors")).eval()
    x, y = common.images(source, "test")
    of_class = [(y == k).nonzero().flatten() for k in range(len(CIFAR))]
    some = torch.cat([places[spread(range(len(places)), size["images"])] for places in of_class])
    return network, Stimuli(x[some], y[some], torch.full((len(some),), torch.nan))


def features(network: nn.Module, x: Tensor) -> Tensor:
    """What the last linear layer gets, ``(B, features)``."""
    kept: list[Tensor] = []
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    common.logits(network, x)
    hook.remove()
    return torch.cat(kept)


def measures(strength: Tensor, far: Tensor, size: Tensor) -> dict[str, Any]:
    """Of a class: strengths by order ``(B, M)``, distances from the mean, and sizes if known."""
    shape = strength / strength.sum(-1, keepdim=True)
    last = shape.shape[1] - 1
    orders = torch.arange(last + 1.0, dtype=shape.dtype)
    low, high = (shape[:, part].sum(-1) for part in (orders <= LOW * last, orders >= HIGH * last))
    result: dict[str, Any] = {"shape": (strength.mean(0) / strength.mean(0).sum()).tolist()}
    result |= {"mean order": float((shape @ orders).mean())}
    result |= {"low": float(low.mean()), "high": float(high.mean()), "images": len(shape)}
    by = {"near": far, "small": size} if size.isfinite().all() else {"near": far}
    for least, values in by.items():
        third, order = max(1, len(values) // 3), values.argsort()
        most = {"near": "far", "small": "large"}[least]
        for name, some in ((least, order[:third]), (most, order[-third:])):
            result[f"low {name}"] = float(low[some].mean())
            result[f"high {name}"] = float(high[some].mean())
    return result


def work(study: Study, data: str, seed: int, **size: Any) -> Summary:
    """Train or load a network and measure every class; ``size`` as in ``settings.yaml``."""
    network, images = trained(study, data, seed, size)
    right = common.logits(network, images.x).argmax(1) == images.y
    x, y, radius = (part[right] for part in images)
    found = features(network, x)
    found = found / found.std(0).clamp(min=1e-6)
    value, orders = common.exact_orders(network, x, y, CELLS)
    rows = exact_rows(orders, value)
    rows = rows.where(column(rows, "plug_in").sum(-1)[:, None, None] > 0, torch.nan)
    summary: Summary = {"accuracy": float(right.double().mean()), "classes": {}}
    for k, name in enumerate(names(data)):
        own = y == k
        far = (found[own] - found[own].mean(0)).norm(dim=1)
        told = measures(column(rows[own], "plug_in"), far, radius[own])
        told["flexibility"] = float(flexibility(rows[own])["flexibility"])
        summary["classes"][name] = told
    if "fine" in size:
        fine = size["fine"]
        metric = it.InteractionSpectrum(
            it.GridPlayers(*fine["grid"]), ratios=RATIOS, contexts=fine["contexts"],
            pairs=it.AllPairs(), groups="label", chunk_size=512,
        )  # fmt: skip
        first = [(y == k).nonzero().flatten()[: fine["images"]] for k in range(len(names(data)))]
        metric.update(network, x[torch.cat(first)], y[torch.cat(first)])
        for k, one in split_groups(metric.compute()).items():
            told = summary["classes"][names(data)[k]]
            told["fine flexibility"] = float(one["flexibility_corrected"])
    if seed == 0:
        summary["maps"] = maps(network, x, y, **size["maps"])
    return summary


def maps(network: nn.Module, x: Tensor, y: Tensor, grid: list[int], **options: Any) -> Summary:
    """Σ_j |I^(m)(i,j)| of the first image of each class."""
    first = torch.tensor([int((y == k).nonzero()[0]) for k in y.unique().tolist()])
    absent = it.input_baseline(network, None, x)
    game = it.MaskedGame(
        network, x[first], absent, it.GridPlayers(*grid), "log_odds", y[first], chunk_size=512
    )
    found = interaction_maps(game, **options)
    return {
        "images": x[first].tolist(),
        "labels": y[first].tolist(),
        "orders": found.orders,
        "plug_in": found.plug_in.tolist(),
        "exact": found.exact,
        "partners": found.partners,
    }


def by_seed(
    found: Mapping[str, Summary], part: Part, measure: str, classes: Sequence[str]
) -> list[list[float]]:
    """A measure of classes, a list for each seed."""
    runs = [found[f"seed_{seed}"]["classes"] for seed in part.seeds]
    return [[run[name][measure] for name in classes] for run in runs]


def between(found: Mapping[str, Summary], name: str) -> list[float]:
    """How far a class's J(m) of each network is from their mean, in total variation."""
    shapes = torch.tensor([run["classes"][name]["shape"] for run in found.values()])
    return ((shapes - shapes.mean(0)).abs().sum(-1) / 2).tolist()


def add_between(found: Mapping[str, Summary], part: Part) -> None:
    """Put it among the measures, where there are several networks."""
    if len(part.seeds) > 1:
        for name in names(part.data):
            for run, value in zip(found.values(), between(found, name), strict=True):
                run["classes"][name]["between networks"] = value


def rows(found: Mapping[str, Summary], part: Part) -> list[dict[str, Any]]:
    """A row for each class."""
    kinds = {name: kind for kind, group in KINDS.items() for name in group}
    result = []
    for name in names(part.data):
        row: dict[str, Any] = {"class": name}
        if part.data == "textures":
            row["kind"] = kinds[name]
        told = found[f"seed_{part.seeds[0]}"]["classes"][name]
        for measure in (m for m in TITLES if m in told):
            values = [one for (one,) in by_seed(found, part, measure, [name])]
            row |= Mean.of(values).columns(TITLES[measure])
        result.append(row)
    return result


def checks(found: Mapping[str, Summary], part: Part) -> list[Check]:
    """What the numbers say of each claim."""
    result: list[Check] = []

    def claim(says: str, more: list[float], less: list[float], sign: Literal[-1, 1] = 1) -> None:
        change = paired(more, less)
        numbers = f"{Mean.of(more).value:.3g} against {Mean.of(less).value:.3g}, by {change}"
        result.append(Check(says, change.clearly(sign), numbers))

    def get(measure: str, kind: str) -> list[float]:
        return common.units(by_seed(found, part, measure, KINDS.get(kind, names(part.data))))

    if part.data == "textures":
        told = found[f"seed_{part.seeds[0]}"]["classes"][CLASSES[0]]
        for measure in ("flexibility", "fine flexibility", "between networks"):
            for kind in ("outlines", "digits") if measure in told else ():
                says = f"{TITLES[measure]}: textures have more than {kind}"
                claim(says, get(measure, "textures"), get(measure, kind))
        for kind in ("outlines", "digits"):
            says = f"textures have lower orders than {kind}"
            claim(says, get("mean order", "textures"), get("mean order", kind), -1)
        claim(
            "large outlines have more of high orders than small ones",
            get("high large", "outlines"),
            get("high small", "outlines"),
        )
    for kind in KINDS if part.data == "textures" else ("all classes",):
        where = f"{kind}: " if part.data == "textures" else ""
        claim(
            f"{where}near images have more of low orders",
            get("low near", kind),
            get("low far", kind),
        )
        claim(
            f"{where}outliers have more of high orders",
            get("high far", kind),
            get("high near", kind),
        )
    return result


@styled()
def figure(found: Mapping[str, Summary], part: Part) -> Figure:
    """J(m), flexibility, and what near and far images have of high orders."""
    drawn, panels = new_panels(1, 3, 11, 3.6)
    spectra, flexible, outliers = panels[0]
    groups = KINDS if part.data == "textures" else {"all classes": CIFAR}
    for kind, group in groups.items():
        shapes = [
            torch.tensor([run["classes"][name]["shape"] for name in group]).mean(0)
            for run in found.values()
        ]
        several = torch.stack(shapes).T * len(shapes[0])
        means = [Mean.of(values) for values in several.tolist()]
        common.curve(spectra, range(len(means)), means, label=kind)
        places = [names(part.data).index(name) for name in group]
        for axes, measures in ((flexible, ("flexibility",)), (outliers, ("high near", "high far"))):
            for measure in measures:
                told = [
                    Mean.of(one for (one,) in by_seed(found, part, measure, [name]))
                    for name in group
                ]
                values, errors = [m.value for m in told], [m.stderr for m in told]
                label = measure if kind == next(iter(groups)) and len(measures) > 1 else None
                axes.errorbar(
                    values, places, xerr=errors, fmt="o", label=label,
                    color=None if len(measures) == 1 else f"C{3 + measures.index(measure)}",
                )  # fmt: skip
    spectra.set(xlabel="order m of 3 × 3 cells", ylabel="J(m)", title=f"{part.data}: spectra")
    spectra.set_ylim(bottom=0)
    for axes, title in ((flexible, "flexibility"), (outliers, "share of high orders")):
        axes.set_yticks(range(len(names(part.data))), names(part.data))
        axes.invert_yaxis()
        axes.set(title=title)
        axes.set_xlim(left=0)
    for axes in (spectra, outliers):
        axes.legend()
    return drawn


def maps_figure(told: Summary, part: Part, grid: list[int]) -> Figure:
    """Maps at low, middle and high order."""
    values = torch.tensor(told["plug_in"])
    found = InteractionMaps(
        tuple(told["orders"]), values, values, tuple(told["exact"]), told["partners"]
    )
    images = torch.tensor(told["images"])
    cells = it.GridPlayers(*grid).cells(images.shape[1:])
    labels = [names(part.data)[label] for label in told["labels"]]
    title = "How strongly each cell interacts with the others"
    return interaction_maps_figure(images, cells, found, labels, title)


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            plan = {f"seed_{seed}": {"seed": seed, **part.settings} for seed in part.seeds}
            found = part.runs(plan, partial(work, study, part.data))
            add_between(found, part)
            part.table(rows(found, part))
            part.figure(figure(found, part))
            if "maps" in found[f"seed_{part.seeds[0]}"]:
                told = found[f"seed_{part.seeds[0]}"]["maps"]
                part.figure(maps_figure(told, part, part.settings["maps"]["grid"]), "maps")
            part.verdict(checks(found, part))


if __name__ == "__main__":
    main()
