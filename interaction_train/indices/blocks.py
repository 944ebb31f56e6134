"""Exact interactions of two blocks of players, in games ``v`` as in :mod:`.exact`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.precision import wide
from interaction_train.indices.exact import (
    CELLS,
    all_coalitions,
    binomials,
    count_players,
    summable,
)

Blocks = Sequence[int] | Sequence[Sequence[int]]
"""The players of a block, or those of P blocks."""


def block_interaction(v: Tensor, a: Blocks, b: Blocks) -> Tensor:
    """ψ(a,b) = φ([a∪b]) − φ([a]) − φ([b]), each in N∖(a∪b) ∪ {[·]}, the others as single players.

    ``(...)``, or ``(..., P)`` for P pairs of blocks; B of the pair for single players (survey,
    2.2.2). O(2^(n − |a| − |b|)) each.

    Args:
        v: ``(..., 2^n)``.
        a: a block, distinct players out of 0 … n−1, or P blocks.
        b: as many that do not overlap those of ``a``.

    Raises:
        InputError: blocks that are empty, overlap or hold anything but players.

    Examples:
        >>> both = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 1])  # all three players win together
        >>> block_interaction(both, [0, 1], [2]), block_interaction(both, [0], [2])
        (tensor(1.), tensor(0.5000))
    """
    n = count_players(v)
    first, second, single = checked_blocks(a, b, n)
    v = summable(v)
    bits = torch.tensor([1 << i for i in range(n)], device=v.device)
    first, second = first.to(v.device), second.to(v.device)
    result = wide(v.new_zeros(*v.shape[:-1], len(first)))
    sizes = (first | second).sum(-1)
    for size in sizes.unique().tolist():
        r = n - size
        weights = 1 / ((r + 1) * binomials(r, result))
        weights = weights[all_coalitions(r, v.device).sum(-1)]
        at = (sizes == size).nonzero().flatten()
        for some in at.split(max(1, CELLS // (len(weights) * max(1, v[..., 0].numel())))):
            i, j = ((part[some] * bits).sum(-1, keepdim=True) for part in (first, second))
            others = (~(first | second)[some]).nonzero()[:, 1].view(len(some), r)
            outside = torch.zeros_like(i)  # the index of every coalition of the others
            for bit in bits[others].split(1, dim=1):
                outside = torch.cat([outside, outside | bit], 1)
            both, one, other, none = (wide(v[..., outside | k]) for k in (i | j, i, j, 0))
            result[..., some] = (both - one - other + none) @ weights
    return (result[..., 0] if single else result).to(v)


def checked_blocks(a: Blocks, b: Blocks, n: int) -> tuple[Tensor, Tensor, bool]:
    """Members of P pairs of blocks, bool ``(P, n)`` twice, and whether one pair was given so."""
    single = not any(isinstance(block, Sequence) for block in (*a, *b))
    pairs = [(a, b)] if single else list(zip(a, b, strict=False))
    if not single and (not pairs or len(a) != len(b)):
        raise InputError("a, b", f"{len(a)} and {len(b)} blocks", "as many of each, at least one")
    members = torch.zeros(2, len(pairs), n, dtype=torch.bool)
    for k, pair in enumerate(pairs):
        where = "" if single else f" of pair {k}"
        for name, block, row in zip("ab", pair, members[:, k], strict=True):
            if not isinstance(block, Sequence):
                raise InputError(name, f"{block!r}{where}", "a block of players, as the others are")
            players = tuple(block)
            if not players or len(set(players)) < len(players) or not set(players) <= set(range(n)):
                expected = f"distinct players out of 0 … {n - 1}, at least one"
                raise InputError(name, f"{players}{where}", expected)
            row[list(players)] = True
        if common := (members[0, k] & members[1, k]).nonzero().flatten().tolist():
            raise InputError("a, b", f"player {common[0]} in both{where}", "blocks apart")
    return members[0], members[1], single
