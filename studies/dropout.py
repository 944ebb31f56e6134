"""Dropout, the interaction loss in its place, and interactions (survey, Sec. 5.3, Table 3).

Networks with too few training images are trained with dropout at several rates, with the
interaction loss at several weights λ, in two of its forms, and with neither. Rate and λ are chosen
by the validation accuracy, averaged over seeds; each of the three has the same number of settings
to choose from. Claims: dropout lowers the interactions; growing λ leads from over-fitting to
under-fitting; the chosen λ does better on test images than the chosen rate.

Interactions are exact, over all pairs of a 3 x 3 grid, on correctly and wrongly classified test
images: mean |I| of the label's logit, and the strength, which divides it by the logits' scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common import (
    Check,
    Mean,
    Part,
    Settings,
    Study,
    Summary,
    accuracy,
    fit,
    paired,
    spread,
    tensors,
)
from matplotlib.figure import Figure
from torch import nn

from interaction_train.callbacks import ExactInteractions
from interaction_train.data import DigitsDataModule, ImageDataModule
from interaction_train.losses import InteractionLoss
from interaction_train.losses.interaction import Form
from interaction_train.models import CIFARVGG, CIFARAlexNet, CIFARResNet, DigitsNet
from interaction_train.training.objective import WeightedTerm

NONE, DROPOUT, SQUARED, ABS_MEAN = "none", "dropout", "λ (squared)", "λ (abs_mean)"
FORMS = {SQUARED: "squared", ABS_MEAN: "abs_mean"}
CONTEXTS = {SQUARED: 1, ABS_MEAN: 2}


@dataclass(frozen=True)
class Case:
    """A network and its budget; ``settings`` are those of :func:`train` that all its runs share."""

    settings: Settings
    rates: Sequence[float]
    weights: dict[str, Sequence[float]]


def with_dropout_before_fc(network: nn.Module, rate: float) -> nn.Module:
    """A ResNet with dropout before its last layer."""
    head = network.get_submodule("fc")
    network.fc = nn.Sequential(nn.Dropout(rate), head)
    return network


NETWORKS: dict[str, Callable[[float], nn.Module]] = {
    "digits": lambda rate: DigitsNet(dropout=rate),
    "vgg7": lambda rate: CIFARVGG(7, dropout=rate, hidden=128),
    "alexnet": lambda rate: CIFARAlexNet(dropout=rate),
    "vgg11": lambda rate: CIFARVGG(11, dropout=rate),
    "vgg13": lambda rate: CIFARVGG(13, dropout=rate),
    "vgg16": lambda rate: CIFARVGG(16, dropout=rate),
    "resnet18": lambda rate: with_dropout_before_fc(CIFARResNet(18), rate),
    "resnet34": lambda rate: with_dropout_before_fc(CIFARResNet(34), rate),
}


def train(
    network: str,
    data: dict[str, Any],
    layer: str,
    payoff: str,
    epochs: int,
    warmup: int,
    lr: float,
    images: int,
    exponential: bool,
    batch_fraction: float,
    seed: int,
    rate: float = 0.0,
    form: Form = "squared",
    contexts: int = 1,
    weight: float = 0.0,
) -> Summary:
    """Train one network and measure it."""
    module = ImageDataModule if "source" in data else DigitsDataModule
    splits = module(**data, seed=seed)
    losses = {}
    if weight:
        term = InteractionLoss(
            layer=layer, payoff=payoff, form=form, contexts=contexts,
            batch_fraction=batch_fraction,
        )  # fmt: skip
        losses["interaction"] = WeightedTerm(term, weight, warmup_epochs=warmup)
    trained = fit(
        lambda: NETWORKS[network](rate), splits, seed=seed, epochs=epochs, lr=lr, losses=losses,
        exponential=exponential,
    ).cpu()  # fmt: skip
    x, y = tensors(splits, "test")
    some = spread(images, len(x))
    measured = ExactInteractions(3, 3).measure(trained, x[some], y[some])
    return {
        "train": accuracy(trained, splits, "train"),
        "val": accuracy(trained, splits, "val"),
        "test": accuracy(trained, splits, "test"),
        "mean |I|": measured["mean_abs"]["value"],
        "strength": measured["strength"]["value"],
    }


def plan(case: Case, seeds: Sequence[int]) -> dict[str, tuple[str, float, Settings]]:
    """Name of the run → regulariser, its setting, and the arguments of :func:`train`."""
    found: dict[str, tuple[str, float, Settings]] = {}
    choices: list[tuple[str, float, Settings]] = [(NONE, 0.0, {})]
    choices += [(DROPOUT, rate, {"rate": rate}) for rate in case.rates]
    for kind, weights in case.weights.items():
        more = {"form": FORMS[kind], "contexts": CONTEXTS[kind]}
        choices += [(kind, weight, {**more, "weight": weight}) for weight in weights]
    for seed in seeds:  # seed by seed, so that an interrupted study has whole seeds
        for kind, value, settings in choices:
            name = "_".join([case.settings["network"], FORMS.get(kind, kind), f"{value:g}"])
            found[f"{name}/seed_{seed}"] = kind, value, {**case.settings, **settings, "seed": seed}
    return found


class Outcome:
    """All runs of one network: values over seeds, and the chosen settings."""

    def __init__(
        self, runs: dict[str, tuple[str, float, Settings]], summaries: dict[str, Summary]
    ) -> None:
        self.runs: dict[tuple[str, float], list[Summary]] = {}
        for name, (kind, value, _) in runs.items():
            self.runs.setdefault((kind, value), []).append(summaries[name])
        self.chosen = {kind: self._best(kind) for kind in dict.fromkeys(k for k, _ in self.runs)}

    def _best(self, kind: str) -> float:
        """Highest mean validation accuracy; of equal ones the weaker setting."""
        values = [value for k, value in self.runs if k == kind]
        return max(values, key=lambda value: (Mean.of(self.get(kind, value, "val")).value, -value))

    def get(self, kind: str, value: float, key: str) -> list[float]:
        """One number of every seed."""
        return [summary[key] for summary in self.runs[kind, value]]

    def best(self, kind: str, key: str) -> list[float]:
        """The same at the chosen setting."""
        return self.get(kind, self.chosen[kind], key)


def rows(network: str, outcome: Outcome) -> list[dict[str, Any]]:
    """A row per setting."""
    return [
        {
            "network": network,
            "trained with": kind,
            "setting": "" if kind == NONE else f"{value:g}",
            "chosen": "yes" if outcome.chosen[kind] == value and kind != NONE else "",
            **Mean.of(outcome.get(kind, value, "train")).columns("train"),
            **Mean.of(outcome.get(kind, value, "val")).columns("validation"),
            **Mean.of(outcome.get(kind, value, "test")).columns("test"),
            **Mean.of(outcome.get(kind, value, "mean |I|")).columns("mean |I|"),
            **Mean.of(outcome.get(kind, value, "strength")).columns("strength"),
        }
        for kind, value in outcome.runs
    ]


def chosen_rows(network: str, outcome: Outcome) -> list[dict[str, Any]]:
    """A row per regulariser at its chosen setting, with paired differences."""
    found = []
    for kind in outcome.chosen:
        test = outcome.best(kind, "test")
        row: dict[str, Any] = {"network": network, "trained with": kind}
        row["setting"] = "" if kind == NONE else f"{outcome.chosen[kind]:g}"
        row |= Mean.of(test).columns("test", interval=True)
        for other in (NONE, DROPOUT):
            difference = paired(test, outcome.best(other, "test"))
            row |= difference.columns(f"test less {other}'s", interval=True)
        for key in ("mean |I|", "strength"):
            plain = outcome.best(NONE, key)
            ratio = [a / b for a, b in zip(outcome.best(kind, key), plain, strict=True)]
            row |= Mean.of(ratio).columns(f"{key} over none's", interval=True)
        found.append(row)
    return found


def figure(outcome: Outcome, title: str) -> Figure:
    """Accuracies above, interactions relative to those without a regulariser below."""
    kinds = [kind for kind in outcome.chosen if kind != NONE]
    drawn = Figure(figsize=(9, 5.5), layout="constrained")
    axes = drawn.subplots(2, len(kinds), sharey="row", squeeze=False)
    for column, kind in enumerate(kinds):
        values = [value for k, value in outcome.runs if k == kind]
        upper, lower = axes[0, column], axes[1, column]
        for key, colour in (("train", "C7"), ("val", "C0"), ("test", "C1")):
            means = [Mean.of(outcome.get(kind, value, key)) for value in values]
            heights, errors = [m.value for m in means], [m.stderr for m in means]
            upper.errorbar(values, heights, errors, marker="o", ms=3, color=colour, label=key)
            plain = Mean.of(outcome.get(NONE, 0.0, key)).value
            upper.axhline(plain, color=colour, lw=0.8, ls=":")
        for key, colour in (("mean |I|", "C2"), ("strength", "C3")):
            base = Mean.of(outcome.get(NONE, 0.0, key)).value
            means = [Mean.of(outcome.get(kind, value, key)) for value in values]
            heights, errors = [m.value / base for m in means], [m.stderr / base for m in means]
            lower.errorbar(values, heights, errors, marker="o", ms=3, color=colour, label=key)
        lower.axhline(1, color="black", lw=0.8, ls=":")
        for axis in (upper, lower):
            axis.axvline(outcome.chosen[kind], color="black", lw=0.6, alpha=0.4)
            if kind != DROPOUT:
                axis.set_xscale("log")
        upper.set_title(kind)
        lower.set_xlabel("rate" if kind == DROPOUT else "λ")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("interactions / without")
    axes[1, 0].set_ylim(bottom=0)
    axes[0, 0].legend()
    axes[1, 0].legend()
    drawn.suptitle(f"{title} (dotted: neither; vertical line: chosen on validation images)")
    return drawn


def judge(part: Part, outcomes: dict[str, Outcome]) -> None:
    """The verdict over all networks: every part of the claim in every network.

    Interactions fall if they do at most of the rates; under-fitting is a training accuracy one
    point below that without a regulariser; "does better" is by the interval over seeds.
    """
    checks = []
    for network, outcome in outcomes.items():
        name = f"{network}: " * (len(outcomes) > 1)
        rates = [value for kind, value in outcome.runs if kind == DROPOUT]
        for key in ("mean |I|", "strength"):
            plain = outcome.get(NONE, 0.0, key)
            last = outcome.get(DROPOUT, rates[-1], key)
            falls = sum(paired(outcome.get(DROPOUT, r, key), plain).clearly(-1) for r in rates)
            numbers = (
                f"falls at {falls} of {len(rates)} rates; {Mean.of(plain).value:.3g} without, "
                f"{Mean.of(last).value:.3g} at rate {rates[-1]:g}"
            )
            says = f"{name}dropout lowers {key.replace('strength', 'the strength')}"
            checks.append(Check(says, 2 * falls > len(rates), numbers))
        fitted = Mean.of(outcome.get(NONE, 0.0, "train")).value
        for kind in FORMS:
            largest = max(value for k, value in outcome.runs if k == kind)
            trained = Mean.of(outcome.get(kind, largest, "train")).value
            gain = paired(outcome.best(kind, "test"), outcome.best(DROPOUT, "test"))
            numbers = f"training accuracy {fitted:.3f} without, {trained:.3f} at {largest:g}"
            checks += [
                Check(f"{name}{kind} leads to under-fitting", trained < fitted - 0.01, numbers),
                Check(f"{name}{kind} beats dropout", gain.clearly(1), f"test {gain.points()}"),
            ]
    part.verdict(checks, "one seed, no intervals" if len(part.seeds) == 1 else "")


def study_part(part: Part, cases: Sequence[Case], title: str) -> None:
    """Run all cases of a data set and write what came out."""
    plans = [plan(case, part.seeds) for case in cases]
    merged = {name: run[2] for runs in plans for name, run in runs.items()}
    summaries = part.runs(merged, train)
    networks = [case.settings["network"] for case in cases]
    outcomes = {name: Outcome(runs, summaries) for name, runs in zip(networks, plans, strict=True)}
    part.table([row for name, outcome in outcomes.items() for row in rows(name, outcome)])
    chosen = [row for name, outcome in outcomes.items() for row in chosen_rows(name, outcome)]
    part.table(chosen, "chosen")
    part.figure(figure(next(iter(outcomes.values())), title))
    judge(part, outcomes)


def digits(study: Study) -> Case:
    """194 training images of the 1797; 431 to choose by, 719 to test on."""
    pick = study.pick
    settings = {
        "network": "digits",
        "data": {
            "batch_size": 32,
            "val_fraction": 0.4,
            "test_fraction": 0.4,
            "train_fraction": pick(0.1, 0.3, 0.3),
        },
        "layer": "features.2",
        "payoff": "logit",
        "epochs": pick(2, 40, 100),
        "warmup": pick(0, 2, 5),
        "lr": 0.05,
        "images": pick(4, 64, 256),
        "exponential": False,
        "batch_fraction": 1.0,
    }
    rates = pick([0.5, 0.8], *[[0.1, 0.2, 0.3, 0.5, 0.7, 0.85]] * 2)
    squared = pick([1, 100], *[[0.1, 1, 10, 30, 100, 300]] * 2)
    literal = pick([1, 10], *[[0.1, 0.3, 1, 3, 10, 30]] * 2)
    return Case(settings, rates, {SQUARED: squared, ABS_MEAN: literal})


def cifar10(study: Study) -> list[Case]:
    """Quick: a small VGG and 504 images. Full: the paper's networks, a tenth of the set."""
    pick = study.pick
    shared = {
        "data": {
            "source": study.cifar10,
            "batch_size": pick(32, 64, 128),
            "augment": study.scale == "full",
            "train_fraction": pick(0.02, 0.14, 0.1),
        },
        "epochs": pick(1, 20, 300),
        "warmup": pick(0, 1, 5),
        "lr": pick(0.03, 0.03, 0.01),
        "images": pick(2, 16, 256),
        "exponential": study.scale == "full",
        "batch_fraction": pick(0.25, 0.25, 1.0),
    }
    published = [name for name in NETWORKS if name not in ("digits", "vgg7")]
    cases = []
    for name in pick(["vgg7"], ["vgg7"], published):
        residual = name.startswith("resnet")
        layer = {"vgg7": "features.2", "vgg13": "features.4", "vgg16": "features.4"}.get(
            name, "layer1" if residual else "features.5"
        )
        place = {"network": name, "layer": layer, "payoff": "log_prob" if residual else "logit"}
        weights = [0.001, 0.003, 0.01, 0.03] if residual else [50, 100, 200, 500, 1000]
        squared = pick([10], [0.3, 3, 30], weights)
        literal = pick([1], [0.1, 1, 10], weights)
        rates = pick([0.5], [0.1, 0.3, 0.5], [0.1, 0.3, 0.5, 0.7, 0.8][: len(weights)])
        cases.append(Case({**shared, **place}, rates, {SQUARED: squared, ABS_MEAN: literal}))
    return cases


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    if study.wants("digits"):
        with study.part("digits", study.pick((0,), range(5), range(10))) as part:
            study_part(part, [digits(study)], "Digits, 194 training images")
    if study.wants("cifar10"):
        with study.part("cifar10", study.pick((0,), range(3), range(3))) as part:
            cases = cifar10(study)
            study_part(part, cases, f"CIFAR-10, {cases[0].settings['network']}")


if __name__ == "__main__":
    main()
