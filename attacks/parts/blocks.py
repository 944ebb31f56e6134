"""Images cut into blocks at random: the cuts, and what is linear in a block's pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.sampling import coalitions

_LARGE = 64  # pixels of a side, above which three blocks suit it as they do 224, not two as 32


@dataclass
class Cuts:
    """A side of images in blocks: of each of its pixels, ``(B, k, pixels)`` int64."""

    block: Tensor  # the number of its block
    start: Tensor  # that block's first pixel
    length: Tensor  # and how many it has
    offset: Tensor  # the pixel's place in it


def blocks_along(side: int, blocks: int | None) -> int:
    """Blocks along a side of so many pixels; None: as many as suit it."""
    count = (3 if side > _LARGE else min(2, side)) if blocks is None else blocks
    if count > side:
        raise InputError(
            "blocks", f"{count} along a side of {side} pixels", "at most one per pixel"
        )
    return count


def random_cuts(keys: Tensor, count: int) -> Cuts:
    """A side cut into ``count`` blocks, each way to do so as likely as any other.

    Args:
        keys: random bits ``(B, k, pixels - 1)`` int64, of all places for a cut.
        count: of blocks.
    """
    begins = F.pad(coalitions.uniform(keys, count - 1), (1, 0))
    pixels = torch.arange(begins.shape[2], device=keys.device)
    start = torch.where(begins, pixels, 0).cummax(2).values
    # A pixel's block ends where the first one begins of those behind the pixel.
    after = torch.where(begins, pixels, len(pixels)).flip(2).cummin(2).values.flip(2)
    after = F.pad(after[..., 1:], (0, 1), value=len(pixels))
    return Cuts(begins.cumsum(2), start, after - start, pixels - start)


def spread(values: Tensor, cuts: Cuts) -> Tensor:
    """Values of blocks, ``(B, k, blocks, n)`` → those of their pixels, ``(B, k, pixels, n)``."""
    return values.gather(2, cuts.block.unsqueeze(3).expand(-1, -1, -1, values.shape[3]))


def spread_both(values: Tensor, up: Cuts, left: Cuts) -> Tensor:
    """Values ``(B, k, n, blocks up, blocks left)`` → ``(B, k, n, H, W)``."""
    cells = up.block.unsqueeze(3) * values.shape[4] + left.block.unsqueeze(2)
    index = cells.flatten(2).unsqueeze(2).expand(-1, -1, values.shape[2], -1)
    return values.flatten(3).gather(3, index).unflatten(3, cells.shape[2:])


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return rows.flatten(3).gather(3, index).view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Back.apply(gradients[0], *ctx.saved_tensors), None


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, moved: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        flat = moved.flatten(3)
        return torch.empty_like(flat).scatter_(3, index, flat).view_as(moved)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Move.apply(gradients[0], *ctx.saved_tensors), None


def move(rows: Tensor, source: Tensor) -> Tensor:
    """Permute the pixels of rows ``(B, k, C, H, W)``.

    The gradient is permuted back: faster than a sum over where it came from, and no race.

    Args:
        rows: what is permuted.
        source: which pixel each one shows, counted line by line, ``(B, k, H, W)`` int64; every
            pixel once.
    """
    index = source.flatten(2).unsqueeze(2).expand(-1, -1, rows.shape[2], -1)
    moved: Tensor = _Move.apply(rows, index)
    return moved


def filtered(rows: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Rows ``(B, k, C, H, W)`` with a matrix applied to each side, ``(B, k, pixels, pixels)``."""
    # Two products of plain batches of matrices: torch.matmul would copy a matrix per channel.
    across = (rows.flatten(2, 3) @ horizontal.mT).view_as(rows)
    turned = across.mT.flatten(2, 3) @ vertical.mT
    return turned.view(*rows.shape[:3], rows.shape[4], rows.shape[3]).mT


def low_pass(cuts: Cuts, like: Tensor) -> Tensor:
    """Matrices ``(B, k, pixels, pixels)`` that take 2/5 of its frequencies from every block.

    The highest ones of its orthonormal DCT: fewer than 3 pixels keep all.
    """
    # Frequencies have the places of a block's pixels, from the lowest on.
    order, length = cuts.offset.unsqueeze(3), cuts.length.unsqueeze(3)
    kept = order < length - 2 * length // 5
    size = (((1 + (order > 0)) * kept).to(like) / length).sqrt()
    # In quarters of a turn by 1 / length: whole numbers keep large angles exact.
    angle = order * (2 * cuts.offset.unsqueeze(2) + 1) % (4 * length)
    wave = (angle.to(like) * (math.pi / 2 / length)).cos_() * size
    wave = wave * (cuts.block.unsqueeze(3) == cuts.block.unsqueeze(2))
    return wave.mT @ wave


def resizing(cuts: Cuts, like: Tensor) -> Tensor:
    """Matrices ``(B, k, pixels, pixels)``: every block to 4/5 of its pixels + 1, and back."""
    small = (4 * cuts.length // 5 + 1).minimum(cuts.length)
    offset = cuts.offset.to(like)

    def bilinear(new: Tensor, old: Tensor) -> Tensor:
        # Centres of new pixels among the old ones, kept inside the block: others have no weight.
        place = ((offset + 0.5) * old / new - 0.5).clamp(min=0).minimum(old - 1) + cuts.start
        pixels = torch.arange(place.shape[2], device=place.device)
        return (1 - (place.unsqueeze(3) - pixels).abs_()).clamp_(min=0)

    return bilinear(cuts.length, small) @ bilinear(small, cuts.length)
