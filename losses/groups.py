"""Second differences of v between groups of players that share their evaluations.

A context S and g groups disjoint from it give the rows v(S), v(S∪G_i) and v(S∪G_i∪G_j), from which
every pair of groups has its difference

    Δ_ij = v(S∪G_i∪G_j) − v(S∪G_i) − v(S∪G_j) + v(S):

1 + g + g(g−1)/2 rows for g(g−1)/2 differences, 4 rows for the single one of two groups.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from interaction_train.errors import InputError

MAX_GROUPS = 10  # the rows of a context are bits of an int64
_WORDS = torch.int8, torch.int16, torch.int32, torch.int64


def check_groups(groups: int) -> None:
    """Raise InputError unless 2 ≤ ``groups`` ≤ 10."""
    if not 2 <= groups <= MAX_GROUPS:
        raise InputError("groups", groups, f"between 2 and {MAX_GROUPS}")


def row_count(groups: int) -> int:
    """Evaluations per context."""
    return 1 + groups + groups * (groups - 1) // 2


def group_coalitions(group: Tensor, context: Tensor, groups: int) -> Tensor:
    """The coalitions of every context, S, then S∪G_i, then S∪G_i∪G_j: bool ``(..., rows, n)``.

    Args:
        group: int64 ``(..., n)``, a player's group 0 … g−1; larger where it is in none.
        context: bool ``(..., n)``, the context; members of groups are left out of it here.
        groups: number of groups g.
    """
    members = [(), *((i,) for i in range(groups)), *combinations(range(groups), 2)]
    # One word per player, as short as can be: bit r says whether the player is present in row r.
    dtype = next(d for d in _WORDS if len(members) < torch.iinfo(d).bits)
    word = ((group >= groups) & context).to(dtype).neg_()
    for i in range(groups):
        rows = sum(1 << r for r, inside in enumerate(members) if i in inside)
        word.add_((group == i).to(dtype), alpha=rows)
    bit = (1 << torch.arange(len(members), device=group.device)).to(dtype).unsqueeze(-1)
    return (word.unsqueeze(-2) & bit) != 0


def group_differences(values: Tensor, groups: int) -> Tensor:
    """Δ ``(B, K, g(g−1)/2, …)`` of every pair of groups, in lexicographic order.

    Args:
        values: payoffs ``(B, K, rows, …)`` of :func:`group_coalitions`.
        groups: number of groups g.
    """
    empty, single, both = values.split([1, groups, row_count(groups) - 1 - groups], dim=2)
    pairs = combinations(single.unbind(2), 2)
    return both - torch.stack([first + second for first, second in pairs], 2) + empty
