"""Which pairs of players a sampled estimate looks at.

Pairs come in blocks of players that share evaluations (:mod:`interaction_train.indices.flips`): the
more pairs of a block are wanted, the fewer evaluations each needs. An :class:`InputError` refuses
arguments out of their range, and on use players that a choice does not fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from interaction_train.errors import InputError, at_least
from interaction_train.game.players import GridPlayers, Players
from interaction_train.sampling.random import Draws

_ONE = torch.tensor([[0, 1]])  # the one pair of two players
_TILE = 4  # cells along the side of the tiles that neighbours are spread over


@dataclass(frozen=True)
class PairBlocks:
    """Pairs of players, all of equal weight, in blocks that share evaluations.

    Attributes:
        members: ``(B, blocks, p)`` int64, the players of each block.
        edges: ``(E, 2)`` int64 on the CPU, the wanted pairs of every block as places in it;
            default: the one pair of two players.
    """

    members: Tensor
    edges: Tensor = _ONE

    @property
    def pairs(self) -> Tensor:
        """The pairs as players, ``(B, blocks · E, 2)`` int64."""
        return self.members[:, :, self.edges.to(self.members.device)].flatten(1, 2)


class PairSampler(ABC):
    """A choice of pairs."""

    @abstractmethod
    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        """The pairs for samples of this shape, as many as ``draws`` has contents."""

    def at_ends(self, contexts: int) -> PairSampler:
        """The choice for the end orders: one context a pair, so ``contexts`` times more pairs."""
        return self


class RandomPairs(PairSampler):
    """All pairs inside random disjoint blocks of players; every pair is equally likely.

    Args:
        blocks: number of blocks, at least 1; fewer where the players do not suffice.
        size: players p per block, at least 2; it has p(p−1)/2 pairs.
    """

    def __init__(self, blocks: int = 2, size: int = 16) -> None:
        at_least("blocks", blocks, 1)
        at_least("size", size, 2)
        self.number, self.size = blocks, size

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        size = min(self.size, n)
        number = min(self.number, n // size)
        order = draws.bits("pairs", n).argsort(-1)[:, : number * size]
        return PairBlocks(order.unflatten(1, (number, size)), torch.triu_indices(size, size, 1).T)


class AllPairs(PairSampler):
    """All n(n−1)/2 pairs, as one block."""

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        return _alike(torch.arange(n)[None], draws, torch.triu_indices(n, n, 1).T)


class GivenPairs(PairSampler):
    """The same pairs (i, j) of different players for every sample; at least one and none twice.

    Each is a block of its own: were evaluations shared, membership would be drawn once for all
    samples, whose errors then were not independent.

    Examples:
        >>> draws = Draws(torch.arange(2))
        >>> GivenPairs([(0, 5), (5, 3)]).blocks(GridPlayers(4, 4), (1, 8, 8), draws).pairs[1]
        tensor([[0, 5],
                [5, 3]])
    """

    def __init__(self, pairs: Sequence[Sequence[int]]) -> None:
        for pair in pairs:
            if len(pair) != 2 or pair[0] == pair[1] or min(pair) < 0:
                raise InputError("pairs", tuple(pair), "two different players i, j >= 0")
        self.given = [(int(i), int(j)) for i, j in pairs]
        if not self.given:
            raise InputError("pairs", "none", "at least one pair")
        pair, times = Counter((min(pair), max(pair)) for pair in self.given).most_common(1)[0]
        if times > 1:
            raise InputError("pairs", f"the pair {pair} twice", "every pair once")

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        if (last := max(map(max, self.given))) >= n:
            raise InputError("pairs", f"player {last}", f"players 0 … {n - 1}")
        return _alike(torch.tensor(self.given), draws)


class NeighbourPairs(PairSampler):
    """Pairs of grid cells at most ``radius`` rows and ``radius`` columns apart.

    Every such pair is equally likely. Those of a sample are spread over the grid: interactions of
    pairs close to each other are alike, so new places are worth more than shared evaluations.

    Args:
        radius: largest distance in rows and in columns, at least 1; 2 in the reference protocol.
        number: how many pairs per sample, at least 1; None for all.

    Examples:
        >>> draws = Draws(torch.arange(2))
        >>> NeighbourPairs(1, 5).blocks(GridPlayers(8, 8), (1, 8, 8), draws).pairs.shape
        torch.Size([2, 5, 2])
    """

    def __init__(self, radius: int = 2, number: int | None = 64) -> None:
        at_least("radius", radius, 1)
        if number is not None and number < 1:
            raise InputError("number", number, "at least 1, or None for all")
        self.radius, self.number = radius, number
        self._fewer: int | None = None  # at the end orders: the number at the others

    def at_ends(self, contexts: int) -> NeighbourPairs:
        if self.number is None:
            return self
        ends = NeighbourPairs(self.radius, self.number * contexts)
        ends._fewer = self.number
        return ends

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        if not isinstance(players, GridPlayers):
            raise InputError("players", players, "GridPlayers, for pairs of neighbours")
        pairs, tile = _neighbours(players.rows, players.cols, self.radius)
        total = len(pairs)
        number = total if self.number is None else self.number
        if self._fewer is not None and self._fewer < total <= 3 * number:
            # All pairs in one block, whose shared evaluations make up for taking more than asked.
            return _alike(torch.arange(n)[None], draws, pairs)
        if number >= total:
            return _alike(pairs, draws)
        # A systematic sample: equal steps, in units of 2^-24, through randomly ordered tiles.
        device = draws.content.device
        pairs, tile = (part.to(device, non_blocking=True) for part in (pairs, tile))
        order = ((tile << 24) + (draws.bits("order", total) & 0xFFFFFF)).argsort(-1)
        steps = (torch.arange(number, device=device) << 24) + (draws.bits("start", 1) & 0xFFFFFF)
        places = steps * total // (number << 24)
        return PairBlocks(pairs[order.gather(1, places)])


@lru_cache(maxsize=16)
def _neighbours(rows: int, cols: int, radius: int) -> tuple[Tensor, Tensor]:
    """All pairs of neighbours ``(total, 2)``, and the tile ``(total,)`` with a pair's middle."""
    i, j = torch.triu_indices(rows * cols, rows * cols, 1)
    near = (j // cols - i // cols).le(radius) & (j % cols - i % cols).abs().le(radius)
    i, j = i[near], j[near]
    down, across = (i // cols + j // cols) // (2 * _TILE), (i % cols + j % cols) // (2 * _TILE)
    last = (cols - 1) // _TILE
    # Counted to and fro along the rows, so that the next tile is a neighbour.
    tile = down * (last + 1) + torch.where(down % 2 == 0, across, last - across)
    return torch.stack([i, j], 1), tile


def _at_least_two(players: Players, shape: Sequence[int]) -> int:
    n = players.count(shape)
    if n < 2:
        raise InputError("players", f"{n} player", "at least 2")
    return n


def _alike(members: Tensor, draws: Draws, edges: Tensor = _ONE) -> PairBlocks:
    """The same blocks ``(blocks, p)`` for every sample."""
    members = members.to(draws.content.device, non_blocking=True)
    return PairBlocks(members.expand(len(draws.content), -1, -1), edges)
