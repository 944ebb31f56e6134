"""The figure of recovered interactions: image, Shapley values, the strongest sets, R² by budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from interaction_train.concepts.selection import Surrogate
from interaction_train.errors import InputError
from interaction_train.tracking.figures import new_panels, set_caption, show_image
from interaction_train.tracking.style import NEGATIVE, POSITIVE, SIGNED, styled

_PANEL = 2.1  # inches
_FADED = 0.35  # of an image below the sets
_ROUNDING = 1e-9  # of the scale of a game, below which its Shapley values are drawn as none


@styled()
def recovery_figure(
    images: Tensor,
    cells: Tensor,
    shapley: Tensor,
    surrogate: Surrogate,
    curves: tuple[Sequence[int], Tensor],
    rows: Sequence[str],
    title: str,
) -> Figure:
    """Images, one a row: the image, Shapley values of its cells, its strongest sets, R² by budget.

    A set is drawn as lines between the centres of its cells, one of a single cell as its frame;
    colour is the sign, width the strength relative to the image's strongest, dashes are ORs.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], of one or three channels.
        cells: ``(H, W)`` int64, the player of each pixel.
        shapley: ``(B, n)``.
        surrogate: the sets of the B samples, with their R² on fresh coalitions.
        curves: budgets, and R² at each, ``(B, budgets)``.
        rows: what is written above each image.
        title: of the figure.

    Raises:
        InputError: images of another shape.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError("images", f"shape {tuple(images.shape)}", "(B, 1 or 3, H, W)")
    lines, place = len(images), cells.cpu().numpy()
    figure, panels = new_panels(lines, 4, 4 * _PANEL, 0.5 + 1.15 * _PANEL * lines)
    budgets, r2 = curves[0], curves[1].detach().double().cpu().numpy()
    for b, line in enumerate(panels):
        show_image(line[0], images[b], rows[b])
        one = surrogate[b]
        values = shapley[b].detach().double().cpu().numpy()
        scale = float(one.max_error) + float(one.value.abs().sum())
        limit = float(np.abs(values).max())
        limit = limit if limit > _ROUNDING * scale else 1.0
        line[1].imshow(values[place], cmap=SIGNED, vmin=-limit, vmax=limit)
        set_caption(line[1], f"Shapley values, ±{limit:.2g}")
        line[1].set_axis_off()
        alone = f"{int(one.count)} strongest, R² {float(one.r2):.2f}"
        show_image(line[2], 1 - _FADED * (1 - images[b].float()), alone)
        _draw_sets(line[2], one, place)
        line[3].plot(budgets, r2[b], marker="o")
        line[3].set(ylim=(min(0.0, np.nanmin(r2[b], initial=0.0)), 1.02), box_aspect=1)
        set_caption(line[3], "R² on fresh coalitions")
        line[3].xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panels[-1, 3].set_xlabel("coalitions of the fit")
    figure.suptitle(title)
    return figure


def _draw_sets(axes: Axes, one: Surrogate, place: np.ndarray) -> None:
    """Draw the sets of one sample, the strongest above the others."""
    value = one.value[0].detach().double().cpu().numpy()
    members, is_or = one.members[0].cpu().numpy(), one.is_or[0].tolist()
    for k in np.abs(value).argsort():
        look = {
            "color": POSITIVE if value[k] > 0 else NEGATIVE,
            "linewidth": 0.4 + 1.8 * abs(value[k]) / np.abs(value).max(),
            "linestyle": "--" if is_or[k] else "-",
        }
        pixels = [np.argwhere(place == player) for player in members[k].nonzero()[0]]
        if len(pixels) == 1:
            (top, left), (bottom, right) = pixels[0].min(0), pixels[0].max(0)
            size = right - left + 1, bottom - top + 1
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), *size, fill=False, **look))
        elif pixels:
            y, x = _around(np.array([one.mean(0) for one in pixels])).T
            axes.plot(x, y, marker="o", markersize=2, **look)


def _around(centres: np.ndarray) -> np.ndarray:
    """Points ``(k, 2)`` in the order of their angle around their mean, the first one again last."""
    offset = centres - centres.mean(0)
    order = np.arctan2(offset[:, 0], offset[:, 1]).argsort()
    return centres[[*order, order[0]]]
