"""Exact interactions of a set S of players, in games ``v`` as in :mod:`.exact`.

``subset`` are distinct players out of 0 … n−1, at least one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.precision import wide
from interaction_train.indices.exact import (
    CELLS,
    all_coalitions,
    binomials,
    count_players,
    dividends,
    summable,
)


def shapley_interaction(v: Tensor, subset: Sequence[int]) -> Tensor:
    """Shapley interaction index of a subset of any size, ``(...)`` (survey, Eq. 5).

    I^Shap(S) = Σ_{T⊆N∖S} |T|!(n−|T|−|S|)!/(n−|S|+1)! Δ_S v(T), with Δ_S v(T) =
    Σ_{L⊆S} (−1)^{|S|−|L|} v(L∪T). For one player it is the Shapley value.
    """
    # Averaging the contexts first leaves a game of the subset's players; its top dividend is Δ_S.
    return dividends(_averaged(v, subset))[..., -1].to(v)


def block_shapley_values(v: Tensor, subset: Sequence[int]) -> Tensor:
    """Shapley values φ([C] | N∖S ∪ {[C]}) of all C ⊆ S, each as one player, the rest of S absent.

    ``(..., 2^|S|)``: bit k of an index says whether ``subset[k]`` is in C; 0 for C = ∅.
    """
    g = _averaged(v, subset)
    return (g - g[..., :1]).to(v)


def multivariate_interaction(v: Tensor, subset: Sequence[int]) -> Tensor:
    """Multivariate interaction B([S]) = φ([S] | N∖S ∪ {[S]}) − Σ_{i∈S} φ(i | N∖S ∪ {i}), ``(...)``.

    Survey, Eq. 8; equal to Σ_{L⊆S, |L|>1} I^Shap(L | N∖S ∪ L) (Eq. 9); 0 for a single player.

    Examples:
        >>> everyone = all_coalitions(3).all(1).float()  # all three win together
        >>> multivariate_interaction(everyone, [0, 1, 2])
        tensor(1.)
    """
    g = _averaged(v, subset)
    single = g[..., [1 << k for k in range(len(subset))]] - g[..., :1]
    return (g[..., -1] - g[..., 0] - single.sum(-1)).to(v)


def multivariate_strength(v: Tensor, subset: Sequence[int], max_size: int = 12) -> Tensor:
    """Multivariate interaction strength T([S]), ``(...)`` (survey, Eq. 10).

    max_Ω − min_Ω of Σ_{C∈Ω} φ([C] | N∖S ∪ {[C]}) over the partitions Ω of S; exact, by dynamic
    programming over subsets, O(3^|S|). At most Σ_{|L|>1} |I^Shap(L | N∖S ∪ L)|.

    Sets S of more than ``max_size`` players are refused.
    """
    size = len(subset)
    if size > max_size:
        got = f"{size} players, which have {_partitions(size)} partitions"
        raise InputError("subset", got, f"at most max_size = {max_size} players")
    g = _averaged(v, subset)
    phi = g - g[..., :1]
    return best_partition(torch.stack([phi, -phi]))[0].sum(0).to(v)


def best_partition(phi: Tensor) -> tuple[Tensor, Tensor]:
    """The largest sum ``(...)`` of the values ``(..., 2^k)`` of the blocks of a partition.

    And, int64 ``(..., 2^k)``, the block of a subset's lowest player in its best partition.
    """
    numbers = torch.arange(phi.shape[-1], device=phi.device)
    best, block = torch.zeros_like(phi), torch.zeros_like(phi, dtype=torch.int64)
    for m in range(1, len(numbers)):  # every block with the lowest player of m, then the rest
        inside = numbers[1 : m + 1]
        inside = inside[((inside & ~m) == 0) & ((inside & (m & -m)) != 0)]
        best[..., m], at = (phi[..., inside] + best[..., m ^ inside]).max(-1)
        block[..., m] = inside[at]
    return best[..., -1], block


def checked_subset(subset: Sequence[int], n: int) -> list[int]:
    """The players, if they are distinct ones out of 0 … n−1, at least one."""
    players = [int(i) for i in subset]
    if not players or len(set(players)) < len(players) or not set(players) <= set(range(n)):
        raise InputError("subset", tuple(players), f"distinct players out of 0 … {n - 1}")
    return players


def _averaged(v: Tensor, subset: Sequence[int]) -> Tensor:
    """g(C) = Σ_{T⊆N∖S} |T|!(r−|T|)!/(r+1)! v(T∪C), r = n−|S|, of all C ⊆ S, ``(..., 2^|S|)``."""
    n = count_players(v)
    players = checked_subset(subset, n)
    others = [i for i in range(n) if i not in players]
    v = summable(v)
    inside, outside = _spread(players, v.device), _spread(others, v.device)
    total = wide(v.new_zeros(*v.shape[:-1], len(inside)))
    weights = 1 / ((len(others) + 1) * binomials(len(others), total))
    weights = weights[all_coalitions(len(others), v.device).sum(-1)]
    rows = max(1, CELLS // (len(inside) * max(1, v[..., 0].numel())))
    for weight, block in zip(weights.split(rows), outside.split(rows), strict=True):
        total = total + wide(v[..., block | inside[:, None]]) @ weight
    return total


def _spread(players: Sequence[int], device: torch.device) -> Tensor:
    """The index of every coalition of the given players in the value tensor of the whole game."""
    bits = torch.tensor([1 << i for i in players], dtype=torch.int64, device=device)
    return (all_coalitions(len(players), device) * bits).sum(-1)


def _partitions(size: int) -> int:
    """The number of partitions of a set (Bell), by the triangle."""
    row = [1]
    for _ in range(size - 1):
        row = list(accumulate(row, initial=row[-1]))
    return row[-1]
