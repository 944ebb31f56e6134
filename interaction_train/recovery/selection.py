"""Least squares on a few of many columns, how few being judged by rows held back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_GONE = 1e-8  # of a column's variance: what is left of one that others explain
_EXACT = 1e-16  # of the values' variance: what is left once all is explained
_MORE = 2  # columns that go in before the least useful ones go, per column wanted
_HELD_BACK = 4  # every fourth pair of rows judges
_SURE = 2  # standard errors by which a fit must be better than a constant
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
    rows says for how many the others are predicted best: the fewest that are nearly as good; none
    where chance alone could make them as much better than the constant.

    Args:
        columns: ``(B, m, K)``.
        values: ``(B, m)``.
        allowed: bool ``(B, K)``, the columns to choose from.
        count: K at most.
    """
    columns = columns * allowed.unsqueeze(-2)
    judges = torch.arange(columns.shape[1], device=columns.device) // 2 % _HELD_BACK == 0
    constants, weights, index = _fits(columns[:, ~judges], values[:, ~judges], count)
    own = columns[:, judges].take_along_dim(index.unsqueeze(-2), -1)
    predicted = own @ weights.transpose(-1, -2) + constants.unsqueeze(-2)
    rest = values[:, judges].unsqueeze(-1) - predicted
    errors = rest.square().mean(-2)
    enough = errors.amin(-1) + NEARLY * values.var(-1, correction=0)
    place = (errors <= enough.unsqueeze(-1)).int().argmax(-1)  # the first
    place = place * _no_chance(rest, place)
    constants, weights, index = _fits(columns, values, count)
    rows = torch.arange(len(place), device=place.device)
    return Choice(constants[rows, place], weights[rows, place], index, errors[rows, place])


def _no_chance(rest: Tensor, place: Tensor) -> Tensor:
    """Whether fits err less than a constant by over two standard errors, bool ``(B,)``.

    With d what a fit adds to the constant and r its error, the gain d² + 2dr is by chance what 2dr
    is. Two rows that follow each other count as one: they may be complements, which tell the same.

    Args:
        rest: values less predictions, ``(B, rows, count + 1)``, of the constant first.
        place: which of the fits, ``(B,)``.
    """
    constant, own = rest[..., 0], rest.take_along_dim(place[:, None, None], -1).squeeze(-1)
    chance = 2 * (constant - own) * own
    pairs = F.pad(chance, (0, chance.shape[-1] % 2)).unflatten(-1, (-1, 2)).sum(-1)
    gain = (constant.square() - own.square()).sum(-1)
    return gain > _SURE * pairs.square().sum(-1).sqrt()


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Products of matrices and vectors."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _fits(columns: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Constants ``(B, count + 1)`` and weights of the fits on 0 … count columns, and which.

    With the columns in an order, the factor of their first k is the beginning of that of all
    (G = LLᵀ), so that the weights on them are sums of the first k columns of L⁻ᵀ.
    """
    means, mean = columns.mean(-2), values.mean(-1, keepdim=True)
    centred = columns - means.unsqueeze(-2)
    gram = centred.transpose(-1, -2) @ centred
    right = times(centred.transpose(-1, -2), values - mean)
    most = max(count, columns.shape[-2] // 2)  # as many as rows would leave none to be missed
    rest = (values - mean).square().sum(-1, keepdim=True)
    index, new = _forward(gram, right, rest, min(_MORE * count, most, columns.shape[-1]))
    own, pull = _among(gram, index), right.gather(-1, index) * new
    one = torch.eye(index.shape[-1], dtype=own.dtype, device=own.device)
    own = torch.where(new.unsqueeze(-1) & new.unsqueeze(-2), own, one)
    order = _backward(own, pull)[:, :count]
    index, own, pull = index.gather(-1, order), _among(own, order), pull.gather(-1, order)
    factor = torch.linalg.cholesky(own)
    inverse = torch.linalg.solve_triangular(factor, one[:count, :count], upper=False)
    parts = inverse * times(inverse, pull).unsqueeze(-1)
    weights = F.pad(parts.cumsum(-2), (0, 0, 1, 0))
    return mean - times(weights, means.gather(-1, index)), weights, index


def _among(gram: Tensor, index: Tensor) -> Tensor:
    """The products of some of the columns, by index ``(B, k)``: ``(B, k, k)``."""
    return gram.take_along_dim(index.unsqueeze(-1), -2).take_along_dim(index.unsqueeze(-2), -1)


def _forward(gram: Tensor, right: Tensor, total: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Columns chosen one by one, each for what it explains beside those before, ``(B, count)``.

    And whether those before had left anything of it, and of the values to explain. Orthogonal least
    squares (Chen, Billings & Luo 1989): what is chosen is taken out of the values and of all other
    columns.

    Args:
        gram: products of the centred columns, ``(B, K, K)``.
        right: their products with the values, ``(B, K)``.
        total: that of the centred values with themselves, ``(B, 1)``.
        count: how many, K at most.
    """
    rest, inner = gram.clone(), right.clone()
    least = _GONE * gram.diagonal(dim1=-2, dim2=-1)
    chosen = torch.zeros_like(least, dtype=torch.bool)
    order, new = [], []
    for _ in range(count):
        norms = rest.diagonal(dim1=-2, dim2=-1)
        gain = (inner.square() / norms).masked_fill(norms <= least, -1)
        gain, best = gain.masked_fill(chosen, -2).max(-1, keepdim=True)
        chosen = chosen.scatter(-1, best, True)
        order.append(best)
        new.append(gain > _EXACT * total)
        length = norms.gather(-1, best).sqrt().masked_fill(~new[-1], torch.inf)
        one = rest.take_along_dim(best.unsqueeze(-1), -2).squeeze(-2) / length
        inner = inner - inner.gather(-1, best) / length * one
        rest = torch.baddbmm(rest, one.unsqueeze(-1), one.unsqueeze(-2), alpha=-1)
    return torch.cat(order, -1), torch.cat(new, -1)


def _backward(gram: Tensor, right: Tensor) -> Tensor:
    """k independent columns in an order, ``(B, k)``: from all down, the least useful ones last.

    Removing j costs w_j² / (G⁻¹)_jj; what is left of G⁻¹ and w is that of the others.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights, removed = times(inverse, right), torch.zeros_like(right, dtype=torch.bool)
    order = []
    for _ in range(right.shape[-1]):
        cost = weights.square() / inverse.diagonal(dim1=-2, dim2=-1)
        least = cost.masked_fill(removed, torch.inf).argmin(-1, keepdim=True)
        removed = removed.scatter(-1, least, True)
        order.append(least)
        one = inverse.take_along_dim(least.unsqueeze(-1), -2).squeeze(-2)
        scaled = one / one.gather(-1, least)
        weights = weights - weights.gather(-1, least) * scaled
        inverse = inverse - scaled.unsqueeze(-1) * one.unsqueeze(-2)
    return torch.cat(order[::-1], -1)
