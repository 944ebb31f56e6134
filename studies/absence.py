"""Whether learning what an absent player shows makes explanations sparser (Ren et al., ref. 15).

Small trained networks: ten measurements of the breast cancer table, twelve columns of the adult
census, nine cells of digits. Fixed baselines (the training rows' mean, median, 0 and, of images,
the image itself blurred) against learned ones: the published recipe (the low-order loss, from the
mean and within .3 standard deviations of it); the same loss relative to |v(N) − v(∅)|, within one
deviation; Σ|I| itself; and its ratio to |v(N) − v(∅)|, from the best fixed baseline. Baselines are
learned, and the best fixed one is chosen, on training rows; all are measured on test rows. Σ|I| is
also small where a baseline changes nothing: what counts is its ratio to the effect, |v(N) − v(∅)|.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import common
import pandas as pd
from common import Check, Mean, Part, Study, Summary, paired
from matplotlib.figure import Figure
from torch import Tensor, nn

import interaction_train as it
from interaction_train.baselines import LearnedBaseline, compare_baselines, learn_baseline
from interaction_train.baselines.shared import STATISTICS, Start, starting_value
from interaction_train.data import TableDataModule
from interaction_train.errors import InputError
from interaction_train.game.tabular import FeaturePlayers
from interaction_train.models import TableMLP
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import styled

MEAN, BEST = "mean", "best fixed"
PUBLISHED, RELATIVE, PIXELS, ALL, RATIO = (
    "published", "relative", "per pixel", "Σ|I|", "Σ|I| / effect"
)  # fmt: skip
LEARNED: dict[str, dict[str, Any]] = {
    PUBLISHED: {"relative": False, "max_shift": 0.3},
    RELATIVE: {"max_shift": 1.0},
    PIXELS: {"max_shift": 1.0},  # as relative, of images: a number per pixel, not one for all
    ALL: {"objective": "dividend_l1"},
    RATIO: {"objective": "dividend_l1", "relative": True, "max_shift": 1.0},  # from the best fixed
}
COLUMNS = {  # of the table: what the measures are called there
    "strength_over_effect": "Σ|I| / effect",
    "k90": "k90",
    "first_order": "order 1",
    "infidelity_over_effect": "infidelity / effect",
    "loss_over_effect": "low-order loss / effect",
    "effect": "effect",
    "strength": "Σ|I|",
}
SPARSER: tuple[tuple[str, str, Literal[-1, 1]], ...] = (  # what learning is said to change
    ("strength_over_effect", "Σ|I| / effect is lower", -1),
    ("k90", "k90 is lower", -1),
    ("first_order", "the share of order 1 is higher", 1),
    ("infidelity_over_effect", "infidelity / effect is lower", -1),
)
CENSUS = (  # twelve of fourteen: not the rows' weight, nor the schooling's name beside its number
    "age", "workclass", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
)  # fmt: skip


class Bed(NamedTuple):
    """A trained network, its players, and rows to learn and to measure on."""

    network: nn.Module
    players: it.Players
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def census(study: Study) -> Path:
    """The file of the adult census, of numbers alone, that shapiq's loader gives."""
    path = study.out / "runs" / "studies" / "adult_census.csv"
    if not path.is_file():
        try:
            from shapiq.datasets import load_adult_census

            x, y = load_adult_census()
        except (ImportError, OSError) as error:
            expected = "shapiq with its adult_census.csv (pip install shapiq)"
            raise InputError("census", str(error), expected) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(x)[list(CENSUS)].assign(label=y).to_csv(path, index=False)
    return path


def trained(study: Study, data: str, seed: int, size: Mapping[str, Any]) -> Bed:
    """A network of that seed."""
    training = {"seed": seed, "epochs": size["epochs"], "lr": size["lr"]}
    if data == "digits":
        network = common.fit(it.models.DigitsNet, common.splits("digits", seed), **training)
        train, test = (common.images("digits", split) for split in ("train", "test"))
        return Bed(network, it.GridPlayers(3, 3), train, test)
    source = "breast_cancer" if data == "tabular" else census(study)
    module = TableDataModule(source, seed=seed, batch_size=size["batch"])
    module.setup()
    train, test = ((module.parts[k].rows, module.parts[k].labels) for k in ("train", "test"))
    build = partial(TableMLP, train[0].shape[1], hidden=(32, 32))
    # Of the nuclei's ten measurements there are the mean, the error and the worst.
    groups = [[k, k + 10, k + 20] for k in range(10)] if data == "tabular" else None
    network = common.fit(build, module, classes=2, **training)
    return Bed(network, FeaturePlayers(groups), train, test)


