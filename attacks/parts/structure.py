"""SIA: blocks of the image, each changed in a random way of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.blocks import (
    Cuts,
    blocks_along,
    filtered,
    low_pass,
    move,
    random_cuts,
    resizing,
    spread,
    spread_both,
)
from interaction_train.errors import InputError, one_of, whole
from interaction_train.sampling.random import to_uniform

CHANGES = (
    "vertical shift",
    "horizontal shift",
    "vertical flip",
    "horizontal flip",
    "rotation",
    "scale",
    "noise",
    "resize",
    "low pass",
    "dropout",
)
"""What can happen to a block."""

_DROPPED = 0.1
_FILTERS = {"resize": resizing, "low pass": low_pass}


class StructureInvariance(Part):
    """SIA: the image cut into blocks at random, each of them changed at random.

    Wang, Zhang and Zhang, "Structure Invariant Transformation for better Adversarial
    Transferability", ICCV 2023. To a block one of ten things happens: its pixels are shifted
    around along one side; or flipped along one, or along both (a rotation by 180°); it is scaled by
    U(0, 1); gets uniform noise of ±ε; is resized to 4/5 and back; loses the highest 2/5 of the
    frequencies of each side (by DCT); or each of its channels is dropped out with probability 0.1.
    Each sample has its own cuts and changes; the released code draws once for a batch, clamps the
    noisy blocks to [0, 1], and empties those of fewer than 3 pixels by its DCT.

    Args:
        blocks: along each side; default: 2, and 3 along sides of more than 64 pixels.
        changes: which to draw from; default: all ten, :data:`CHANGES`.
        copies: number of copies per step, each changed in its own way; 20 as published.
    """

    spatial = shared = True

    def __init__(
        self, blocks: int | None = None, changes: Sequence[str] = CHANGES, copies: int = 1
    ) -> None:
        if isinstance(changes, str) or not changes:
            raise InputError("changes", repr(changes), f"a list of some of {', '.join(CHANGES)}")
        for change in changes:
            one_of("changes", change, CHANGES)
        if blocks is not None:
            whole("blocks", blocks, 1)
        whole("copies", copies, 1)
        self.blocks, self.changes, self.copies = blocks, tuple(changes), copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        channels, height, width = rows.shape[2:]
        counts = blocks_along(height, self.blocks), blocks_along(width, self.blocks)
        # Per block: which change, how much, and for each channel whether it is dropped.
        shape = 2 + channels, *counts
        sizes = height - 1, width - 1, math.prod(shape)
        *keys, bits = step.draws.bits("structure", copy, sum(sizes)).split(sizes, 2)
        up, left = (random_cuts(key, count) for key, count in zip(keys, counts, strict=True))
        draws = to_uniform(bits).unflatten(2, shape)
        kind, amount = (draws[:, :, :1] * len(self.changes)).long(), draws[:, :, 1:2]
        gain = torch.where(self._is(kind, "scale"), amount, 1.0)
        kept = (draws[:, :, 2:] >= _DROPPED) / (1 - _DROPPED)
        gain = torch.where(self._is(kind, "dropout"), kept, gain)
        gain = gain * ~self._is(kind, *_FILTERS)
        added = [change for change in ("noise", *_FILTERS) if change in self.changes]
        shares = [self._is(kind, change) for change in added]
        weights = spread_both(torch.cat([gain, *shares], 2).to(rows), up, left)
        gain, *shares = weights.split([channels, *(1 for _ in added)], 2)
        made = self._moved(rows, kind[:, :, 0], amount[:, :, 0], up, left) * gain
        for change, share in zip(added, shares, strict=True):
            if change == "noise":
                noise = step.noise("structure noise", copy)
                made = torch.addcmul(made, noise, share, value=step.pixel_eps)
            else:
                matrix = _FILTERS[change]
                made = torch.addcmul(
                    made, filtered(rows, matrix(up, rows), matrix(left, rows)), share
                )
        return made

    def _is(self, kind: Tensor, *changes: str) -> Tensor:
        """Where one of these changes was drawn."""
        found = torch.zeros_like(kind, dtype=torch.bool)
        for number, change in enumerate(self.changes):
            if change in changes:
                found |= kind == number
        return found

    def _moved(self, rows: Tensor, kind: Tensor, amount: Tensor, up: Cuts, left: Cuts) -> Tensor:
        """Rows with their blocks shifted and flipped, by ``(B, k, blocks up, blocks left)``."""
        found: list[Tensor] = []
        for direction, cuts, other in (("vertical", up, left), ("horizontal", left, up)):
            flip = self._is(kind, f"{direction} flip", "rotation")
            shift = torch.where(self._is(kind, f"{direction} shift"), amount, 0)
            if direction == "horizontal":
                flip, shift = flip.mT, shift.mT
            offset, start, length = (
                values.unsqueeze(3) for values in (cuts.offset, cuts.start, cuts.length)
            )
            flip, pixels = spread(flip, cuts), (spread(shift, cuts) * length).long()
            place = torch.where(flip, length - 1 - offset, (offset - pixels) % length)
            found.append(spread((start + place).mT, other))
        row, column = found  # that a pixel comes from: of columns × rows, and of rows × columns
        return move(rows, row.mT * rows.shape[4] + column)
