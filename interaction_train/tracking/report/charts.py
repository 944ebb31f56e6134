"""Curves of the logged metrics, few and grouped."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, NullFormatter

from interaction_train.tracking.figures import new_figure
from interaction_train.tracking.report.material import Series, number, words
from interaction_train.tracking.style import COLOURS, SEQUENTIAL, styled

SECTIONS = ("Training", "Interactions", "Robustness", "Other metrics")
_SPLITS = ("train", "val", "test")
# Errors and signed means are in the tables; as curves they would bury the others.
_LEFT_OUT = re.compile(r"_stderr(/|$)|/signed(/|$)")
_TITLES = {
    "loss": "Loss",
    "acc": "Accuracy",
    "train/loss": "Loss terms",
    "train/weight": "Weights of the loss terms",
    "val/gap/acc": "Generalisation: accuracy",
    "val/gap/loss": "Generalisation: loss",
    "val/gap/strength": "Generalisation: strength of interactions",
    "val/interaction/J": "J(m) over training, by m/(n−2)",
    "val/disentanglement/D": "D(m) over training, by m/(n−2)",
    "val/concepts": "Concepts: how many, and what they explain",
    "val/concepts/and": "Σ|I| of AND concepts over training, by number of players",
    "val/concepts/or": "Σ|I| of OR concepts over training, by number of players",
    "val/robust_acc": "Robust accuracy",
}


class Chart:
    """An SVG of curves over the optimizer steps; the summary is for those who do not see it."""

    def __init__(self, group: str, lines: dict[str, Series]) -> None:
        self.title, self.section = _TITLES.get(group) or words(group), section_of(group)
        lines = {label.replace("_", " "): line for label, line in lines.items()}
        ends = (
            f"{label} from {number(line.values[0])} to {number(line.values[-1])}"
            for label, line in lines.items()
        )
        self.summary = f"{self.title} against the step: {'; '.join(ends)}."
        self.drawing = _draw(lines)


def charts(series: Mapping[str, Series]) -> list[Chart]:
    """All metrics that have a curve, those that belong together in one chart."""
    groups: dict[str, dict[str, Series]] = {}
    for key, values in series.items():
        if len(set(values.steps)) > 1 and not _LEFT_OUT.search(key):
            group, label = _group(key)
            groups.setdefault(group, {})[label] = values
    drawn = [Chart(group, lines) for group, lines in groups.items()]
    rank = {title: i for i, title in enumerate(_TITLES.values())}
    return sorted(drawn, key=lambda chart: (rank.get(chart.title, len(rank)), chart.title))


def section_of(name: str) -> str:
    """The section of a group of metrics, or of a figure's file, by its name."""
    if re.search(r"robust|attack|adversarial|transfer", name):
        return "Robustness"
    if (
        re.search(r"interaction|concepts|spectrum|orders|disentangle|strength", name)
        and "gap" not in name
    ):
        return "Interactions"
    known = re.fullmatch(r"loss|acc|(train|val)/(loss|weight|gap)(/.*)?", name)
    return "Training" if known else "Other metrics"


def _group(key: str) -> tuple[str, str]:
    """Chart and label of a metric: splits of one quantity together, parts of one split together."""
    split, _, rest = key.partition("/")
    if split not in _SPLITS or not rest:
        return key.rpartition("/")[0] or key, key
    if "/" not in rest:
        return rest, split
    group, _, label = key.rpartition("/")
    if group.endswith("/gap"):  # train_acc, val_acc and acc, their difference, and so on
        part, _, quantity = label.rpartition("_")
        return f"{group}/{quantity}", part or "gap"
    return group, label


def _draw(lines: dict[str, Series]) -> bytes:
    ordered = len(lines) > 2 and all(re.fullmatch(r"[\d.e-]+", label) for label in lines)
    labels = sorted(lines, key=float if ordered else _split_order)
    colours: list[Any] = list(COLOURS)
    if ordered or len(labels) > len(colours):  # the bright end would vanish on a white page
        colours = list(SEQUENTIAL(np.linspace(0, 0.58, len(labels))))
    with styled():
        figure, axes = new_figure(4.7, 2.9)
        for label, colour in zip(labels, colours, strict=False):
            _curve(axes, lines[label], label, colour)
        axes.set_xlabel("step")
        if _far_apart(lines.values()):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())  # matplotlib's default writes formulas
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="x")
        axes.tick_params(which="both", length=0)
        if len(labels) > 1 or labels[0] in _SPLITS:
            columns = min(len(labels), 4)
            figure.legend(loc="outside upper left", ncols=columns, handlelength=1.2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _curve(axes: Axes, line: Series, label: str, colour: Any) -> None:
    """A line; of many points a smooth one, over the points themselves."""
    steps, values = np.asarray(line.steps), np.asarray(line.values)
    window = len(values) // 30
    if window > 1:
        every = max(1, len(values) // 400)
        axes.plot(steps[::every], values[::every], "-", color=colour, linewidth=0.7, alpha=0.35)
        kernel = np.ones(window) / window
        every = max(1, len(values) // 200)
        steps, values = (np.convolve(x, kernel, "valid")[::every] for x in (steps, values))
    marker = "o" if len(values) < 12 else None
    axes.plot(steps, values, color=colour, linestyle="-", label=label, marker=marker)


def _far_apart(lines: Collection[Series]) -> bool:
    """Whether one line would lie flat on the axis beside another."""
    tops = [max(line.values) for line in lines]
    return all(min(line.values) > 0 for line in lines) and max(tops) > 20 * min(tops)


def _split_order(label: str) -> tuple[int, str]:
    return _SPLITS.index(label) if label in _SPLITS else len(_SPLITS), label
