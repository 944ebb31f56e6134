"""The figure of several methods' attributions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.tracking.figures import new_panels, show_image
from interaction_train.tracking.style import SIGNED, styled

_PANEL = 0.95  # inches
_LETTERS = 13  # of a method's name in a line


@styled()
def attributions_figure(
    images: Tensor,
    cells: Tensor,
    attributions: Mapping[str, Tensor],
    rows: Sequence[str],
    title: str,
) -> Figure:
    """Images, one a row, and beside each what every method gives to its cells.

    Colours go up to the largest |a_i| of a method on an image, written above it, as methods differ
    in scale.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], of one or three channels.
        cells: ``(H, W)`` int64, the player of each pixel.
        attributions: method → ``(B, n)``.
        rows: what is written beside each image.
        title: of the figure.

    Raises:
        InputError: images of another shape.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError("images", f"shape {tuple(images.shape)}", "(B, 1 or 3, H, W)")
    methods, lines = list(attributions), len(images)
    width, height = _PANEL * (1 + len(methods)), 0.7 + 1.2 * _PANEL * lines
    figure, panels = new_panels(lines, 1 + len(methods), width, height)
    place = cells.cpu().numpy()
    for b, (image, line) in enumerate(zip(images, panels, strict=True)):
        show_image(line[0], image.detach().float().cpu().movedim(0, -1).numpy(), rows[b])
        for axes, method in zip(line[1:], methods, strict=True):
            values = attributions[method][b].detach().double().cpu().numpy()
            limit = float(np.abs(values).max()) or 1.0
            axes.imshow(values[place], cmap=SIGNED, vmin=-limit, vmax=limit)
            axes.set_axis_off()
            name = fill(method.replace("_", " "), _LETTERS) + "\n" if b == 0 else ""
            axes.set_title(f"{name}±{limit:.2g}", fontsize=7, loc="center", pad=3)
    figure.suptitle(title)
    return figure
