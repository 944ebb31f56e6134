"""What a revision may change: a few colour settings per cell, or every pixel."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torchvision.transforms.v2 import functional as F

from interaction_train.errors import InputError
from interaction_train.game.players import Players

Kind = Literal["colour", "pixels"]

LIMITS = {"sharpness": 1.0, "brightness": 0.5, "saturation": 0.5, "hue": 0.1}
"""How far each may go: factors from 1 − limit to 1 + limit, and the hue as a part of its circle."""

_LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in the grey that saturation starts from


class PixelChange:
    """Every pixel is free in [0, 1]; ``start`` are the images themselves, as parameters."""

    low, high = 0.0, 1.0

    def __init__(self, x: Tensor, players: Players) -> None:
        self.start = x

    def images(self, parameters: Tensor) -> Tensor:
        """The parameters."""
        return parameters


class ColourChange:
    """Sharpness and brightness of each cell, of colour images saturation and hue too.

    Parameters are ``(B, n, settings)`` in [``low``, ``high``]; at ``start`` nothing changes.

    A cell's pixels change by its own parameters alone, which are parts of :data:`LIMITS`. Factors
    do what torchvision's ``adjust_sharpness``, ``adjust_brightness`` and ``adjust_saturation`` do,
    but differentiably and cell by cell; the hue turns about the grey axis.

    Args:
        x: images ``(B, C, H, W)`` of one or three channels.
        players: whose cells they are.

    Raises:
        InputError: other images, or players that are no regions of them.
    """

    low, high = -1.0, 1.0

    def __init__(self, x: Tensor, players: Players) -> None:
        self.colours = x.dim() == 4 and x.shape[1] == 3
        if not self.colours and (x.dim() != 4 or x.shape[1] != 1):
            raise InputError("x", f"shape {tuple(x.shape)}", "images (B, 1 or 3, H, W)")
        cells = players.cells(x.shape[1:], x.device)
        if cells is None:
            raise InputError("players", type(players).__name__, "regions of an image, as a grid's")
        self.x, self.cells = x, cells.flatten(-2).expand(len(x), -1)
        self.detail = x - F.adjust_sharpness(x, 0.0)
        limits = list(LIMITS.values())[: 4 if self.colours else 2]
        self.limits = x.new_tensor(limits)
        self.start = x.new_zeros(len(x), players.count(x.shape[1:]), len(limits))

    def images(self, parameters: Tensor) -> Tensor:
        """The images ``(B, C, H, W)`` in [0, 1], differentiable in the parameters."""
        chosen = parameters.gather(1, self.cells.unsqueeze(-1).expand(-1, -1, len(self.limits)))
        size = self.x.shape[-2:]
        settings = (chosen * self.limits).movedim(-1, 0).unflatten(-1, size).unsqueeze(2)
        sharpness, brightness, *colour = settings.unbind()
        image = self.x + sharpness * self.detail
        if self.colours:
            saturation, hue = colour
            image = turned(saturated(image, saturation), hue)
        return ((1 + brightness) * image).clamp(0, 1)


def saturated(image: Tensor, more: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)`` whose distance to grey grows by a part ``(B, 1, H, W)``."""
    grey = (image * image.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    return image + more * (image - grey)


def turned(image: Tensor, hue: Tensor) -> Tensor:
    """Images with their hue moved on by a part ``(B, 1, H, W)`` of its circle.

    A rotation about the grey axis, smooth also at grey, where HSV's hue jumps; a third of the
    circle makes red green, green blue and blue red.
    """
    angle, grey = 2 * math.pi * hue, image.mean(1, keepdim=True)
    across = (image.roll(1, 1) - image.roll(-1, 1)) / math.sqrt(3)
    return image + (angle.cos() - 1) * (image - grey) + angle.sin() * across


CHANGES: dict[Kind, type[PixelChange | ColourChange]] = {
    "colour": ColourChange,
    "pixels": PixelChange,
}
