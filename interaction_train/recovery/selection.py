"""Least squares on few of many columns: forward, then backward."""

from __future__ import annotations

import torch
from torch import Tensor

_GONE = 1e-8  # of a column's variance: what is left of one that others explain


def forward(columns: Tensor, values: Tensor, count: int) -> Tensor:
    """Columns chosen one by one, each for what it explains beside those before, ``(B, count)``.

    Orthogonal least squares (Chen, Billings & Luo 1989): what is chosen is taken out of the values
    and of all other columns. The constant is free.

    Args:
        columns: ``(B, m, K)``, K at least ``count``.
        values: ``(B, m)``.
        count: how many.
    """
    rest = columns - columns.mean(-2, keepdim=True)
    residual = values - values.mean(-1, keepdim=True)
    least = _GONE * rest.square().sum(-2)
    chosen = torch.zeros_like(least, dtype=torch.bool)
    order = []
    for _ in range(count):
        norms = rest.square().sum(-2)
        inner = (residual.unsqueeze(-2) @ rest).squeeze(-2)
        gain = (inner.square() / norms.clamp(min=1e-300)).masked_fill(norms <= least, -1)
        best = gain.masked_fill(chosen, -2).argmax(-1, keepdim=True)
        chosen = chosen.scatter(-1, best, True)
        order.append(best)
        one = rest.gather(-1, best.unsqueeze(-2).expand(-1, rest.shape[-2], -1)).squeeze(-1)
        norm = one.square().sum(-1, keepdim=True)
        one = torch.where(norm > least.gather(-1, best), one / norm.clamp(min=1e-300).sqrt(), 0.0)
        residual = residual - (residual * one).sum(-1, keepdim=True) * one
        rest = rest - one.unsqueeze(-1) * (one.unsqueeze(-2) @ rest)
    return torch.cat(order, -1)


def backward(columns: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares on ever fewer of the columns ``(B, m, k)``, the least useful one going first.

    Weights ``(B, k + 1, k + 1)`` after 0 … k removals, the constant first, and which columns are
    left, bool ``(B, k + 1, k)``. Removing j costs w_j² / (G⁻¹)_jj (C3 of the formula sheet).
    """
    design = torch.nn.functional.pad(columns, (1, 0), value=1.0)
    gram, right = design.transpose(-1, -2) @ design, design.transpose(-1, -2) @ values.unsqueeze(-1)
    kept = torch.ones_like(design[:, 0], dtype=torch.bool)
    weights, left = [], []
    for _ in range(design.shape[-1]):
        both = kept.unsqueeze(-1) & kept.unsqueeze(-2)
        inverse = torch.linalg.pinv(gram * both, hermitian=True, rtol=1e-12)
        solved = (inverse @ (right * kept.unsqueeze(-1))).squeeze(-1)
        weights.append(solved)
        left.append(kept[:, 1:])
        cost = solved.square() / inverse.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300)
        cost = cost.masked_fill(~kept, torch.inf)
        cost[:, 0] = torch.inf
        kept = kept.scatter(-1, cost.argmin(-1, keepdim=True), False)
    return torch.stack(weights, 1), torch.stack(left, 1)
