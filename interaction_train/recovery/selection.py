"""Least squares on few of many columns: in and out, one at a time."""

from __future__ import annotations

import torch
from torch import Tensor

_GONE = 1e-8  # of a column's variance: what is left of one that others explain
_ROUNDS = 3  # in which columns go in and the least useful go


def select(gram: Tensor, right: Tensor, credit: Tensor, count: int, more: int) -> Tensor:
    """Columns for a least squares fit, ``(B, more)``; the last ones are the latest to come.

    Forward and backward in turns: what was useful only before others came goes again.

    Args:
        gram: products of the centred columns, ``(B, K, K)``, K at least ``more``.
        right: their products with the values, ``(B, K)``.
        credit: ``(B, K)``, what the squared error that a column explains counts.
        count: how many stay after a round.
        more: how many are in before the least useful go.
    """
    index = forward(gram, right, credit, more)
    for _ in range(_ROUNDS - 1):
        _, left = backward(*picked(gram, right, index))
        kept = left[:, more - count].int().argsort(dim=-1, descending=True, stable=True)
        first = index.gather(-1, kept[:, :count])
        index = forward(gram, right, credit, more, first)
    return index


def forward(
    gram: Tensor, right: Tensor, credit: Tensor, count: int, first: Tensor | None = None
) -> Tensor:
    """Columns chosen one by one, each for what it explains beside those before, ``(B, count)``.

    Orthogonal least squares (Chen, Billings & Luo 1989): what is chosen is taken out of the values
    and of all other columns. ``first``, ``(B, k)``, are in from the start.
    """
    rest, inner = gram.clone(), right.clone()
    least = _GONE * gram.diagonal(dim1=-2, dim2=-1)
    order: list[Tensor] = []
    for step in range(count):
        norms = rest.diagonal(dim1=-2, dim2=-1)
        gain = credit * inner.square() / norms.clamp(min=1e-300)
        gain = gain.masked_fill(norms <= least, -1)
        if order:
            gain = gain.scatter(-1, torch.cat(order, -1), -2)
        best = gain.argmax(-1, keepdim=True)
        if first is not None and step < first.shape[-1]:
            best = first[:, step : step + 1]
        order.append(best)
        norm = norms.gather(-1, best)
        one = rest.gather(-2, best.unsqueeze(-1).expand(-1, -1, rest.shape[-1])).squeeze(-2)
        one = torch.where(norm > least.gather(-1, best), one / norm.clamp(min=1e-300).sqrt(), 0.0)
        share = inner.gather(-1, best) / norm.clamp(min=1e-300).sqrt()
        inner = inner - share * one
        rest = torch.baddbmm(rest, one.unsqueeze(-1), one.unsqueeze(-2), alpha=-1)
    return torch.cat(order, -1)


def backward(gram: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares on ever fewer of k columns, the least useful one going first.

    Weights ``(B, k + 1, k)`` after 0 … k removals, and which columns are left, bool
    ``(B, k + 1, k)``. Removing j costs w_j² / (G⁻¹)_jj.
    """
    kept = torch.ones_like(right, dtype=torch.bool)
    weights, left = [], []
    for _ in range(right.shape[-1] + 1):
        both = kept.unsqueeze(-1) & kept.unsqueeze(-2)
        inverse = torch.linalg.pinv(gram * both, hermitian=True, rtol=1e-12)
        solved = (inverse @ (right * kept).unsqueeze(-1)).squeeze(-1)
        weights.append(solved)
        left.append(kept)
        cost = solved.square() / inverse.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300)
        cost = cost.masked_fill(~kept, torch.inf)
        kept = kept.scatter(-1, cost.argmin(-1, keepdim=True), False)
    return torch.stack(weights, 1), torch.stack(left, 1)


def picked(gram: Tensor, right: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Gram matrix and right side of some columns ``(B, k)``."""
    rows = gram.gather(-2, index.unsqueeze(-1).expand(-1, -1, gram.shape[-1]))
    own = rows.gather(-1, index.unsqueeze(-2).expand(-1, index.shape[-1], -1))
    return own, right.gather(-1, index)
