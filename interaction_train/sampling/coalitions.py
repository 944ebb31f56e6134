"""Samplers of coalitions: tensor operations on random keys, without loops or host syncs.

``keys`` are random int64 of shape ``(..., n)``, one per player (:meth:`Draws.bits`). Samplers that
fix a size rank the keys, which the high bits decide; :func:`bernoulli` reads the low 24 bits. The
two are independent, so one key per player serves both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.sampling.random import to_uniform


def _check_size(name: str, size: int, n: int) -> None:
    if not 0 <= size <= n:
        raise InputError(name, size, f"between 0 and the {n} players")


def uniform(keys: Tensor, size: int | Tensor) -> Tensor:
    """Coalitions uniform over those of a given size.

    Args:
        keys: random int64 ``(..., n)``.
        size: one size for all, or an integer tensor that broadcasts to ``(...)``.

    Returns:
        bool ``(..., n)``.

    Raises:
        InputError: an integer ``size`` outside 0 … n (tensors are not read back to be checked).
    """
    n = keys.shape[-1]
    if isinstance(size, int):
        _check_size("size", size, n)
        if size == 0:
            return torch.zeros_like(keys, dtype=torch.bool)
        return keys <= keys.topk(size, largest=False).values[..., -1:]
    size = size.to(keys.device, torch.int64).expand(keys.shape[:-1]).unsqueeze(-1)
    threshold = keys.sort(-1).values.gather(-1, (size - 1).clamp(0, n - 1))
    return (keys <= threshold) & (size > 0)


def bernoulli(keys: Tensor, keep: float | Tensor) -> Tensor:
    """Coalitions that keep each player independently with probability ``keep``.

    Args:
        keys: random int64 ``(..., n)``.
        keep: a probability, or a float tensor that broadcasts to ``(..., n)``. Drawn from U(0, 1)
            per coalition, the contexts have the weights of the Shapley interaction index
            (survey, Eq. 5).
    """
    return to_uniform(keys) < keep


def nested(keys: Tensor, small: int | Tensor, large: int | Tensor) -> tuple[Tensor, Tensor]:
    """Two coalitions S1 ⊆ S2 of given sizes out of one permutation per row.

    Returns:
        bool ``(..., n)`` twice, of size ``small`` and of size ``large``.

    Raises:
        InputError: ``small`` exceeds ``large`` or either lies outside 0 … n (integers only).

    Examples:
        >>> keys = torch.tensor([[40, 10, 30, 20]])
        >>> small, large = nested(keys, 1, 3)
        >>> small.int().tolist(), large.int().tolist()
        ([[0, 1, 0, 0]], [[0, 1, 1, 1]])
    """
    if isinstance(small, int) and isinstance(large, int) and small > large:
        raise InputError("small", small, f"at most large = {large}")
    return uniform(keys, small), uniform(keys, large)


def disjoint_groups(keys: Tensor, sizes: Sequence[int]) -> Tensor:
    """Disjoint groups of players of given sizes, uniform over all such choices.

    Args:
        keys: random int64 ``(..., n)``.
        sizes: the size of each group, at least 1; together at most n.

    Returns:
        int64 ``(..., n)``: the player's group 0 … len(sizes) − 1, or len(sizes) for the players in
        no group, from which contexts are drawn.

    Raises:
        InputError: a size below 1, or more players in groups than there are.

    Examples:
        >>> keys = torch.tensor([[40, 10, 30, 20]])
        >>> disjoint_groups(keys, [1, 2])  # group 0, group 1, and 2 for the player left over
        tensor([[2, 0, 1, 1]])
    """
    n, total = keys.shape[-1], sum(sizes)
    if not sizes or min(sizes) < 1 or total > n:
        raise InputError("sizes", tuple(sizes), f"sizes of at least 1, at most {n} in all")
    ends = [sum(sizes[: i + 1]) - 1 for i in range(len(sizes))]
    lowest = keys.topk(total, largest=False, sorted=True).values
    group = torch.zeros_like(keys)
    for end in ends:
        group += keys > lowest[..., end : end + 1]
    return group
