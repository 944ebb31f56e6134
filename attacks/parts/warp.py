"""Smooth random deformations of the image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import in_range, whole
from interaction_train.game.payoffs import margin


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
        whole("points", points, 3)
        in_range("radius", radius, 0, float("inf"), below=True)
        whole("copies", copies, 1)
        self.points, self.radius, self.copies = points, radius, copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        sides = rows.shape[-2:]
        bend, places = (torch.from_numpy(a).to(rows) for a in bending(*sides, self.points))
        unit = 2 * step.draws.uniform("warp", copy, bend.shape[1], 2).to(rows) - 1
        # Of y and x in units of the points' distance; grid_sample has x first, from -1 to 1.
        down, right = (2 * (1 - 1 / side) / (self.points - 1) for side in sides)
        y, x = (unit * self.reach(step)).unbind(3)
        moves = torch.stack([x * right, y * down], 3).flatten(0, 1)
        grid = (bend @ moves).add_(places).unflatten(1, sides)
        found = F.grid_sample(rows.flatten(0, 1), grid, align_corners=False)
        return found.view_as(rows)

    def reach(self, step: Step) -> float | Tensor:
        """How far a control point moves at most, one number or ``(B, 1, 1, 1)``."""
        return self.radius


class AdaptiveWarp(RandomWarp):
    """A :class:`RandomWarp` whose radius grows, per sample, while the source is clearly wrong.

    A strong warp transfers across architectures, and costs success on networks alike the source
    where the bound is tight. So the radius starts at 0; after each step it grows by ``rate`` of
    the whole for samples whose copies the source clearly gets wrong, and shrinks for others.
    Clearly: the margin of the best other logit over the label's (targeted: of the target's over
    the best other) is more than ``need`` times the largest logit less their mean in the first
    step. All that the gradient is taken at counts, masked images too. A network that gives some
    classes logits of −∞, or far below the others, gets no warp. This one is ours, and costs no
    pass.

    Args:
        points: this and ``radius`` as in :class:`RandomWarp`.
        radius: how far a control point moves once the warp is as large as it gets.
        rate: what a step changes, as a share of ``radius``.
        need: the margin above which the source is clearly wrong, in units of that spread.
        copies: number of copies per step, over which the margin is averaged.
    """

    def __init__(
        self,
        points: int = 3,
        radius: float = 0.6,
        rate: float = 0.2,
        need: float = 0.5,
        copies: int = 1,
    ) -> None:
        super().__init__(points, radius, copies)
        in_range("rate", rate, 0, 1)
        in_range("need", need, 0, float("inf"), below=True)
        self.rate, self.need = rate, need

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        step.memory[self]["seen"] = []
        return point

    def reach(self, step: Step) -> float | Tensor:
        share = step.memory[self].get("share")
        return 0.0 if share is None else self.radius * share.view(-1, 1, 1, 1)

    def observe(self, logits: Tensor, step: Step) -> None:
        towards = margin(logits, step.labels.unsqueeze(1).expand(logits.shape[:2]))
        wrong = towards if step.targeted else -towards
        spread = logits.amax(2) - logits.mean(2)
        step.memory[self].setdefault("seen", []).append(torch.stack([wrong, spread]))

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        memory = step.memory[self]
        if seen := memory.pop("seen", None):
            wrong, spread = torch.cat(seen, 2).mean(2)
            grows = wrong > self.need * memory.setdefault("spread", spread)
            change = self.rate * (2 * grows.to(wrong) - 1)
            memory["share"] = (memory.get("share", 0) + change).clamp(0, 1)
        return gradient


@lru_cache(maxsize=8)
def bending(height: int, width: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel moves by inner control points' unit moves, ``(pixels, inner)``.

    Thin plate splines through ``points`` × ``points`` control points on the unit square, of which
    those at the border stay (Bookstein, 1989). Beside it the pixels' places in x and y, from −1 to
    1, ``(pixels, 2)``.
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
    lines = [(2 * np.arange(side) + 1) / side - 1 for side in (width, height)]
    places = np.stack(np.meshgrid(*lines), -1).reshape(-1, 2)
    return (terms(pixels) @ weights).astype(np.float32), places.astype(np.float32)
