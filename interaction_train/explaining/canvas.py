"""Where players lie in a figure: over an image, or on a circle with their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

from interaction_train.concepts.graph_figure import short
from interaction_train.tracking.style import INK

Numbers = NDArray[np.float64]
HALO = [withStroke(linewidth=2, foreground="white")]
"""What makes text readable on an image."""
_TURNED = 12  # from so many names on they are turned like rays


def grey_image(x: Tensor) -> Numbers:
    """An input ``(C, H, W)`` or ``(H, W)`` as grey ``(H, W)``, scaled to [0, 1] if need be."""
    grey = numbers(x if x.dim() == 2 else x.flatten(0, -3).double().mean(0))
    low, high = grey.min(), grey.max()
    if low < 0 or high > 1:
        grey = (grey - low) / max(high - low, 1e-12)
    return grey


def picture(x: Tensor) -> Tensor:
    """An input as an image in [0, 1]: in colour where it is one, else in grey, ``(1, H, W)``."""
    x = x / 255 if x.dtype == torch.uint8 else x.double()
    colour = x.dim() == 3 and len(x) == 3 and float(x.min()) >= 0 and float(x.max()) <= 1
    return x if colour else torch.from_numpy(grey_image(x)).unsqueeze(0)


def show_pale(axes: Axes, x: Tensor, kept: float) -> None:
    """Draw an input in grey from white to 1 − ``kept``: contrast is for what comes over it."""
    pale = 1 - kept + kept * grey_image(x)
    axes.imshow(pale, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def draw_borders(axes: Axes, cells: Tensor) -> None:
    """Thin lines between the pixels ``(H, W)`` of different players."""
    labels = cells.cpu().numpy()
    y, x = (labels[:, 1:] != labels[:, :-1]).nonzero()
    upright = np.stack([x + 0.5, y - 0.5, x + 0.5, y + 0.5], 1)
    y, x = (labels[1:] != labels[:-1]).nonzero()
    level = np.stack([x - 0.5, y + 0.5, x + 0.5, y + 0.5], 1)
    ends = np.concatenate([upright, level]).reshape(-1, 2)
    if len(ends):
        codes = np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2)
        # One path, as thousands of lines would make large files.
        lines = PathPatch(Path(ends, codes), fill=False, ec=INK, lw=0.5, alpha=0.5, gid="borders")
        axes.add_patch(lines)


def centroids(cells: Tensor, n: int) -> Numbers:
    """The middle (x, y) of each player's pixels ``(n, 2)``; NaN where it has none.

    Where the middle lies in another player's pixels it is the own pixel that is nearest.
    """
    labels = cells.cpu().numpy()
    middle = np.full((n, 2), np.nan)
    for player in range(n):
        y, x = (labels == player).nonzero()
        if not len(x):
            continue
        at = np.array([x.mean(), y.mean()])
        if labels[round(at[1]), round(at[0])] != player:
            nearest = ((x - at[0]) ** 2 + (y - at[1]) ** 2).argmin()
            at = np.array([x[nearest], y[nearest]], dtype=float)
        middle[player] = at
    return middle


def draw_circle(axes: Axes, names: Sequence[str]) -> Numbers:
    """Names around a circle of radius 1, clockwise from the top; the places ``(n, 2)`` on it."""
    n = len(names)
    angles = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    places = np.stack([np.cos(angles), np.sin(angles)], 1)
    for name, (x, y), angle in zip(names, places, np.degrees(angles), strict=True):
        side = "right" if x < -1e-9 else "left"
        turn = angle + 180 * (side == "right")
        if n < _TURNED:
            side, turn = side if abs(x) > 1e-9 else "center", 0
        axes.annotate(
            short(name), (x, y), (17 * x, 17 * y), textcoords="offset points", ha=side,
            va="center", rotation_mode="anchor", rotation=turn, fontsize=8 if n <= 32 else 7,
        )  # fmt: skip
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    axes.set_axis_off()
    return places


def numbers(values: Tensor) -> Numbers:
    """As NumPy's float64."""
    return values.detach().cpu().double().numpy()
