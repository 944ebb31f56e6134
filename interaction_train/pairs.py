"""Which pairs of players a sampled estimate looks at.

Pairs come in blocks of players that share evaluations (see
:mod:`interaction_train.estimators.multi_order`): the more pairs of a block are wanted, the less
an evaluation is worth to a single one, and the fewer are needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from interaction_train.draws import Draws
from interaction_train.errors import InputError
from interaction_train.players import GridPlayers, Players


@dataclass(frozen=True)
class PairBlocks:
    """Pairs of players, in blocks that share evaluations.

    Attributes:
        members: ``(B, blocks, p)`` int64, the players of each block.
        edges: ``(E, 2)`` int64 on the CPU, the wanted pairs of a block as places in it; a place
            may occur in several. The same for all samples and blocks.
        weights: ``(B, blocks · E)`` float64, what a pair weighs in a mean over pairs. They sum to
            1 in expectation; 0 for an edge that is no wanted pair in this sample.
    """

    members: Tensor
    edges: Tensor
    weights: Tensor

    @property
    def complete(self) -> bool:
        """Whether every pair of a block is wanted."""
        p = self.members.shape[-1]
        return len(self.edges) == p * (p - 1) // 2

    @property
    def pairs(self) -> Tensor:
        """The pairs as players, ``(B, blocks · E, 2)`` int64."""
        return self.members[:, :, self.edges.to(self.members.device)].flatten(1, 2)


class Pairs(ABC):
    """A choice of pairs."""

    @abstractmethod
    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        """The pairs for a batch.

        Args:
            players: how a sample splits into players.
            shape: the shape of one sample, without the batch.
            draws: the source of random numbers; its content gives the batch's size and device.

        Raises:
            InputError: fewer than two players, or players that the choice does not fit.
        """


class RandomPairs(Pairs):
    """All pairs inside random disjoint blocks of players; every pair is equally likely.

    Args:
        blocks: number of blocks; fewer where the players do not suffice.
        size: players per block, at least 2; a block of p players has p(p−1)/2 pairs.

    Raises:
        InputError: ``blocks`` below 1 or ``size`` below 2.
    """

    def __init__(self, blocks: int = 2, size: int = 16) -> None:
        if blocks < 1:
            raise InputError("blocks", blocks, "at least 1")
        if size < 2:
            raise InputError("size", size, "at least 2")
        self.number, self.size = blocks, size

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        size = min(self.size, n)
        number = min(self.number, n // size)
        order = draws.bits("pairs", n).argsort(-1)
        return _equal(order[:, : number * size].unflatten(1, (number, size)), _complete(size))


class AllPairs(Pairs):
    """All n(n−1)/2 pairs, as one block."""

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        members = torch.arange(n, device=draws.content.device)
        return _equal(members.expand(len(draws.content), 1, n), _complete(n))


class GivenPairs(Pairs):
    """The same given pairs for every sample.

    Contexts share evaluations over all players that occur. Which of these are present is drawn
    once for all samples, so that only the flips that the pairs need are evaluated.

    Args:
        pairs: pairs (i, j) of different players, no pair twice.

    Raises:
        InputError: no pair, a pair of a player with itself, or a pair that occurs twice.

    Examples:
        >>> from interaction_train.draws import content_hash
        >>> from interaction_train.players import GridPlayers
        >>> draws = Draws(content_hash(torch.rand(2, 1, 8, 8)))
        >>> GivenPairs([(0, 5), (5, 3)]).blocks(GridPlayers(4, 4), (1, 8, 8), draws).pairs
        tensor([[[0, 5],
                 [5, 3]],
        <BLANKLINE>
                [[0, 5],
                 [5, 3]]])
    """

    def __init__(self, pairs: Sequence[Sequence[int]]) -> None:
        seen: set[tuple[int, int]] = set()
        for pair in pairs:
            if len(pair) != 2 or pair[0] == pair[1] or min(pair) < 0:
                raise InputError("pairs", tuple(pair), "two different players i, j >= 0")
            key = (min(pair), max(pair))
            if key in seen:
                raise InputError("pairs", f"the pair {key} twice", "every pair once")
            seen.add(key)
        if not seen:
            raise InputError("pairs", "none", "at least one pair")
        self.given = [(int(i), int(j)) for i, j in pairs]

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        present = sorted({i for pair in self.given for i in pair})
        if present[-1] >= n:
            raise InputError("pairs", f"player {present[-1]}", f"players 0 … {n - 1}")
        place = {player: k for k, player in enumerate(present)}
        edges = torch.tensor([[place[i], place[j]] for i, j in self.given])
        members = torch.tensor(present, device=draws.content.device)
        return _equal(members.expand(len(draws.content), 1, -1), edges)


class NeighbourPairs(Pairs):
    """Pairs of grid cells at most ``radius`` rows and ``radius`` columns apart.

    The blocks are patches of the grid, tiles of a raster at a random place on the torus, with an
    equal number of edges for every offset (dr, dc); edges that would wrap around weigh 0 and all
    others the same.
    So every pair of neighbours is equally likely, wherever it lies. Grids too small for a patch
    and its surroundings are taken as a whole, with all their neighbours.

    Args:
        radius: largest distance in rows and in columns; 2 in the reference protocol.
        patches: number of patches.
        side: cells along a patch's side, above ``radius``; default: ``2 · radius + 2``.

    Raises:
        InputError: an argument out of its range; on use, players that are no grid.
    """

    def __init__(self, radius: int = 2, patches: int = 2, side: int | None = None) -> None:
        if radius < 1:
            raise InputError("radius", radius, "at least 1")
        if patches < 1:
            raise InputError("patches", patches, "at least 1")
        self.radius, self.patches = radius, patches
        self.side = 2 * radius + 2 if side is None else side
        if self.side <= radius:
            raise InputError("side", side, f"above radius = {radius}")

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = _at_least_two(players, shape)
        if not isinstance(players, GridPlayers):
            raise InputError("players", players, "GridPlayers, for pairs of neighbours")
        rows, cols = players.rows, players.cols
        batch, device = len(draws.content), draws.content.device
        if min(rows, cols) <= max(self.side, 2 * self.radius):
            members = torch.arange(n, device=device).expand(batch, 1, n)
            return _equal(members, self._edges(rows, cols, thin=False))
        edges = self._edges(self.side, self.side, thin=True)
        down, across = rows // self.side, cols // self.side
        layers = -(-self.patches // (down * across))
        # Remainders of 64 random bits: the bias is below 1e-16.
        shift = draws.bits("patches", layers, 2)
        tile = draws.bits("tiles", layers, down * across).argsort(-1)
        local = torch.arange(self.side, device=device)
        top = (shift[..., :1] % rows + tile // across * self.side).flatten(1)[:, : self.patches]
        left = (shift[..., 1:] % cols + tile % across * self.side).flatten(1)[:, : self.patches]
        row, col = (top.unsqueeze(-1) + local) % rows, (left.unsqueeze(-1) + local) % cols
        members = (row.unsqueeze(-1) * cols + col.unsqueeze(-2)).flatten(2)
        on_device = edges.to(device)
        ends = members[:, :, on_device]
        near = (ends // cols).diff(dim=-1).abs() <= self.radius
        near &= (ends % cols).diff(dim=-1).abs() <= self.radius
        offset = torch.stack([edges // self.side, edges % self.side]).diff(dim=-1).abs().squeeze(-1)
        inside = (1 - offset[0] / rows) * (1 - offset[1] / cols)
        expected = self.patches * float(inside.double().sum())
        return PairBlocks(members, edges, near.squeeze(-1).flatten(1).double() / expected)

    def _edges(self, rows: int, cols: int, thin: bool) -> Tensor:
        by_offset: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for i, j in combinations(range(rows * cols), 2):
            dr, dc = j // cols - i // cols, j % cols - i % cols
            if dr <= self.radius and abs(dc) <= self.radius:
                by_offset.setdefault((dr, dc), []).append((i, j))
        fewest = min(len(pairs) for pairs in by_offset.values())
        kept = []
        for pairs in by_offset.values():
            number = fewest if thin else len(pairs)
            # Spread evenly over the patch.
            kept += [pairs[(2 * k + 1) * len(pairs) // (2 * number)] for k in range(number)]
        return torch.tensor(sorted(kept))


def _at_least_two(players: Players, shape: Sequence[int]) -> int:
    n = players.count(shape)
    if n < 2:
        raise InputError("players", f"{n} player", "at least 2")
    return n


def _complete(size: int) -> Tensor:
    return torch.triu_indices(size, size, 1).T


def _equal(members: Tensor, edges: Tensor) -> PairBlocks:
    number = members.shape[1] * len(edges)
    weights = torch.full((), 1 / number, dtype=torch.float64, device=members.device)
    return PairBlocks(members, edges, weights.expand(len(members), number))
