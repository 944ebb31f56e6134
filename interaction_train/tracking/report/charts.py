"""Curves of the logged metrics, few and grouped, as SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interaction_train.tracking.report.material import Series, number

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
    "val/robust_acc": "Robust accuracy",
}
# Stand-ins that the page's colours replace; with what a file of its own shows.
_INK, _LINE = "#010101", "#020202"
_SERIES = {f"#0a000{i}": f"var(--s{i})" for i in range(1, 7)}
_STYLE = """<style>
svg{color:#1f2933;--line:#d5dbe1;--s1:#0b7285;--s2:#e8590c;--s3:#7048e8;--s4:#2b8a3e;--s5:#c2255c;
--s6:#868e96}
@media (prefers-color-scheme:dark){svg{color:#dee2e6;--line:#3b434c;--s1:#3bc9db;--s2:#ffa94d;
--s3:#b197fc;--s4:#69db7c;--s5:#f783ac;--s6:#adb5bd}}
</style>"""


@dataclass(frozen=True)
class Chart:
    """A chart of curves over the optimizer steps.

    Attributes:
        title: what it shows.
        section: one of :data:`SECTIONS`.
        summary: the same in words, for those who do not see it.
        svg: the drawing, without width and height.
    """

    title: str
    section: str
    summary: str
    svg: str

    @property
    def slug(self) -> str:
        """A name for files."""
        return re.sub(r"[^a-z0-9]+", "_", f"{self.section} {self.title}".lower()).strip("_")

    def standalone(self) -> str:
        """The drawing as a file of its own, for light and dark pages."""
        return self.svg.replace(">", f">\n{_STYLE}", 1)


def charts(series: Mapping[str, Series]) -> list[Chart]:
    """Draw all metrics that have a curve, those that belong together in one chart.

    Args:
        series: metric → its values.

    Returns:
        The charts, section by section.
    """
    groups: dict[str, dict[str, Series]] = {}
    for key, values in series.items():
        if len(set(values.steps)) > 1 and not _LEFT_OUT.search(key):
            group, label = _group(key)
            groups.setdefault(group, {})[label] = values
    drawn = [_chart(group, lines) for group, lines in groups.items()]
    order = list(_TITLES.values())
    rank = {title: i for i, title in enumerate(order)}
    return sorted(
        drawn, key=lambda c: (SECTIONS.index(c.section), rank.get(c.title, len(rank)), c.title)
    )


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


def _section(group: str) -> str:
    if "interaction" in group or "disentangle" in group:
        return "Interactions"
    if re.search(r"robust|attack|adversarial|transfer", group):
        return "Robustness"
    known = re.fullmatch(r"loss|acc|(train|val)/(loss|weight|gap)(/.*)?", group)
    return "Training" if known else "Other metrics"


def _chart(group: str, lines: dict[str, Series]) -> Chart:
    title = _TITLES.get(group, group)
    ends = (
        f"{label} from {number(line.values[0])} to {number(line.values[-1])}"
        for label, line in lines.items()
    )
    summary = f"{title} against the step: {'; '.join(ends)}."
    return Chart(title, _section(group), summary, _draw(title, summary, lines))


def _draw(title: str, summary: str, lines: dict[str, Series]) -> str:
    ordered = len(lines) > 2 and all(re.fullmatch(r"[\d.e-]+", label) for label in lines)
    labels = sorted(lines, key=float) if ordered else sorted(lines, key=_split_order)
    colours: list[Any] = list(_SERIES)
    if len(labels) > len(colours) or ordered:
        colours = list(matplotlib.colormaps["viridis"](np.linspace(0.1, 0.85, len(labels))))
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.size": 9,
        "text.color": _INK,
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _LINE,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.7, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for label, colour in zip(labels, colours, strict=False):
            _curve(axes, lines[label], label, colour)
        axes.set_xlabel("step")
        if _far_apart(lines.values()):
            axes.set_yscale("log")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.6)
        axes.tick_params(which="both", length=0)
        if len(labels) > 1 or labels[0] in _SPLITS:
            columns = min(len(labels), 4)
            figure.legend(loc="outside upper left", ncols=columns, frameon=False, handlelength=1.2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _themed(buffer.getvalue(), summary)


def _curve(axes: Axes, line: Series, label: str, colour: Any) -> None:
    """A line; of many points a smooth one, over the points themselves."""
    steps, values = np.asarray(line.steps), np.asarray(line.values)
    window = len(values) // 30
    if window > 1:
        every = max(1, len(values) // 400)
        axes.plot(steps[::every], values[::every], color=colour, linewidth=0.7, alpha=0.35)
        kernel = np.ones(window) / window
        steps, values = (np.convolve(part, kernel, "valid") for part in (steps, values))
        every = max(1, len(values) // 200)
        steps, values = steps[::every], values[::every]
    marker = "o" if len(values) < 12 else None
    axes.plot(steps, values, color=colour, linewidth=1.6, label=label, marker=marker, markersize=3)


def _far_apart(lines: Collection[Series]) -> bool:
    """Whether one line would lie flat on the axis beside another."""
    tops = [max(line.values) for line in lines]
    return all(min(line.values) > 0 for line in lines) and max(tops) > 20 * min(tops)


def _split_order(label: str) -> tuple[int, str]:
    return _SPLITS.index(label) if label in _SPLITS else len(_SPLITS), label


def _themed(svg: str, summary: str) -> str:
    """Drop what a page does not need, and let the page choose the colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(summary)}"', 1)
    own = f"c{zlib.crc32(summary.encode()):08x}-"  # several drawings share a page
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}", svg)
    for stand_in, colour in {_INK: "currentColor", _LINE: "var(--line)", **_SERIES}.items():
        svg = svg.replace(stand_in, colour)
    return svg
