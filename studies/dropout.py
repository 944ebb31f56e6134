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

from collections.abc import Mapping
from typing import Any

import common
import numpy as np
import pandas as pd
from common import Check, Mean, Part, Settings, Study, Summary, accuracy, columns, paired
from matplotlib.figure import Figure
from torch import nn

import interaction_train as it
from interaction_train.callbacks.samples import spread

NONE, DROPOUT, SQUARED, ABS_MEAN = "none", "dropout", "λ (squared)", "λ (abs_mean)"
FORMS = {SQUARED: "squared", ABS_MEAN: "abs_mean"}
CONTEXTS = {SQUARED: 1, ABS_MEAN: 2}
MEASURES = ("train", "val", "test", "mean |I|", "strength")
TITLES = {"train": "train", "val": "validation", **{key: key for key in MEASURES[2:]}}


def build(network: str, rate: float) -> nn.Module:
    """A network by name, with dropout before its last layers."""
    if network == "digits":
        return it.models.DigitsNet(dropout=rate)
    if network == "alexnet":
        return it.models.CIFARAlexNet(dropout=rate)
    if network.startswith("vgg"):
        hidden: Any = {"hidden": 128} if network == "vgg7" else {}
        return it.models.CIFARVGG(int(network[3:]), dropout=rate, **hidden)
    residual: Any = it.models.CIFARResNet(int(network[6:]))
    residual.fc = nn.Sequential(nn.Dropout(rate), residual.fc)
    return residual


def train(
    seed: int, rate: float = 0, weight: float = 0, form: Any = "squared", contexts: int = 1,
    **case: Any,
) -> Summary:  # fmt: skip
    """Train one network and measure it; ``case`` is one of the cases in ``settings.yaml``."""
    data, losses = common.splits(case["data"], seed), {}
    if weight:
        term = it.InteractionLoss(
            layer=case["layer"], payoff=case["payoff"], form=form, contexts=contexts,
            batch_fraction=case["batch_fraction"],
        )  # fmt: skip
        losses["interaction"] = it.WeightedTerm(term, weight, warmup_epochs=case["warmup"])
    trained = common.fit(
        lambda: build(case["network"], rate), data, seed=seed, epochs=case["epochs"],
        lr=case["lr"], losses=losses, exponential=case["exponential"],
    ).cpu()  # fmt: skip
    x, y = common.tensors(data, "test")
    some = spread(len(x), case["images"])
    measured = it.callbacks.ExactInteractions(3, 3).measure(trained, x[some], y[some])
    found = {split: accuracy(trained, data, split) for split in ("train", "val", "test")}
    mean, strength = (measured[key]["value"] for key in ("mean_abs", "strength"))
    return {**found, "mean |I|": mean, "strength": strength}


def plan(case: Settings, part: Part) -> dict[str, tuple[str, float, Settings]]:
    """Name of the run → regulariser, its setting, and the arguments of :func:`train`."""
    shared = {k: v for k, v in case.items() if k not in ("rates", *FORMS.values())}
    shared = {**shared, "data": {**case["data"]}}
    if part.data == "cifar10":
        shared["data"] |= {"source": part.study.cifar10, "augment": part.study.scale == "full"}
    choices: list[tuple[str, float, Settings]] = [(NONE, 0.0, {})]
    choices += [(DROPOUT, rate, {"rate": rate}) for rate in case["rates"]]
    for kind, form in FORMS.items():
        more = {"form": form, "contexts": CONTEXTS[kind]}
        choices += [(kind, weight, {**more, "weight": weight}) for weight in case[form]]
    found: dict[str, tuple[str, float, Settings]] = {}
    for seed in part.seeds:  # seed by seed, so that an interrupted study has whole seeds
        for kind, value, settings in choices:
            name = "_".join([case["network"], FORMS.get(kind, kind), f"{value:g}"])
            found[f"{name}/seed_{seed}"] = kind, value, {**shared, **settings, "seed": seed}
    return found


class Outcome:
    """All runs of one network: values over seeds, and the chosen settings."""

    def __init__(
        self, runs: Mapping[str, tuple[str, float, Settings]], summaries: Mapping[str, Summary]
    ) -> None:
        rows = [{"kind": k, "value": v, **summaries[name]} for name, (k, v, _) in runs.items()]
        self.frame = pd.DataFrame(rows)
        self.settings = list(dict.fromkeys(zip(self.frame.kind, self.frame.value, strict=True)))
        means = self.frame.groupby(["kind", "value"]).val.mean()
        # Of equal ones the weaker setting.
        self.chosen = {
            kind: max(self.values(kind), key=lambda value: (means[kind, value], -value))
            for kind in self.frame.kind.unique()
        }

    def values(self, kind: str) -> list[float]:
        """The settings of a regulariser."""
        return [value for k, value in self.settings if k == kind]

    def get(self, kind: str, value: float, key: str) -> list[float]:
        """One number of every seed."""
        return self.frame[(self.frame.kind == kind) & (self.frame.value == value)][key].tolist()

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
            **columns({TITLES[key]: outcome.get(kind, value, key) for key in MEASURES}),
        }
        for kind, value in outcome.settings
    ]


