"""Linear algebra of some of the 2^(n+1) AND and OR patterns of n players.

A pattern has an index: S of the value tensors for the AND of S, 2^n + S for the OR of S; the AND
of ∅ is the constant. Its column of K says on which coalitions it counts. Tensors are float64, B
samples first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.concepts.operators import operators
from interaction_train.indices.exact import all_coalitions, count_players


def values_of(weights: Tensor) -> Tensor:
    """K x: what patterns of weights ``(B, 2^(n+1))`` sum to on all coalitions, ``(B, 2^n)``."""
    pairs = weights.unflatten(-1, (2, -1))
    return operators(count_players(weights) - 1, weights.device).values(pairs)


def sums_of(r: Tensor) -> Tensor:
    """Kᵀ r: the inner product of r ``(B, 2^n)`` with every column, ``(B, 2^(n+1))``."""
    return operators(count_players(r), r.device).adjoint(r).flatten(-2)


def counted_on(n: int, device: torch.device) -> Tensor:
    """On how many coalitions each pattern counts, ``(2^(n+1),)``: the squared norms of columns."""
    ands = _supersets(torch.arange(1 << n, device=device), n)
    ors = (1 << n) - ands
    return torch.cat([ands, ors])


def columns(index: Tensor, n: int) -> Tensor:
    """The columns of some patterns ``(B,)``, bool ``(B, 2^n)``."""
    coalitions = torch.arange(1 << n, device=index.device)
    players = (index & _full(n)).unsqueeze(-1)
    common = coalitions & players
    return torch.where(_is_or(index, n).unsqueeze(-1), common != 0, common == players)


def described(index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Players ``(..., n)`` and is-an-OR ``(...)`` of some patterns, both bool."""
    return all_coalitions(n, index.device)[index & _full(n)], _is_or(index, n)


def least_squares(v: Tensor, index: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """The constant ``(B,)`` and weights ``(B, k)`` of some patterns that fit v ``(B, 2^n)`` best.

    The solution of smallest norm where patterns are linearly dependent.

    Args:
        v: values on all coalitions.
        index: ``(B, k)``, the patterns of each sample.
        used: bool ``(B, k)``; the others get weight 0.
    """
    n = count_players(v)
    # The constant is the AND of no players, which has index 0.
    index = torch.nn.functional.pad(index, (1, 0))
    used = torch.nn.functional.pad(used, (1, 0), value=True)
    both = used.unsqueeze(-1) & used.unsqueeze(-2)
    inverse = torch.linalg.pinv(_gram(index, n).to(v) * both, hermitian=True)
    weights = torch.zeros_like(index, dtype=v.dtype)
    for _ in range(2):  # the second time for what rounding left of the first
        fitted = values_of(spread(weights, index, n))
        right = sums_of(v - fitted).gather(-1, index) * used
        weights = weights + (inverse @ right.unsqueeze(-1)).squeeze(-1)
    return weights[:, 0], weights[:, 1:]


def spread(weights: Tensor, index: Tensor, n: int) -> Tensor:
    """Weights ``(B, k)`` of some patterns ``(B, k)`` among those of all, ``(B, 2^(n+1))``."""
    return weights.new_zeros(len(weights), 2 << n).scatter_add(-1, index, weights)


def _gram(index: Tensor, n: int) -> Tensor:
    """On how many coalitions each two of some patterns ``(B, k)`` both count, ``(B, k, k)``."""
    first, second = index.unsqueeze(-1), index.unsqueeze(-2)
    union = _supersets((first | second) & _full(n), n)
    alone, other = _supersets(first & _full(n), n), _supersets(second & _full(n), n)
    disjoint = first & second & _full(n) == 0
    # Coalitions of S that miss T: none where S and T share a player.
    missed = torch.where(disjoint, union, 0)
    first_or, second_or = _is_or(first, n), _is_or(second, n)
    mixed = torch.where(first_or, other, alone) - missed
    ors = (1 << n) - alone - other + union
    return torch.where(first_or & second_or, ors, torch.where(first_or ^ second_or, mixed, union))


def _supersets(players: Tensor, n: int) -> Tensor:
    """How many coalitions hold all of some players."""
    sizes = all_coalitions(n, players.device).sum(-1)
    return 1 << (n - sizes[players])


def _is_or(index: Tensor, n: int) -> Tensor:
    return index >= 1 << n


def _full(n: int) -> int:
    return (1 << n) - 1
