"""Textures, outlines and digits made by code, whose kind is known by construction.

A texture looks alike wherever it is seen: gratings, dots and noise without a place of their own. A
shape is one outline, or a handwritten digit, somewhere in the image. All have the same mean and
contrast, dark on bright as often as bright on dark, and a little noise, so that no pixel alone, and
not the brightness, says which class it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

SIDE = 18
TEXTURES = ("gratings", "dots", "noise")
OUTLINES = ("circle", "square", "triangle")
DIGITS = ("digit 3", "digit 5", "digit 8")
CLASSES = TEXTURES + OUTLINES + DIGITS
KINDS = {"textures": TEXTURES, "outlines": OUTLINES, "digits": DIGITS}
_CONTRAST, _GRAIN = 0.14, 0.02  # standard deviations, of an image and of the noise on it
_TRAINING = 2 / 3  # of the handwritten digits


class Stimuli(NamedTuple):
    """Images ``(B, 1, 18, 18)`` in [0, 1], classes ``(B,)``, and radii of outlines, else NaN."""

    x: Tensor
    y: Tensor
    size: Tensor


def stimuli(count: int, seed: int, training: bool) -> Stimuli:
    """``count`` images of every class; the digits of training and test are different ones."""
    draw = torch.Generator().manual_seed(2 * seed + training)
    none = torch.full((count,), math.nan)
    parts = [gratings(count, draw), dots(count, draw), noise(count, draw)]
    sizes = [none] * len(parts)
    for corners in (0, 4, 3):
        radius = _between(count, draw, 3.5, 7.5)
        parts.append(outlines(radius, corners, draw))
        sizes.append(radius)
    for name in DIGITS:
        parts.append(digits(count, int(name.split()[1]), draw, training))
        sizes.append(none)
    y = torch.arange(len(CLASSES)).repeat_interleave(count)
    return Stimuli(_alike(torch.cat(parts), draw), y, torch.cat(sizes))


def gratings(count: int, draw: torch.Generator) -> Tensor:
    """Sine waves of any direction and phase, with periods of 3 to 6 pixels."""
    row, column = _grid()
    angle, phase = (_between(count, draw, 0, turn * math.pi) for turn in (1, 2))
    rate = 2 * math.pi / _between(count, draw, 3, 6)
    along = angle.cos()[:, None, None] * row + angle.sin()[:, None, None] * column
    return (rate[:, None, None] * along + phase[:, None, None]).sin()


def dots(count: int, draw: torch.Generator) -> Tensor:
    """Discs of 1.3 pixels in radius, each at a random place of its own cell of 4 to 5 pixels."""
    row, column = _grid()
    number = SIDE // 4
    corner = torch.arange(number) * SIDE / number
    shift = _between(2 * count * number**2, draw, 0, SIDE / number).view(2, count, number, number)
    down, across = shift[0] + corner[:, None], shift[1] + corner
    down, across = (place.flatten(1)[..., None, None] for place in (down, across))
    far = ((row - down).square() + (column - across).square()).sqrt()
    return (2 * (1.8 - far)).clamp(0, 1).amax(1)


def noise(count: int, draw: torch.Generator) -> Tensor:
    """White noise, of grains of two pixels."""
    white = torch.randn(count, 1, SIDE + 1, SIDE + 1, generator=draw)
    return avg_pool2d(white, 2, stride=1)[:, 0]


def outlines(radius: Tensor, corners: int, draw: torch.Generator) -> Tensor:
    """A circle (0 corners) or a regular polygon of radii ``(B,)``, anywhere, turned at will."""
    count = len(radius)
    row, column = _grid()
    room = (SIDE / 2 - 1 - radius).clamp(min=0)
    down, across = ((SIDE - 1) / 2 + room * _between(count, draw, -1, 1) for _ in range(2))
    y, x = row - down[:, None, None], column - across[:, None, None]
    far = (y.square() + x.square()).sqrt()
    if corners:
        sector = 2 * math.pi / corners
        turned = torch.atan2(y, x) + _between(count, draw, 0, sector)[:, None, None]
        inside = turned.remainder(sector) - sector / 2
        far = far * inside.cos() / math.cos(sector / 2)  # of the side, in radii of the corners
    return (1.5 - (far - radius[:, None, None]).abs()).clamp(0, 1)


def digits(count: int, label: int, draw: torch.Generator, training: bool) -> Tensor:
    """Handwritten ones (scikit-learn's), enlarged to 12 to 18 pixels, anywhere."""
    source = load_digits()
    found = torch.tensor(source.images[source.target == label], dtype=torch.float32) / 16
    part = round(_TRAINING * len(found))
    found = found[:part] if training else found[part:]
    chosen = torch.randint(len(found), (count,), generator=draw)
    result = torch.zeros(count, SIDE, SIDE)
    for k, side in enumerate(torch.randint(12, SIDE + 1, (count,), generator=draw).tolist()):
        top, left = torch.randint(SIDE - side + 1, (2,), generator=draw).tolist()
        large = interpolate(found[chosen[k]][None, None], (side, side), mode="bilinear")[0, 0]
        result[k, top : top + side, left : left + side] = large
    return result


def _alike(x: Tensor, draw: torch.Generator) -> Tensor:
    """Images ``(B, 1, H, W)`` of the same mean and contrast, either way round, with some noise."""
    x = x - x.mean((1, 2), keepdim=True)
    way = 2 * torch.randint(2, (len(x), 1, 1), generator=draw) - 1
    x = 0.5 + way * _CONTRAST * x / x.std((1, 2), keepdim=True)
    x = x + _GRAIN * torch.randn(x.shape, generator=draw)
    return x.clamp(0, 1).unsqueeze(1)


def _grid() -> tuple[Tensor, Tensor]:
    """Rows ``(H, 1)`` and columns ``(1, W)`` of the pixels."""
    places = torch.arange(float(SIDE))
    return places[:, None], places[None]


def _between(count: int, draw: torch.Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=draw)
