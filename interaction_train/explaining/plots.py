"""The figures of an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from interaction_train.concepts.graph_figure import default_title, number, short
from interaction_train.errors import at_least
from interaction_train.explaining.canvas import (
    HALO,
    Numbers,
    centroids,
    draw_borders,
    draw_circle,
    numbers,
    picture,
    show_pale,
)
from interaction_train.explaining.results import Results
from interaction_train.tracking.figures import draw_spectrum, new_figure, new_panels, show_ticks
from interaction_train.tracking.style import INK, NEGATIVE, POSITIVE, RULE, SIGNED, styled

_UNITS = {"logit": "logits", "margin": "logits", "log_odds": "nats", "log_prob": "nats"}
_TOLD = 16  # players whose values are written into their cells
_BARS = 30  # players in a bar chart
_EDGES = 40  # pairs in a network
_WIDEST, _LARGEST = 6.0, 700.0  # a line's width, a node's area; in points
_PER_INCH = 12  # letters of a title


class Plots:
    """Figures of an explanation, each of one sample but for :meth:`spectrum`.

    Players that are regions of an image are drawn over it, others on a circle or as bars, with
    their names. Orange is positive, blue (and dashed) negative. Write a figure with
    :func:`~interaction_train.tracking.figures.save_figure`.

    Raises:
        InputError: by the methods: no such sample, or a count below 1.
    """

    def __init__(self, explanation: Results) -> None:
        self._of = explanation

    @styled()
    def heatmap(self, sample: int = 0) -> Figure:
        """Shapley values over the image, beside it; of other players bars with standard errors."""
        cells, values = self._of.cells(sample), numbers(self._of.shapley[sample])
        if cells is None:
            return self._bars(sample, values)
        limit = _limit(values)
        labels = cells.cpu().numpy()
        tinted = np.where(labels >= 0, values[labels], np.nan)
        figure, panels = new_panels(1, 2, 7.0, _height(cells, 2.7, 2.0) + 0.9)
        plain, axes = panels[0]
        plain.imshow(numbers(picture(self._of.x[sample]).movedim(0, -1)), "gray", vmin=0, vmax=1)
        plain.set_title("input", loc="center", fontsize=8)
        plain.set_axis_off()
        show_pale(axes, self._of.x[sample], 0.3)
        tint = axes.imshow(tinted, cmap=SIGNED, vmin=-limit, vmax=limit, alpha=0.75)
        draw_borders(axes, cells)
        if len(values) <= _TOLD:
            for value, (x, y) in zip(values, centroids(cells, len(values)), strict=True):
                if not np.isnan(x):
                    told = number(value, limit, 2, "+")
                    text = axes.text(x, y, told, ha="center", va="center", fontsize=8)
                    text.set_path_effects(HALO)
        figure.colorbar(tint, ax=axes, label=self._label("Shapley value"))
        self._headline(figure, "Shapley values", sample, self._of.shapley_stderr)
        return figure

    @styled()
    def pairs(self, sample: int = 0, count: int = 10) -> Figure:
        """The ``count`` strongest Shapley interactions as lines, as wide as they are strong."""
        at_least("count", count, 1)
        figure, axes, places = self._stage(sample)
        axes.scatter(places[:, 0], places[:, 1], s=9, color=INK, zorder=4, clip_on=False)
        drawn = self._lines(axes, places, sample, count)
        self._legend(figure, drawn)
        headline = f"Shapley interactions, the {len(drawn)} strongest pairs"
        self._headline(figure, headline, sample, self._of.pairs_stderr)
        return figure

    @styled()
    def matrix(self, sample: int = 0) -> Figure:
        """Shapley interactions of all pairs ``(n, n)``, signed; the diagonal is blank."""
        table = numbers(self._of.pairs[self._of.at(sample)]).copy()
        names = [short(name) for name in self._of.names]
        limit, n = _limit(table), len(names)
        np.fill_diagonal(table, np.nan)
        beside = 0.075 * max(map(len, names))
        side = min(6.5, max(3.0, 0.24 * n))
        figure, axes = new_figure(side + beside + 1.2, side + beside + 0.5)
        axes.set_facecolor(RULE)
        image = axes.imshow(table, cmap=SIGNED, vmin=-limit, vmax=limit)
        most = int(side / 0.15)
        show_ticks(axes.set_xticks, names, most)
        show_ticks(axes.set_yticks, names, most)
        if 0.08 * max(map(len, names)) > side / min(n, most):
            axes.tick_params(axis="x", rotation=90)
        axes.grid(visible=False)
        axes.set(xlabel="player i", ylabel="player j")
        figure.colorbar(image, label=self._label("Shapley interaction I(i, j)"), shrink=0.9)
        self._headline(figure, "Shapley interactions", sample, self._of.pairs_stderr)
        return figure

    @styled()
    def spectrum(self) -> Figure:
        """Mean |I^(m)| over pairs and samples for each order m, with a band of one standard error.

        Where the explanation is sampled it is the root mean square.
        """
        figure, axes = new_figure()
        found, several = self._of.spectrum(), len(self._of.x) > 1
        draw_spectrum(axes, {"mean over samples": found})
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        band = "; band: one standard error" * several
        axes.set(xlabel=f"order m (players in the context{band})")
        sampled = found.get("reading") == "rms"
        axes.set_ylabel(self._label("root mean square of I(m)" if sampled else "mean |I(m)|"))
        about = f"{self._of.network}, {len(self._of.x)} samples" if several else self._of.title(0)
        axes.set_title(fill(f"Strength of interactions by order: {about}", 6 * _PER_INCH))
        return figure

    @styled()
    def network(self, sample: int = 0) -> Figure:
        """Players as nodes, as large as |Shapley value|; the strongest pairs as lines."""
        figure, axes, places = self._stage(sample)
        values = numbers(self._of.shapley[sample])
        areas = _LARGEST * np.abs(values) / _limit(values) * min(1, 16 / len(values))
        colours = [POSITIVE if value > 0 else NEGATIVE for value in values]
        x, y = places.T
        axes.scatter(x, y, s=areas, c=colours, edgecolors="white", zorder=4, clip_on=False)
        drawn = self._lines(axes, places, sample, _EDGES)
        self._legend(figure, drawn, largest=np.abs(values).max())
        headline = f"Shapley values and the {len(drawn)} strongest pairs"
        self._headline(figure, headline, sample, self._of.pairs_stderr)
        return figure

    def graph(self, sample: int = 0, count: int = 12, **settings: Any) -> Figure:
        """The graph of the strongest AND-OR concepts; arguments as of ``Explanation.graph``.

        Raises:
            InputError: arguments out of range, or a sampled explanation.
        """
        cells, graph = self._of.cells(sample), self._of.graph(sample, count, **settings)
        x = self._of.x[sample]
        title = f"{self._of.title(sample)}: {default_title(graph)}"
        return graph.plot(None if cells is None else picture(x), cells, title)

    def _stage(self, sample: int) -> tuple[Figure, Axes, Numbers]:
        """The image or the circle, and the players' places ``(n, 2)``."""
        cells, n = self._of.cells(sample), len(self._of.names)
        if cells is None:
            figure, axes = new_figure(5.5, 6.0)
            return figure, axes, draw_circle(axes, self._of.names)
        figure, axes = new_figure(4.5, _height(cells, 4.2, 2.2) + 1.0)
        show_pale(axes, self._of.x[sample], 0.45)
        draw_borders(axes, cells)
        return figure, axes, centroids(cells, n)

    def _lines(self, axes: Axes, places: Numbers, sample: int, count: int) -> Numbers:
        """Draw the strongest pairs; their values, the strongest first, ties by lowest index."""
        table = numbers(self._of.pairs[sample])
        first, second = np.triu_indices(len(table), 1)
        values = table[first, second]
        strongest = np.argsort(-np.abs(values), kind="stable")[:count]
        strongest = strongest[values[strongest] != 0]
        lengths = np.linalg.norm(places[first] - places[second], axis=1)
        near = 1.5 * np.nanmin(lengths, initial=np.inf)
        for k in strongest:
            start, end = places[first[k]], places[second[k]]
            across = np.array([start[1] - end[1], end[0] - start[0]])
            # Those to far players are bent around the ones between them.
            bent = (start + end) / 2 + 0.2 * across * (lengths[k] > near)
            curve = Path([start, bent, end], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
            width = _WIDEST * abs(values[k]) / abs(values[strongest[0]])
            positive = values[k] > 0
            line = PathPatch(
                curve, fill=False, lw=width, ec=POSITIVE if positive else NEGATIVE, alpha=0.85,
                ls="-" if positive else (0, (2, 0.8)), capstyle="butt", zorder=3,
                gid=f"pair-{first[k]}-{second[k]}",
            )  # fmt: skip
            axes.add_patch(line)
        return values[strongest]

    def _legend(self, figure: Figure, drawn: Numbers, largest: float | None = None) -> None:
        """Signs, and what the widest line and the largest node stand for."""
        unit = self._unit()
        handles = [
            Line2D([], [], color=POSITIVE, lw=3, label="I > 0: more together"),
            Line2D([], [], color=NEGATIVE, lw=3, ls=(0, (2, 0.8)), label="I < 0: less together"),
        ]
        if len(drawn):
            most = abs(drawn[0])
            for part in (1, 0.5):
                label = f"|I| = {part * most:.3g}{unit}"
                handles.append(Line2D([], [], color=INK, lw=part * _WIDEST, label=label))
        if largest is not None:
            nodes = {
                "Shapley value φ > 0": POSITIVE,
                "Shapley value φ < 0": NEGATIVE,
                f"largest node: |φ| = {largest:.3g}{unit}": RULE,
            }
            dot: dict[str, Any] = {"marker": "o", "ls": "", "ms": 9}
            handles += [Line2D([], [], color=c, label=label, **dot) for label, c in nodes.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)

    def _bars(self, sample: int, values: Numbers) -> Figure:
        errors = numbers(self._of.shapley_stderr[sample])
        order = np.argsort(-np.abs(values), kind="stable")
        shown, left = order[:_BARS], order[_BARS:]
        figure, axes = new_figure(6.0, 1.2 + 0.23 * len(shown))
        colours = [POSITIVE if value > 0 else NEGATIVE for value in values[shown]]
        bars: dict[str, Any] = {"xerr": errors[shown], "ecolor": INK} if errors.any() else {}
        axes.barh(range(len(shown)), values[shown], color=colours, height=0.75, **bars)
        axes.margins(y=0.02)
        axes.set_yticks(range(len(shown)), [short(self._of.names[k]) for k in shown])
        axes.invert_yaxis()
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.grid(visible=False, axis="y")
        notes = ["bars: one standard error"] * bool(bars)
        rest = f"{values[left].sum() + 0.0:+.3g}".replace("-", "−")
        notes += [f"{len(left)} others: {rest}"] * bool(len(left))
        axes.set_xlabel("\n".join([self._label("Shapley value"), "; ".join(notes)]).strip())
        self._headline(figure, "Shapley values", sample)
        return figure

    def _headline(
        self, figure: Figure, what: str, sample: int, errors: Tensor | None = None
    ) -> None:
        largest = 0.0 if errors is None else float(errors[sample].nan_to_num().max())
        if largest > 0:
            what += f", standard errors up to {largest:.2g}"
        letters = int(figure.get_figwidth() * _PER_INCH)
        figure.suptitle(fill(what, letters) + "\n" + fill(self._of.title(sample), letters))

    def _unit(self) -> str:
        unit = _UNITS.get(self._of.payoff, "")
        return f" {unit}" if unit else ""

    def _label(self, what: str) -> str:
        payoff, unit = self._of.payoff.replace("_", "-"), self._unit().strip()
        known = payoff if not unit or unit.startswith(payoff) else f"{payoff} in {unit}"
        return f"{what} ({known})"


def _height(cells: Tensor, width: float, least: float) -> float:
    """How high an image of this width is, within reason; in inches."""
    rows, columns = cells.shape
    return min(max(width * rows / columns, least), 2 * width)


def _limit(values: Sequence[float] | Numbers) -> float:
    """The largest absolute value; 1 where all are 0."""
    return float(np.abs(values).max()) or 1.0
