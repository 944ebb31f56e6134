"""Smooth random deformations of the image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import at_least


class RandomWarp(Part):
    """The image bent by moving control points at random, between them by thin plate splines.

    The random warp of DeCowA (Lin et al., "Boosting Adversarial Transferability across Model Genus
    by Deformation-Constrained Warping", AAAI 2024) without the gradient step on it, for which
    every copy would cost a second pass; the authors' step is 0.01 times the loss's gradient.
    Points at the border stay where they are. What comes from outside of the image is 0.

    Args:
        points: control points along each side, at equal distances from border to border.
        radius: how far one moves along each side at most, in units of their distance.
        copies: number of copies per step, each bent in its own way; 20 as published.
    """

    spatial = shared = True

    def __init__(self, points: int = 3, radius: float = 1.0, copies: int = 1) -> None:
        at_least("points", points, 3)
        at_least("radius", radius, 0)
        at_least("copies", copies, 1)
        self.points, self.radius, self.copies = points, radius, copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        height, width = rows.shape[-2:]
        bend = torch.from_numpy(bending(height, width, self.points)).to(rows)
        count = bend.shape[1]
        unit = 2 * step.draws.uniform("warp", copy, count, 2).to(rows) - 1
        moved = (bend @ unit) * self.radius / (self.points - 1)
        y, x = moved.unflatten(2, (height, width)).unbind(4)
        y = y * (height - 1) + torch.arange(height, device=rows.device).unsqueeze(1)
        x = x * (width - 1) + torch.arange(width, device=rows.device)
        return sampled(rows, y, x)


@lru_cache(maxsize=8)
def bending(height: int, width: int, points: int) -> np.ndarray:
    """How far each pixel moves by inner control points' unit moves, ``(pixels, inner)`` float32.

    Thin plate splines through ``points`` × ``points`` control points on the unit square, of which
    those at the border stay (Bookstein, 1989).
    """
    line = np.linspace(0, 1, points)
    controls = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    sides = (np.linspace(0, 1, side) for side in (height, width))
    pixels = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)

    def terms(places: np.ndarray) -> np.ndarray:
        square = ((places[:, None] - controls) ** 2).sum(2)
        kernel = square * np.log(np.where(square == 0, 1, square))
        return np.concatenate([kernel, np.ones((len(places), 1)), places], 1)

    # The kernels' weights carry no plane: they are orthogonal to the terms 1, y and x.
    at_controls = terms(controls)
    flat = np.concatenate([at_controls[:, len(controls) :].T, np.zeros((3, 3))], 1)
    inner = ((controls > 0) & (controls < 1)).all(1)
    wanted = np.eye(len(controls) + 3)[:, : len(controls)][:, inner]
    weights = np.linalg.solve(np.concatenate([at_controls, flat]), wanted)
    return (terms(pixels) @ weights).astype(np.float32)


def sampled(rows: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Rows ``(B, k, C, H, W)`` read at places ``(B, k, H, W)`` in pixels, bilinearly; outside 0."""
    height, width = rows.shape[-2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    found = F.grid_sample(rows.flatten(0, 1), grid.flatten(0, 1), align_corners=False)
    return found.view_as(rows)
