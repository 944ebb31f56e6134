"""What flip sharing evaluates for an order: the sizes of its coalitions and whom they hold.

See :mod:`~interaction_train.indices.flips`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from interaction_train.sampling.pairs import PairBlocks
from interaction_train.sampling.random import Draws

_CELLS = 2**16  # T's × pairs in one host table
_PARTS = 8  # independent parts of the contexts, at most


@dataclass(frozen=True)
class Plan:
    """Which evaluations an order needs, as known on the host.

    Attributes:
        size: |T|; None for contexts of random size.
        held: bool ``(G, p)``: the places of the block that each T holds; None for random sizes.
        touched: how many players of a wanted pair T holds; None for any number.
        parts: the number of T's in each of F independent parts; one T for an end order, whose one
            context is evaluated once.
        edges: the pairs of the block, int64 ``(E, 2)``.
        p: places in the block.
        chance: the probability that a T serves a given pair.
        weights: of the T's in means over pairs, ``(G,)``: how likely the number of players that T
            holds is, over how often the host drew it; None for 1. So what the host draws once for
            all samples adds no error of its own to them.
    """

    size: int | None
    held: Tensor | None
    touched: int | None
    parts: tuple[int, ...]
    edges: Tensor
    p: int
    chance: float = 1.0
    weights: Tensor | None = None

    @property
    def expected(self) -> float:
        """Differences that all T's give in the mean, over what the host draws."""
        return self.count * len(self.edges) * self.chance

    @property
    def count(self) -> int:
        return sum(self.parts)

    @property
    def exact(self) -> bool:
        return len(self.parts) == 1

    @property
    def strata(self) -> int:
        """Pairs of neighbours among the T's whose keep rates are stratified; 0 for too few."""
        enough = self.held is None and self.count > 2 * len(self.parts)
        return self.count - len(self.parts) if enough else 0

    def neighbours(self, start: int, stop: int, before: bool) -> Tensor:
        """Which of the T's of a range follow one of the same part, the one before it included."""
        part = torch.arange(len(self.parts)).repeat_interleave(torch.tensor(self.parts))
        return part[start - before : stop].diff() == 0

    def useful(self, start: int, stop: int) -> Tensor:
        """Which pairs the T's of a range serve, bool ``(stop − start, E)``."""
        if self.held is None or self.touched is None:
            return torch.ones(stop - start, len(self.edges), dtype=torch.bool)
        return self.held[start:stop, self.edges].sum(-1).eq(self.touched)

    def needed(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """What those T's evaluate, bool ``(stop − start, 1 + p + E)``, and their useful pairs.

        The columns are T itself, its single flips, its double flips.
        """
        useful = self.useful(start, stop)
        ends = torch.zeros(len(self.edges), self.p)
        ends.scatter_(1, self.edges, 1.0)
        single = useful.float() @ ends > 0
        return torch.cat([useful.any(-1, keepdim=True), single, useful], 1), useful

    def counts(self) -> tuple[Tensor, Tensor]:
        """Evaluations and useful pairs of each T, int64 ``(G,)`` each."""
        rows, gained = [], []
        block = max(1, _CELLS // len(self.edges))
        for start in range(0, self.count, block):
            needed, useful = self.needed(start, min(start + block, self.count))
            rows.append(needed.sum(-1))
            gained.append(useful.sum(-1))
        return torch.cat(rows), torch.cat(gained)


def order_plan(
    n: int,
    order: int,
    blocks: PairBlocks,
    contexts: int,
    draws: Draws,
    share: bool = True,
) -> Plan:
    """The cheapest plan for an order.

    Args:
        n: number of players.
        order: m, 0 … n−2.
        blocks: the pairs.
        contexts: contexts per pair, in the mean.
        draws: seed, name and step count; the content does not.
        share: False: contexts avoid the whole block, which is right for single pairs alone, and
            taken for these anyway.

    Returns:
        the plan with most useful differences per evaluation.
    """
    p, edges = blocks.members.shape[-1], blocks.edges
    if order == 0 or order == n - 2:
        held = torch.full((1, p), order > 0)
        return Plan(order and n, held, 2 if order else 0, (1,), edges, p)
    if not share or p == 2:  # there is nothing to share in a single pair
        held = torch.zeros(contexts, p, dtype=torch.bool)
        return Plan(order, held, 0, _parts(contexts, contexts), edges, p)
    key = (n, order, tuple(map(tuple, edges.tolist())), p, contexts)
    return _cheapest(*key, draws.seed, draws.name, draws.step)


def _parts(count: int, contexts: int) -> tuple[int, ...]:
    """``count`` T's in parts, as equal as can be."""
    number = min(contexts, _PARTS)
    return tuple(count // number + (k < count % number) for k in range(number))


@lru_cache(maxsize=256)
def _cheapest(
    n: int,
    order: int,
    edges: tuple[tuple[int, int], ...],
    p: int,
    contexts: int,
    seed: int,
    name: str,
    step: int,
) -> Plan:
    best, best_yield = None, -1.0
    for touched in (0, 1, 2):
        size = order + touched
        # The probability that a T of this size serves a given pair.
        chance = math.comb(n - 2, order) * (2 if touched == 1 else 1) / math.comb(n, size)
        parts = _parts(math.ceil(contexts / chance), contexts)
        host = Draws(torch.zeros(1, dtype=torch.int64), seed, name, step)
        held = torch.cat(
            [
                _held(host, f"{order} {touched} {part}", n, size, p, number)
                for part, number in enumerate(parts)
            ]
        )
        held, weights = _weighted(held, touched, _law(n, size, p))
        parts = (*parts[:-1], parts[-1] + len(held) - sum(parts))
        plan = Plan(size, held, touched, parts, torch.tensor(edges), p, chance, weights)
        rows, gained = (int(count.sum()) for count in plan.counts())
        if gained > best_yield * rows:
            best, best_yield = plan, gained / rows
    assert best is not None
    return best


def _held(host: Draws, stream: str, n: int, size: int, p: int, number: int) -> Tensor:
    """Which places of a block each of ``number`` coalitions of ``size`` holds: bool (number, p).

    The numbers of places are a systematic sample of the hypergeometric law.
    """
    law = _law(n, size, p)[:-1].cumsum(0)
    start = host.uniform(f"held {stream}", 1).double()[0]
    points = (torch.arange(number, dtype=torch.float64) + start) / number
    held = torch.searchsorted(law, points, right=True)
    return torch.arange(p) < held[:, None]  # which players are at these places each sample draws


def _law(n: int, size: int, p: int) -> Tensor:
    """How likely it is that a coalition of ``size`` of n players holds 0 … p of a block's p."""
    ways = [math.comb(p, a) * math.comb(n - p, size - a) if a <= size else 0 for a in range(p + 1)]
    return torch.tensor([way / math.comb(n, size) for way in ways], dtype=torch.float64)


def _weighted(held: Tensor, touched: int, law: Tensor) -> tuple[Tensor, Tensor]:
    """The T's, with one more of each useful number of players that none of them holds; weights."""
    p = held.shape[1]
    count = held.sum(1).bincount(minlength=p + 1)
    serves = [math.comb(p - a, 2 - touched) * math.comb(a, touched) for a in range(p + 1)]
    missing = ((torch.tensor(serves) > 0) & (law > 0) & (count == 0)).nonzero().flatten()
    held = torch.cat([held, torch.arange(p) < missing[:, None]])
    number = held.sum(1)
    count = number.bincount(minlength=p + 1)
    return held, law[number] * len(held) / count[number]


def shapley_plan(blocks: PairBlocks, contexts: int) -> Plan:
    """All pairs with every T, where T holds each player with one probability from U(0, 1)."""
    parts = _parts(contexts, contexts)
    return Plan(None, None, None, parts, blocks.edges, blocks.members.shape[-1])
