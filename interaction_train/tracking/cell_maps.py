"""The figure of numbers of image cells, one map beside the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.tracking.figures import new_panels, set_caption, show_image
from interaction_train.tracking.style import SEQUENTIAL, SIGNED, styled

_PANEL = 0.95  # inches
_LETTERS = 13  # of a map's name in a line


@styled()
def cell_maps_figure(
    images: Tensor,
    cells: Tensor,
    maps: Mapping[str, Tensor],
    rows: Sequence[str],
    title: str,
    *,
    signed: bool = True,
) -> Figure:
    """Images, one a row, and beside each its maps: what every cell has.

    Colours go up to the largest absolute value of a map on an image, written above it, as maps
    differ in scale; from its opposite, or from 0 where values are not signed.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], of one or three channels.
        cells: ``(H, W)`` int64, the player of each pixel.
        maps: name → ``(B, n)``.
        rows: what is written beside each image.
        title: of the figure.
        signed: False for values that are at least 0.

    Raises:
        InputError: images of another shape, or rows or maps that are not theirs.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise InputError("images", f"shape {tuple(images.shape)}", "(B, 1 or 3, H, W)")
    names, lines, count = list(maps), len(images), int(cells.max()) + 1
    if len(rows) != lines:
        raise InputError("rows", f"{len(rows)} texts", f"one for each of {lines} images")
    for name, numbers in maps.items():
        if numbers.dim() != 2 or len(numbers) != lines or numbers.shape[1] < count:
            expected = f"({lines}, n) for cells 0 to {count - 1}"
            raise InputError("maps", f"{name!r} {tuple(numbers.shape)}", expected)
    width, height = _PANEL * (1 + len(names)), 0.7 + 1.2 * _PANEL * lines
    figure, panels = new_panels(lines, 1 + len(names), width, height)
    place = cells.cpu().numpy()
    colours = SIGNED if signed else SEQUENTIAL
    for b, (image, line) in enumerate(zip(images, panels, strict=True)):
        show_image(line[0], image, rows[b])
        for axes, name in zip(line[1:], names, strict=True):
            values = maps[name][b].detach().double().cpu().numpy()
            limit = float(np.nan_to_num(np.abs(values)).max()) or 1.0
            axes.imshow(values[place], cmap=colours, vmin=-limit if signed else 0, vmax=limit)
            axes.set_axis_off()
            above = fill(name.replace("_", " "), _LETTERS) + "\n" if b == 0 else ""
            scale = f"±{limit:.2g}" if signed else f"0 to {limit:.2g}"
            set_caption(axes, above + scale)
    figure.suptitle(title)
    return figure
