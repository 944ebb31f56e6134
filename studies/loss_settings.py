"""How the interaction loss should be set: payoff, group size, form, share of the batch and layer.

And what the package does not have (``loss_variants.py``): keep rates of the contexts, Δ² over a
scale of the logits, two layers at once, and the course of λ, beside dropout too.

Every combination is trained at several weights λ, on the beds and in the way of ``dropout.py``; a
row of the table is a combination at the λ with the lowest validation NLL. Only validation samples
are looked at: ``dropout.py`` reports what was chosen on others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import Check, Part, Study, Summary, paired
from dropout import lowest, plan, train
from matplotlib.figure import Figure

from interaction_train.tracking.figures import new_figure
from interaction_train.tracking.style import INK, styled


def best(part: Part, found: Mapping[str, Summary]) -> dict[str, dict[str, Any]]:
    """Combination → its best λ, and there the accuracies and NLLs over seeds."""
    choices, result = part.settings["choices"], {}
    for name, number in lowest(found, choices, part.seeds).items():
        runs = [found[f"{name}_{number}/seed_{seed}"] for seed in part.seeds]
        row = {key: [run[key] for run in runs] for key in ("accuracy", "NLL")}
        result[name] = {"λ": choices[name][number].get("weight", 0), **row}
    return result


def combinations(part: Part) -> dict[str, tuple[list[float], dict[str, Any]]]:
    """Combination → its weights, and its other settings."""
    given = part.settings["combinations"]
    split = {name: dict(entry) for name, entry in given.items()}
    return {name: (entry.pop("weights"), entry) for name, entry in split.items()}


@styled()
def figure(rows: Mapping[str, dict[str, Any]], title: str) -> Figure:
    """Validation NLL below that without the loss, with 95 % intervals."""
    gains = {name: paired(rows["none"]["NLL"], row["NLL"]) for name, row in rows.items()}
    del gains["none"]
    drawn, axes = new_figure(6.5, 0.26 * len(gains) + 1)
    widths = [gain.high - gain.value for gain in gains.values()]
    axes.barh(list(gains), [gain.value for gain in gains.values()], xerr=widths, ecolor=INK)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, lw=0.8)
    axes.grid(visible=False, axis="y")
    axes.margins(y=0.02)
    axes.set_xlabel("validation NLL lower by (nats; bars: 95 % intervals)")
    drawn.suptitle(title)
    return drawn


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            choices = {
                name: [{"layer": "before", **entry, "weight": weight} for weight in weights]
                for name, (weights, entry) in combinations(part).items()
            }
            part.settings["choices"] = {"none": [{}], **choices}
            rows = best(part, part.runs(plan(part, part.settings["choices"], part.seeds), train))
            none = rows["none"]
            table = [
                {
                    "setting": name,
                    "λ": row["λ"],
                    **paired(row["accuracy"], none["accuracy"]).columns("accuracy gain", True),
                    **paired(none["NLL"], row["NLL"]).columns("NLL lower by", True),
                }
                for name, row in rows.items()
            ]
            part.table(table)
            part.figure(figure(rows, part.settings["title"]))
            checks = []
            for name, other in part.settings["claims"]:
                gap = paired(rows[other]["NLL"], rows[name]["NLL"])
                said = f"{name} has a lower NLL than {other}"
                checks.append(Check(said, gap.clearly(1), f"by {gap}"))
            part.verdict(checks)


if __name__ == "__main__":
    main()