def chosen_rows(network: str, outcome: Outcome) -> list[dict[str, Any]]:
    """A row per regulariser at its chosen setting, with paired differences."""
    found = []
    for kind, value in outcome.chosen.items():
        test = np.array(outcome.best(kind, "test"))
        shown = {"test": test}
        for other in (NONE, DROPOUT):
            shown[f"test less {other}'s"] = test - outcome.best(other, "test")
        for key in ("mean |I|", "strength"):
            shown[f"{key} over none's"] = np.divide(
                outcome.best(kind, key), outcome.best(NONE, key)
            )
        setting = "" if kind == NONE else f"{value:g}"
        head = {"network": network, "trained with": kind, "setting": setting}
        found.append({**head, **columns(shown, interval=True)})
    return found


def figure(outcome: Outcome, title: str) -> Figure:
    """Accuracies above, interactions relative to those without a regulariser below."""
    kinds = [kind for kind in outcome.chosen if kind != NONE]
    drawn = Figure(figsize=(9, 5.5), layout="constrained")
    axes = drawn.subplots(2, len(kinds), sharey="row", squeeze=False)
    for kind, (upper, lower) in zip(kinds, axes.T, strict=True):
        values = outcome.values(kind)
        for key, colour in zip(MEASURES, ("C7", "C0", "C1", "C2", "C3"), strict=True):
            plain = Mean.of(outcome.get(NONE, 0.0, key)).value
            axis, base = (lower, plain) if key in ("mean |I|", "strength") else (upper, 1.0)
            means = [Mean.of(v / base for v in outcome.get(kind, value, key)) for value in values]
            common.curve(axis, values, means, color=colour, label=key)
            if axis is upper:
                axis.axhline(plain, color=colour, lw=0.8, ls=":")
        lower.axhline(1, color="black", lw=0.8, ls=":")
        for axis in (upper, lower):
            axis.axvline(outcome.chosen[kind], color="black", lw=0.6, alpha=0.4)
            axis.set_xscale("linear" if kind == DROPOUT else "log")
        upper.set_title(kind)
        lower.set_xlabel("rate" if kind == DROPOUT else "λ")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set(ylabel="interactions / without", ylim=(0, None))
    axes[0, 0].legend()
    axes[1, 0].legend()
    drawn.suptitle(f"{title} (dotted: neither; vertical line: chosen on validation images)")
    return drawn


def judge(part: Part, outcomes: Mapping[str, Outcome]) -> None:
    """The verdict over all networks: every part of the claim in every network.

    Interactions fall if they do at most of the rates; under-fitting is a training accuracy one
    point below that without a regulariser; "does better" is by the interval over seeds.
    """
    checks = []
    for network, outcome in outcomes.items():
        name = f"{network}: " * (len(outcomes) > 1)
        rates = outcome.values(DROPOUT)
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
            largest = max(outcome.values(kind))
            trained = Mean.of(outcome.get(kind, largest, "train")).value
            gain = paired(outcome.best(kind, "test"), outcome.best(DROPOUT, "test"))
            numbers = f"training accuracy {fitted:.3f} without, {trained:.3f} at {largest:g}"
            checks += [
                Check(f"{name}{kind} leads to under-fitting", trained < fitted - 0.01, numbers),
                Check(f"{name}{kind} beats dropout", gain.clearly(1), f"test {gain.points()}"),
            ]
    part.verdict(checks, "one seed, no intervals" if len(part.seeds) == 1 else "")


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            cases = part.settings["cases"]
            plans = {case["network"]: plan(case, part) for case in cases}
            merged = {name: run[2] for runs in plans.values() for name, run in runs.items()}
            summaries = part.runs(merged, train)
            outcomes = {name: Outcome(runs, summaries) for name, runs in plans.items()}
            part.table([row for name, found in outcomes.items() for row in rows(name, found)])
            chosen = [row for item in outcomes.items() for row in chosen_rows(*item)]
            part.table(chosen, "chosen")
            part.figure(figure(outcomes[cases[0]["network"]], part.settings["title"]))
            judge(part, outcomes)


if __name__ == "__main__":
    main()
