"""Figures, drawn without a display and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def spectrum_figure(spectra: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """J(m) against the order m, one curve per spectrum, with bands of one standard error.

    Args:
        spectra: name → ``{"orders": …, "value": …, "stderr": …}``, lists of equal length.
        title: the figure's title.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    draw_spectrum(axes, spectra)
    axes.set(xlabel="order m (players in the context)", ylabel="J(m)", title=title)
    return figure


def draw_spectrum(axes: Axes, spectra: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw curves with bands of one standard error.

    Args:
        axes: where to draw.
        spectra: as in :func:`spectrum_figure`.
    """
    for name, spectrum in spectra.items():
        orders, value, stderr = (spectrum[key] for key in ("orders", "value", "stderr"))
        low = [v - s for v, s in zip(value, stderr, strict=True)]
        high = [v + s for v, s in zip(value, stderr, strict=True)]
        axes.plot(orders, value, marker="o", markersize=3, label=name)
        axes.fill_between(orders, low, high, alpha=0.2)
    axes.set_ylim(bottom=0)
    axes.legend()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, making the folder when needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
