"""Whether images revised by their prototypical concepts are easier to recognise for other networks.

The survey's Sec. 4.3: in a hidden feature of one network the sets of cells with the largest
‖I(S)‖₂ are called prototypical; an image is revised by gradient, so that these get stronger and
the weakest ones weaker, by the colour settings of each cell (on grey images sharpness and
brightness) or by all pixels. That the revised image is easier to perceive is judged here by
networks that had no part in it: the same architecture with another seed, and other architectures.
Control: random sets, none of those that are weakened, in place of the prototypical ones.

Recognition is the change of the log-odds of the label from the original to the revised image, mean
over test images and other networks. Intervals are over seeds (of all networks), and over images
(means over seeds), paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import common
import torch
from common import DIGITS, Check, Mean, Part, Study, Summary
from matplotlib.figure import Figure
from torch import Tensor, nn

import interaction_train as it
from interaction_train.callbacks.samples import spread
from interaction_train.game.payoffs import log_odds
from interaction_train.revising import Revision, revise_image
from interaction_train.revising.changes import Kind
from interaction_train.revising.sets import Choice
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import styled

CHANGES: tuple[Kind, ...] = ("colour", "pixels")
SETS: tuple[Choice, ...] = ("prototypical", "random")
OWN = "own"
OTHER_SEED = 1000  # between the seeds of a network and of its likes


def networks(study: Study, data: str, seed: int, epochs: int) -> dict[str, nn.Module]:
    """The network that images are revised for, and those that judge, trained or loaded."""

    def train(build: Callable[[], nn.Module], own: int) -> nn.Module:
        data_module = common.splits(study.source(data), seed)
        return common.fit(build, data_module, seed=own, epochs=epochs, lr=0.05)

    if data == "digits":
        kinds = {
            OWN: ("cnn", seed),
            "cnn, other seed": ("cnn", seed + OTHER_SEED),
            "resnet": ("resnet", seed),
            "mlp": ("mlp", seed),
        }
        return {name: train(DIGITS[build], own) for name, (build, own) in kinds.items()}
    depths = {OWN: 20, "resnet 32": 32}
    if study.scale == "full":
        build = it.models.CIFARThinResNet
        return {name: train(partial(build, depth), seed) for name, depth in depths.items()}
    file = "cifar_resnet{}.safetensors"
    return {
        name: it.models.CIFARThinResNet(depth, weights=study.file(file.format(depth))).eval()
        for name, depth in depths.items()
    }


def told(revision: Revision, judges: Mapping[str, nn.Module], y: Tensor) -> dict[str, Any]:
    """Of each image: log-odds gained and whether it is recognised by network, and the revision."""
    summary: dict[str, Any] = {"gain": {}, "right": {}}
    for name, network in judges.items():
        before, after = (common.logits(network, x) for x in (revision.original, revision.image))
        summary["gain"][name] = (log_odds(after, y) - log_odds(before, y)).tolist()
        summary["right"][name] = (after.argmax(1) == y).double().tolist()
    grown = revision.history[:, -1] / revision.history[:, 0]
    moved = (revision.image - revision.original).abs().flatten(1).mean(1)
    return {
        **summary,
        "stronger": grown[:, 0].tolist(),
        "weaker": grown[:, 1].tolist(),
        "moved": moved.tolist(),
    }


def work(study: Study, data: str, seed: int, **size: Any) -> Summary:
    """Revise test images for one network and show them to others; as in ``settings.yaml``."""
    judges = networks(study, data, seed, size["epochs"])
    x, y = common.images(study.source(data), "test")
    some = spread(range(len(x)), size["images"])
    x, y = x[some], y[some]
    summary: Summary = {
        "right": {
            name: (common.logits(network, x).argmax(1) == y).double().tolist()
            for name, network in judges.items()
        }
    }
    for change in CHANGES:
        for sets in SETS:
            revision = revise_image(
                judges[OWN], size["layer"], x, it.GridPlayers(*size["grid"]),
                size["strengthen"], size["weaken"], weight=size["weight"],
                steps=size["steps"], change=change, sets=sets, seed=seed,
            )  # fmt: skip
            summary[f"{change}, {sets}"] = told(revision, judges, y)
    return summary


class Findings:
    """The runs of a part, by what is asked of them."""

    def __init__(self, runs: Sequence[Summary]) -> None:
        self.runs = runs
        self.judges = list(runs[0]["right"])
        self.others = [name for name in self.judges if name != OWN]

    def table(self, key: str, judges: Sequence[str], measure: str = "gain") -> Tensor:
        """A measure of every run and image, mean over some networks, ``(runs, images)``."""
        return torch.tensor(
            [[run[key][measure][name] for name in judges] for run in self.runs]
        ).mean(1)

    def over(self, values: Tensor) -> tuple[Mean, Mean]:
        """The mean of values ``(runs, images)`` with errors over seeds, and over images."""
        return Mean.of(values.mean(1).tolist()), Mean.of(values.mean(0).tolist())


def rows(found: Findings) -> list[dict[str, Any]]:
    """The table: of each revision what other networks, and its own one, gain."""
    result = []
    for key in (f"{change}, {sets}" for change in CHANGES for sets in SETS):
        change, _, sets = key.partition(", ")
        row: dict[str, Any] = {"change": change, "sets strengthened": sets}
        for name, judges in (("others", found.others), ("own", [OWN])):
            seeds, images = found.over(found.table(key, judges))
            more = images if len(found.runs) == 1 else seeds
            row |= more.columns(f"log-odds gained, {name}", interval=True)
        right = torch.tensor(
            [[run[key]["right"][name] for name in found.others] for run in found.runs]
        )
        before = torch.tensor([[run["right"][name] for name in found.others] for run in found.runs])
        row["accuracy, others"] = float(right.mean())
        row["before"] = float(before.mean())
        for name in ("stronger", "weaker"):
            values = torch.tensor([run[key][name] for run in found.runs])
            row[f"{name} sets, times"] = float(values.median())
        row["mean change of a pixel"] = float(
            torch.tensor([run[key]["moved"] for run in found.runs]).mean()
        )
        result.append(row)
    return result


def checks(found: Findings) -> list[Check]:
    """What the numbers say: each claim wants clear intervals over seeds and over images."""
    result = []

    def claim(says: str, values: Tensor) -> None:
        seeds, images = found.over(values)
        single = len(found.runs) == 1
        holds = images.clearly(1) and (single or seeds.clearly(1))
        both = f"{images} over images" if single else f"{seeds} over seeds, {images} over images"
        result.append(Check(says, holds, f"log-odds by {both}"))

    for change in CHANGES:
        first, second = (found.table(f"{change}, {sets}", found.others) for sets in SETS)
        claim(f"{change}: other networks recognise the revised images better", first)
        claim(f"{change}: better than with random sets", first - second)
    return result


@styled()
def figure(found: Findings, part: Part) -> Figure:
    """The log-odds that each network gains."""
    drawn, panels = new_panels(1, 2, 7.4, 3.4)
    for axes, change in zip(panels[0], CHANGES, strict=True):
        places = list(range(len(found.judges)))
        for shift, sets in zip((-0.08, 0.08), SETS, strict=True):
            spans = [
                found.over(found.table(f"{change}, {sets}", [name]))[len(found.runs) == 1]
                for name in found.judges
            ]
            at = [place + shift for place in places]
            common.curve(axes, at, spans, label=f"{sets} sets", linestyle="none")
        axes.axhline(0, color="0.6", lw=0.8)
        axes.set_xticks(places, [name.replace(", ", ",\n") for name in found.judges])
        axes.set(ylabel="log-odds gained", title=f"{part.data}: {change}")
        axes.legend()
    return drawn


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            plan = {f"seed_{seed}": {"seed": seed, **part.settings} for seed in part.seeds}
            runs = part.runs(plan, partial(work, study, part.data))
            found = Findings([runs[name] for name in plan])
            part.table(rows(found))
            part.figure(figure(found, part))
            part.verdict(checks(found))


if __name__ == "__main__":
    main()
