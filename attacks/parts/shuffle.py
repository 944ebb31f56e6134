"""BSR: blocks of the image in another order, each turned by a small angle."""

from __future__ import annotations

import math
from dataclasses import astuple

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.blocks import (
    Cuts,
    blocks_along,
    random_cuts,
    spread,
    spread_both,
)
from interaction_train.errors import in_range, whole


class BlockShuffle(Part):
    """BSR: the image cut into blocks, their rows and columns shuffled, each block turned.

    Wang et al., "Boosting Adversarial Transferability by Block Shuffle and Rotation", CVPR 2024.
    A block turns around its middle; what leaves it is cut off, gaps are 0. All cuts are as likely
    as others, where the released code draws lengths in proportion to uniform numbers; angles are
    uniform, as in the paper (the code has a normal distribution of 0.2 radians).

    Args:
        blocks: along each side.
        angle: the largest one, in degrees; 0 to 180.
        copies: number of copies per step; 20 as published.
    """

    spatial = shared = True

    def __init__(self, blocks: int = 2, angle: float = 24.0, copies: int = 1) -> None:
        whole("blocks", blocks, 1)
        in_range("angle", angle, 0, 180)
        whole("copies", copies, 1)
        self.blocks, self.angle, self.copies = blocks, angle, copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        up = self._shuffled(step, "shuffle rows", copy, rows.shape[3])
        left = self._shuffled(step, "shuffle columns", copy, rows.shape[4])
        unit = 2 * step.draws.uniform("shuffle angles", copy, 1, self.blocks, self.blocks) - 1
        turn = spread_both(unit, up, left)[:, :, 0].to(rows) * math.radians(self.angle)
        # How far each pixel is from the middle of its block, now and where it comes from.
        middle_y, middle_x = ((cuts.length.to(rows) - 1) / 2 for cuts in (up, left))
        middle_y, middle_x = middle_y.unsqueeze(3), middle_x.unsqueeze(2)
        y, x = up.offset.unsqueeze(3) - middle_y, left.offset.unsqueeze(2) - middle_x
        y, x = turn.cos() * y - turn.sin() * x, turn.sin() * y + turn.cos() * x
        inside = (y.abs() <= middle_y + 0.5) & (x.abs() <= middle_x + 0.5)
        y = y.clamp(-middle_y, middle_y) + middle_y + up.start.unsqueeze(3)
        x = x.clamp(-middle_x, middle_x) + middle_x + left.start.unsqueeze(2)
        return sampled(rows, y, x) * inside.unsqueeze(2)

    def _shuffled(self, step: Step, stream: str, copy: Tensor, side: int) -> Cuts:
        """Of each pixel, the block that comes to lie there."""
        blocks = blocks_along(side, self.blocks)
        cuts = random_cuts(step.draws.bits(stream, copy, side - 1), blocks)
        rank = step.draws.bits(f"{stream} order", copy, self.blocks).unsqueeze(3)
        pixels = spread(rank, cuts).squeeze(3).argsort(stable=True, dim=2)
        return Cuts(*(values.gather(2, pixels) for values in astuple(cuts)))


def sampled(rows: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Rows ``(B, k, C, H, W)`` read at places ``(B, k, H, W)`` in pixels, bilinearly; outside 0."""
    height, width = rows.shape[-2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    found = F.grid_sample(rows.flatten(0, 1), grid.flatten(0, 1), align_corners=False)
    return found.view_as(rows)
