"""The figure of several methods' attributions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.tracking.figures import new_panels, show_image
from interaction_train.tracking.style import SIGNED, styled


@styled()
def attributions_figure(
    images: Tensor,
    cells: Tensor,
    attributions: Mapping[str, Tensor],
    rows: Sequence[str],
    title: str,
) -> Figure:
    """Images, one a row, and beside each what every method gives to its cells.

    Colours are relative to the largest |a_i| of a method on an image, as methods differ in scale.

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
    count, methods = len(images), list(attributions)
    size = 1.25
    figure, panels = new_panels(
        count, 1 + len(methods), size * (1 + len(methods)), 0.5 + 1.35 * size * count
    )
    place = cells.cpu().numpy()
    for b, (image, line) in enumerate(zip(images, panels, strict=True)):
        show_image(line[0], image.detach().float().cpu().movedim(0, -1).numpy(), rows[b])
        for axes, method in zip(line[1:], methods, strict=True):
            values = attributions[method][b].detach().double().cpu().numpy()
            limit = float(np.abs(values).max()) or 1.0
            axes.imshow(values[place], cmap=SIGNED, vmin=-limit, vmax=limit)
            axes.set_axis_off()
            words = method.replace("_", " ")
            axes.set_title(f"{words}\n±{limit:.2g}", fontsize=7, loc="center", pad=3)
    figure.suptitle(title)
    return figure
