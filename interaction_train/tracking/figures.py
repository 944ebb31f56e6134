"""Figures, drawn without a display and without pyplot's global state, in the package's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.tracking.style import SEQUENTIAL, StyledFigure, styled

RATIOS = "order m/(n−2)"
_FORMATS = (".png", ".svg", ".pdf")
_LETTERS = 15.0  # of small print, per inch


def new_figure(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """A figure of one chart, and the axes of it; sizes in inches."""
    figure, panels = new_panels(1, 1, width, height)
    return figure, panels[0, 0]


@styled()
def new_panels(
    rows: int, cols: int, width: float, height: float, **options: Any
) -> tuple[Figure, Any]:
    """A figure of charts, and their axes ``(rows, cols)``; options are those of ``subplots``."""
    figure = StyledFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, cols, squeeze=False, **options)


@styled()
def spectrum_figure(
    spectra: Mapping[str, Mapping[str, Any]],
    title: str,
    label: str = "J(m) (mean over orders = 1)",
) -> Figure:
    """J(m) or the like against the order m, as :func:`draw_spectrum` draws it."""
    figure, axes = new_figure()
    draw_spectrum(axes, spectra)
    axes.set(xlabel="order m (players in the context)", ylabel=label, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)
    return figure


@styled()
def heat_map_figure(
    values: Sequence[Sequence[float]],
    epochs: Sequence[int],
    ratios: Sequence[str],
    label: str,
    title: str,
    axis: str = RATIOS,
) -> Figure:
    """Values ``[epoch][order]`` over training: epochs across, orders up; NaN is left blank."""
    figure, axes = new_figure()
    table = np.asarray(values, dtype=float).T
    image = axes.imshow(table, origin="lower", aspect="auto", vmin=0, cmap=SEQUENTIAL)
    show_ticks(axes.set_xticks, [str(epoch) for epoch in epochs], most=12)
    show_ticks(axes.set_yticks, ratios, most=20)
    axes.set(xlabel="epoch", ylabel=axis, title=title)
    axes.grid(visible=False)
    figure.colorbar(image, label=label)
    return figure


def draw_spectrum(axes: Axes, spectra: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw a curve of each ``{"orders": …, "value": …, "stderr": …}``, with bands of one error."""
    for name, spectrum in spectra.items():
        value, stderr = (np.asarray(spectrum[key], dtype=float) for key in ("value", "stderr"))
        axes.plot(spectrum["orders"], value, marker="o", label=name)
        axes.fill_between(spectrum["orders"], value - stderr, value + stderr, alpha=0.2, lw=0)
    top = float(axes.dataLim.y1)
    axes.set_ylim(0, 1.08 * top if 0 < top < np.inf else 1)


def show_image(axes: Axes, pixels: Any, caption: str) -> None:
    """Draw an image in [0, 1] with a caption, which is broken into lines where it is long.

    A tensor ``(1 or 3, H, W)``, or an array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``, or bytes.
    """
    if isinstance(pixels, Tensor):
        pixels = pixels.detach().float().cpu().movedim(0, -1).numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    width = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]
    lines = (fill(line, max(8, int(1.2 * width * _LETTERS))) for line in caption.split("\n"))
    set_caption(axes, "\n".join(lines))
    axes.set_axis_off()


def set_caption(axes: Axes, text: str) -> None:
    """A title in small print."""
    axes.set_title(text, fontsize=7, loc="center", pad=3)


def pixel_step(eps: float) -> str:
    """A difference of pixel values, as so many 255ths where it is: ``8/255``."""
    levels = eps * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-4 else f"{eps:.4g}"


def show_epsilons(axes: Axes, epsilons: Sequence[float]) -> None:
    """Label the axis of ε, at those values that have room; all as 255ths, or none."""
    largest = max(epsilons)
    room, shown = 0.17 * largest, [0.0, largest]
    for value in sorted(epsilons, reverse=True):
        if value >= room and shown[-1] - value >= room:
            shown.append(value)
    whole = all("/" in pixel_step(value) for value in shown)
    labels = [pixel_step(value) if whole and value else f"{value:.3g}" for value in shown]
    axes.set_xticks(shown, labels)
    axes.set(xlabel="ε (pixel values in [0, 1])", xlim=(-0.05 * largest, 1.08 * largest))


def show_ticks(place: Any, labels: Sequence[str], most: int) -> None:
    """Label the places 0, 1, … on an axis (``place``: its ``set_xticks``), at most so many."""
    shown = range(0, len(labels), max(1, -(-len(labels) // most)))
    place(list(shown), [labels[k] for k in shown])


def legend_below(axes: Axes) -> None:
    """A legend of what the axes hold: below our figures, where no data are; inside of others'."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.figure
    if not isinstance(figure, StyledFigure):
        axes.legend()
    elif labels:
        widest = max(map(len, labels)) + 6
        columns = max(1, min(len(labels), int(figure.get_figwidth() * _LETTERS / widest)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure by its suffix; without one as PNG and SVG. The files are the same every time.

    Makes the folder when needed, and returns the files' paths.

    Raises:
        InputError: a suffix other than ``.png``, ``.svg`` and ``.pdf``.
    """
    path = Path(path)
    if path.suffix and path.suffix not in _FORMATS:
        raise InputError("path", path.name, f"a name in {', '.join(_FORMATS)}, or without a suffix")
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path] if path.suffix else [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in paths:
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(file.suffix)
        with styled():
            figure.savefig(file, metadata=undated)
    return paths