def work(study: Study, data: str, seed: int, **size: Any) -> Summary:
    """Train a network, learn, and measure; ``size`` as in ``settings.yaml``."""
    bed = trained(study, data, seed, size)
    x, images = bed.train[0], bed.train[0].dim() == 4
    fixed: dict[str, Start | LearnedBaseline] = {
        name: starting_value(name, x) for name in STATISTICS
    }
    fixed |= {"blur": "blur"} if images else {}
    measure = partial(
        compare_baselines, bed.network, players=bed.players, contexts=100, samples=size["samples"]
    )
    known = measure(bed.train, baselines=fixed)["strength_over_effect"]
    best = known.drop(index="blur", errors="ignore").idxmin()  # blur is no start
    starts: dict[str, Start] = {PIXELS: x.mean(0), RATIO: str(best)}
    learned: dict[str, Start | LearnedBaseline] = {}
    with warnings.catch_warnings():  # the numbers say it
        warnings.filterwarnings("ignore", message=".*little is ever absent")
        for name in (name for name in LEARNED if images or name != PIXELS):
            options = {**size["learning"], **LEARNED[name], "start": starts.get(name, MEAN)}
            learned[name] = learn_baseline(
                bed.network, bed.train, bed.players, seed=seed, **options
            )
    found = measure(bed.test, baselines=fixed | learned)
    return {
        "accuracy": common.accuracy(bed.network, *bed.test),
        BEST: str(known.idxmin()),
        "measures": {name: dict(row) for name, row in found.iterrows()},
    }


def over(found: Mapping[str, Summary], part: Part, name: str, measure: str) -> list[float]:
    """A baseline's measure by seed; of ``best fixed`` that of the one that training rows chose."""
    told = [found[f"seed_{seed}"] for seed in part.seeds]
    return [one["measures"][one.get(name, name)][measure] for one in told]


def names(found: Mapping[str, Summary], part: Part) -> list[str]:
    """Of the baselines."""
    return list(found[f"seed_{part.seeds[0]}"]["measures"])


def rows(found: Mapping[str, Summary], part: Part) -> list[dict[str, Any]]:
    """A row for each baseline."""
    result = []
    for name in names(found, part):
        row: dict[str, Any] = {"baseline": f"learned: {name}" if name in LEARNED else name}
        for measure, title in COLUMNS.items():
            row |= Mean.of(over(found, part, name, measure)).columns(title)
        result.append(row)
    return result


def checks(found: Mapping[str, Summary], part: Part) -> list[Check]:
    """What the numbers say of the claims."""
    result: list[Check] = []
    get, there = partial(over, found, part), names(found, part)

    def claim(name: str, other: str, measure: str, says: str, sign: Literal[-1, 1]) -> None:
        change = paired(get(name, measure), get(other, measure))
        says = f"{name}: {says} than with the {other}"
        result.append(Check(says, change.clearly(sign), f"by {change}"))

    claim(PUBLISHED, MEAN, "strength", "Σ|I| is lower", -1)
    for name in (PUBLISHED, RELATIVE):
        for measure, says, sign in SPARSER:
            claim(name, MEAN, measure, says, sign)
    for name in (name for name in LEARNED if name in there and name != ALL):
        claim(name, BEST, *SPARSER[0])
    effects = zip(get(ALL, "effect"), get(MEAN, "effect"), strict=True)
    kept = Mean.of(after / before for after, before in effects)
    says = f"{ALL}: at least half of the effect with the {MEAN} is left"
    result.append(Check(says, kept.value >= 0.5, f"{kept} of it"))
    return result


@styled()
def figure(found: Mapping[str, Summary], part: Part) -> Figure:
    """Three measures of every baseline."""
    drawn, panels = new_panels(1, 3, 10.5, 3.4)
    shown = names(found, part)
    labels = [f"learned: {name}" if name in LEARNED else name for name in shown]
    for axes, measure in zip(panels[0], ("strength_over_effect", "k90", "effect"), strict=True):
        means = [Mean.of(over(found, part, name, measure)) for name in shown]
        for learned in (False, True):
            some = [k for k, name in enumerate(shown) if (name in LEARNED) == learned]
            values, errors = ([getattr(means[k], key) for k in some] for key in ("value", "stderr"))
            axes.errorbar(values, some, xerr=errors, fmt="o")
        axes.set_yticks(range(len(shown)), labels if axes is panels[0, 0] else [""] * len(shown))
        axes.invert_yaxis()
        axes.set(xlabel=COLUMNS[measure])
        axes.set_xlim(left=0)
    panels[0, 0].set(title=f"{part.data}: strength")
    panels[0, 1].set(title="interactions for 90 % of it")
    panels[0, 2].set(title="|v(N) − v(∅)|")
    return drawn


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            plan = {f"seed_{seed}": {"seed": seed, **part.settings} for seed in part.seeds}
            found = part.runs(plan, partial(work, study, part.data))
            part.table(rows(found, part))
            part.figure(figure(found, part))
            part.verdict(checks(found, part))


if __name__ == "__main__":
    main()
