"""Greedy merging of nodes by their interactions ψ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

Set = tuple[int, ...]
Pair = tuple[int, int]
Measure = Callable[[list[Set], list[Set]], tuple[Tensor, Tensor]]
"""ψ of P pairs of blocks and its standard errors, ``(P,)`` each."""


@dataclass(frozen=True)
class Merge:
    """A merge of two nodes.

    Attributes:
        parts: the two nodes; the n players come first, then the merges.
        psi: ψ of the two.
        psi_stderr: its standard error.
        density: r, as in :class:`~.tree_nodes.TreeNode`.
        tie: likewise.
        near: Σ|ψ| over the pairs of neighbours before the merge.
        total: over all pairs; NaN where these were not measured.
    """

    parts: Pair
    psi: float
    psi_stderr: float
    density: float
    tie: bool
    near: float
    total: float


def merge_all(
    n: int, measure: Measure, noise: float, *, by_density: bool, adjacent: bool, far: bool
) -> tuple[list[Set], list[Merge]]:
    """Merge n ≥ 2 players into one node: the players of all 2n − 1 nodes, and the n − 1 merges.

    Every pair of nodes is measured once; those that a level adds, in one call. Where scores differ
    by no more than rounding the smallest union is taken, then the first: without interactions the
    tree is balanced.

    Args:
        n: number of players.
        measure: ψ and its errors.
        noise: what rounding may add to a ψ.
        by_density: choose by the density r, or by |ψ|.
        adjacent: merge only neighbours.
        far: measure the other pairs all the same.
    """
    players: list[Set] = [(i,) for i in range(n)]
    level = list(range(n))
    known: dict[Pair, tuple[float, float]] = {}
    merges = []
    for _ in range(n - 1):
        level.sort(key=lambda node: players[node])
        every = list(combinations(level, 2))
        close = [pair for pair in every if _neighbours(*(players[node] for node in pair))]
        candidates = close if adjacent else every
        wanted = every if far else candidates
        if new := [pair for pair in wanted if pair not in known]:
            first, second = ([players[node] for node in side] for side in zip(*new, strict=True))
            found = (part.tolist() for part in measure(first, second))
            known |= zip(new, zip(*found, strict=True), strict=True)
        psi, stderr = torch.tensor([known[pair] for pair in candidates], dtype=torch.float64).T
        size = psi.abs().where(psi.abs() > noise, 0)
        density, slope = _densities(size, candidates)
        score = density if by_density else size
        slope = slope if by_density else torch.eye(len(size), dtype=size.dtype)
        at = int(score.argmax())
        level_with = _within(score, slope, at, torch.full_like(size, noise))
        unions = [len(players[i]) + len(players[j]) for i, j in candidates]
        at = min(level_with, key=lambda k: (unions[k], k))
        rivals = _within(score, slope, at, stderr.clamp(min=noise))
        merges.append(
            Merge(
                parts=candidates[at],
                psi=float(psi[at]),
                psi_stderr=float(stderr[at]),
                density=float(density[at]),
                tie=len(rivals) > 1,
                near=sum(abs(known[pair][0]) for pair in close),
                total=sum(abs(known[pair][0]) for pair in every) if wanted is every else torch.nan,
            )
        )
        i, j = candidates[at]
        level = [node for node in level if node not in (i, j)] + [len(players)]
        players.append(tuple(sorted(players[i] + players[j])))
    return players, merges


def _neighbours(a: Set, b: Set) -> bool:
    """Whether a player of one set stands next to a player of the other."""
    return any(i + step in b for i in a for step in (-1, 1))


def _densities(size: Tensor, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    """r = |ψ| / Σ|ψ| over the pairs that share a node with one, itself included; and its slopes.

    Of neighbours these are the pair and those to its left and right. ``(P,)``, and ``(P, P)`` by
    the |ψ| of all pairs.
    """
    ends = torch.tensor(pairs)
    touch = (ends[:, None, :, None] == ends[None, :, None, :]).any(-1).any(-1).to(size)
    around = touch @ size
    scale = torch.where(around > 0, 1 / around, 0)
    density = size * scale
    slope = scale.diag() - (density * scale).unsqueeze(1) * touch
    return density, slope


def _within(score: Tensor, slope: Tensor, at: int, errors: Tensor) -> list[int]:
    """Which pairs come within two errors of the score of one; errors of ψ are independent."""
    gap = ((slope - slope[at]).square() @ errors.square()).sqrt()
    return ((score[at] - score) <= 2 * gap).nonzero().flatten().tolist()
