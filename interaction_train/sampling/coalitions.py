"""Samplers of coalitions, without loops or host syncs.

``keys`` are random int64 ``(..., n)``, one per player (:meth:`Draws.bits`). What fixes a size ranks
them, which the high bits decide; :func:`bernoulli` reads the low 24 bits. So one key serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.sampling.random import to_uniform


def uniform(keys: Tensor, size: int) -> Tensor:
    """Coalitions uniform over those of a given size, 0 … n; bool ``(..., n)``."""
    if not 0 <= size <= keys.shape[-1]:
        raise InputError("size", size, f"between 0 and the {keys.shape[-1]} players")
    if size == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    return keys <= keys.topk(size, largest=False).values[..., -1:]


def bernoulli(keys: Tensor, keep: float | Tensor) -> Tensor:
    """Coalitions that keep each player independently with probability ``keep``, bool ``(..., n)``.

    A tensor broadcasts to ``(..., n)``. With one from U(0, 1) per coalition, contexts have the
    weights of Shapley interactions (survey, Eq. 5).
    """
    return to_uniform(keys) < keep


def disjoint_groups(keys: Tensor, sizes: Sequence[int]) -> Tensor:
    """Disjoint groups of players of given sizes, uniform over all such choices.

    int64 ``(..., n)``: each player's group, or len(sizes) for those in none. Sizes are at least 1,
    together at most n.

    Examples:
        >>> keys = torch.tensor([[40, 10, 30, 20]])
        >>> disjoint_groups(keys, [1, 2])  # group 0, group 1, and 2 for the player left over
        tensor([[2, 0, 1, 1]])
    """
    n, total = keys.shape[-1], sum(sizes)
    if not sizes or min(sizes) < 1 or total > n:
        raise InputError("sizes", tuple(sizes), f"sizes of at least 1, at most {n} in all")
    lowest, group = keys, torch.zeros_like(keys)
    for size in reversed(list(accumulate(sizes))):  # the largest of the lowest, never all in order
        lowest = lowest.topk(size, largest=False, sorted=False).values
        group += keys > lowest.amax(-1, keepdim=True)
    return group
