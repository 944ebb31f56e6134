"""Figures, drawn without a display and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def new_figure() -> tuple[Figure, Axes]:
    """A figure of one chart, and the axes of it."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    return figure, figure.add_subplot()


def spectrum_figure(
    spectra: Mapping[str, Mapping[str, Any]], title: str, label: str = "J(m)"
) -> Figure:
    """J(m) or the like against the order m, as :func:`draw_spectrum` draws it."""
    figure, axes = new_figure()
    draw_spectrum(axes, spectra)
    axes.set(xlabel="order m (players in the context)", ylabel=label, title=title)
    return figure


def heat_map_figure(
    values: Sequence[Sequence[float]],
    epochs: Sequence[int],
    ratios: Sequence[str],
    label: str,
    title: str,
) -> Figure:
    """Values ``[epoch][order]`` over training: epochs across, orders up; NaN is left blank."""
    figure, axes = new_figure()
    table = np.asarray(values, dtype=float).T
    image = axes.imshow(table, origin="lower", aspect="auto", interpolation="nearest", vmin=0)
    shown = range(0, len(epochs), max(1, -(-len(epochs) // 12)))
    axes.set_xticks(list(shown), [str(epochs[k]) for k in shown])
    axes.set_yticks(range(len(ratios)), list(ratios))
    axes.set(xlabel="epoch", ylabel="order m/(n−2)", title=title)
    figure.colorbar(image, label=label)
    return figure


def draw_spectrum(axes: Axes, spectra: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw a curve of each ``{"orders": …, "value": …, "stderr": …}``, with bands of one error."""
    for name, spectrum in spectra.items():
        value, stderr = np.asarray(spectrum["value"]), np.asarray(spectrum["stderr"])
        axes.plot(spectrum["orders"], value, marker="o", markersize=3, label=name)
        axes.fill_between(spectrum["orders"], value - stderr, value + stderr, alpha=0.2)
    axes.set_ylim(bottom=0)
    axes.legend()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, making the folder when needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
