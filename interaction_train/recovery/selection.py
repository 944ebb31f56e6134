"""Least squares on a few of many columns, how few being judged by rows held back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_GONE = 1e-8  # of a column's variance: what is left of one that others explain
_MORE = 2  # columns that go in before the least useful ones go, per column wanted
_HELD_BACK = 4  # every fourth pair of rows judges
NEARLY = 1e-4  # of the variance: what a simpler fit may miss


@dataclass(frozen=True)
class Choice:
    """Least squares on at most ``count`` of K columns, for B samples.

    Attributes:
        constant: ``(B,)``.
        weights: ``(B, k)``, of the columns ``index``; 0 for those that went again.
        index: int64 ``(B, k)``.
        error: ``(B,)``, mean squared error on the rows held back, of a fit to the others.
    """

    constant: Tensor
    weights: Tensor
    index: Tensor
    error: Tensor

    def where(self, own: Tensor, other: Choice) -> Choice:
        """This one for the samples that are ``own``, bool ``(B,)``, elsewhere the other."""
        rows = own.unsqueeze(-1)
        return Choice(
            torch.where(own, self.constant, other.constant),
            torch.where(rows, self.weights, other.weights),
            torch.where(rows, self.index, other.index),
            torch.where(own, self.error, other.error),
        )


def choose(columns: Tensor, values: Tensor, allowed: Tensor, count: int) -> Choice:
    """At most ``count`` columns for a least squares fit with a constant.

    Twice as many go in one by one, then the least useful go one by one. The same on some of the
    rows says for how many the others are predicted best: the fewest that are nearly as good.

    Args:
        columns: ``(B, m, K)``.
        values: ``(B, m)``.
        allowed: bool ``(B, K)``, the columns to choose from.
        count: K at most.
    """
    columns = columns * allowed.unsqueeze(-2)
    judges = torch.arange(columns.shape[1], device=columns.device) // 2 % _HELD_BACK == 0
    constants, weights, index = _fits(columns[:, ~judges], values[:, ~judges], count)
    unseen = columns[:, judges]
    own = unseen.gather(-1, index.unsqueeze(-2).expand(-1, unseen.shape[-2], -1))
    predicted = own @ weights.transpose(-1, -2) + constants.unsqueeze(-2)
    errors = (values[:, judges].unsqueeze(-1) - predicted).square().mean(-2)
    enough = errors.amin(-1) + NEARLY * values.var(-1, correction=0)
    removed = torch.arange(count + 1, device=values.device)
    place = ((errors <= enough.unsqueeze(-1)) * removed).argmax(-1)
    constants, weights, index = _fits(columns, values, count)
    rows = torch.arange(len(place), device=place.device)
    return Choice(constants[rows, place], weights[rows, place], index, errors[rows, place])


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Products of matrices and vectors."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _fits(columns: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Constants ``(B, count + 1)`` and weights of the fits on count … 0 columns, and which."""
    means, mean = columns.mean(-2), values.mean(-1, keepdim=True)
    centred = columns - means.unsqueeze(-2)
    gram = centred.transpose(-1, -2) @ centred
    right = times(centred.transpose(-1, -2), values - mean)
    more = min(_MORE * count, columns.shape[-1])
    index = _forward(gram, right, more)
    rows = gram.gather(-2, index.unsqueeze(-1).expand(-1, -1, gram.shape[-1]))
    own = rows.gather(-1, index.unsqueeze(-2).expand(-1, more, -1))
    weights = _backward(own, right.gather(-1, index))[:, more - count :]
    return mean - times(weights, means.gather(-1, index)), weights, index


def _forward(gram: Tensor, right: Tensor, count: int) -> Tensor:
    """Columns chosen one by one, each for what it explains beside those before, ``(B, count)``.

    Orthogonal least squares (Chen, Billings & Luo 1989): what is chosen is taken out of the values
    and of all other columns.

    Args:
        gram: products of the centred columns, ``(B, K, K)``.
        right: their products with the values, ``(B, K)``.
        count: how many, K at most.
    """
    rest, inner = gram.clone(), right.clone()
    least = _GONE * gram.diagonal(dim1=-2, dim2=-1)
    chosen = torch.zeros_like(least, dtype=torch.bool)
    order = []
    for _ in range(count):
        norms = rest.diagonal(dim1=-2, dim2=-1)
        gain = (inner.square() / norms).masked_fill(norms <= least, -1)
        best = gain.masked_fill(chosen, -2).argmax(-1, keepdim=True)
        chosen = chosen.scatter(-1, best, True)
        order.append(best)
        left = norms.gather(-1, best)
        length = left.sqrt().masked_fill(left <= least.gather(-1, best), torch.inf)  # nothing left
        one = rest.gather(-2, best.unsqueeze(-1).expand(-1, -1, rest.shape[-1])).squeeze(-2)
        one = one / length
        inner = inner - inner.gather(-1, best) / length * one
        rest = torch.baddbmm(rest, one.unsqueeze(-1), one.unsqueeze(-2), alpha=-1)
    return torch.cat(order, -1)


def _backward(gram: Tensor, right: Tensor) -> Tensor:
    """Least squares on ever fewer of k columns, the least useful one going first.

    Weights ``(B, k + 1, k)`` after 0 … k removals. Removing j costs w_j² / (G⁻¹)_jj.
    """
    kept = torch.ones_like(right, dtype=torch.bool)
    weights = []
    for _ in range(right.shape[-1] + 1):
        both = kept.unsqueeze(-1) & kept.unsqueeze(-2)
        inverse = torch.linalg.pinv(gram * both, hermitian=True, rtol=1e-12)
        solved = times(inverse, right * kept) * kept
        weights.append(solved)
        cost = solved.square() / inverse.diagonal(dim1=-2, dim2=-1)
        cost = cost.nan_to_num(0).masked_fill(~kept, torch.inf)
        kept = kept.scatter(-1, cost.argmin(-1, keepdim=True), False)
    return torch.stack(weights, 1)
