"""What flip sharing evaluates for an order: the sizes of its coalitions and whom they hold.

See :mod:`~interaction_train.indices.flips`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.sampling.pairs import PairBlocks
from interaction_train.sampling.random import Draws

_CELLS = 2**16  # T's × pairs in one host table
_PARTS = 8  # independent parts of the contexts, at most
_HOST = torch.zeros(1, dtype=torch.int64)  # the content of what is drawn for all samples


@dataclass(frozen=True)
class Plan:
    """Which evaluations an order needs, as known on the host; of G coalitions T."""

    size: int | None  # |T|; None for random ones
    # bool (G, p): the places of the block that each T holds; (G, n) where exact: then all others,
    # by number; None: any.
    held: Tensor | None
    touched: int | None  # how many players of a wanted pair T holds; None for any number
    parts: tuple[int, ...]  # the number of T's in each independent part; one part if exact
    edges: Tensor  # the pairs of the block, int64 (E, 2)
    p: int  # places in the block
    chance: float = 1.0  # the probability that a T serves a given pair
    # Of T's that hold 0 … p places, in means over pairs: how likely that is, over how often the
    # host drew it. So what is drawn once for all samples adds no error of its own to them.
    weights: tuple[float, ...] | None = None

    @property
    def count(self) -> int:
        return sum(self.parts)

    @property
    def exact(self) -> bool:
        """Every pair meets each of its contexts once: nothing is drawn."""
        return len(self.parts) == 1

    @cached_property
    def part(self) -> Tensor:
        """The part that each T is in, int64 ``(G,)``."""
        return torch.arange(len(self.parts)).repeat_interleave(torch.tensor(self.parts))

    @property
    def strata(self) -> int:
        """Pairs of neighbours among the T's whose keep rates are stratified; 0 for too few."""
        enough = self.held is None and self.count > 2 * len(self.parts)
        return self.count - len(self.parts) if enough else 0

    def needed(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """What the T's of a range evaluate: T, single and double flips; and the pairs they serve.

        bool ``(stop − start, 1 + p + E)`` and ``(stop − start, E)``.
        """
        if self.held is None or self.touched is None:
            useful = torch.ones(stop - start, len(self.edges), dtype=torch.bool)
        else:
            useful = self.held[start:stop, self.edges].sum(-1).eq(self.touched)
        ends = torch.zeros(len(self.edges), self.p).scatter_(1, self.edges, 1.0)
        single = useful.float() @ ends > 0
        return torch.cat([useful.any(-1, keepdim=True), single, useful], 1), useful

    def counts(self) -> tuple[Tensor, Tensor]:
        """Evaluations and useful pairs of each T, int64 ``(G,)`` each."""
        block = max(1, _CELLS // len(self.edges))
        starts = range(0, self.count, block)
        tables = (self.needed(start, min(start + block, self.count)) for start in starts)
        rows, gained = zip(*((a.sum(-1), b.sum(-1)) for a, b in tables), strict=True)
        return torch.cat(rows), torch.cat(gained)


def order_plan(n: int, order: int, blocks: PairBlocks, contexts: int, draws: Draws) -> Plan:
    """The plan for an order m of n players that has most useful differences per evaluation.

    ``contexts`` are those per pair, in the mean; of ``draws`` the content does not count.

    All T's, once each, where ``contexts`` reach for the C(n−2, m) of a pair, as they do for the one
    of an end order: draws would cost about as much, meet some twice and have an error.

    Raises:
        InputError: some pairs of blocks alone, at an order whose contexts are drawn.
    """
    p, edges = blocks.members.shape[-1], blocks.edges
    if contexts >= math.comb(n - 2, order):
        return _listed(n, order, edges, p)
    if p == 2:  # there is nothing to share in a single pair
        held = torch.zeros(contexts, p, dtype=torch.bool)
        return Plan(order, held, 0, _parts(contexts, contexts), edges, p)
    if len(edges) < p * (p - 1) // 2:  # places are drawn anew for every T
        expected = "all of them, or blocks of two, where contexts are drawn"
        raise InputError("pairs", f"{len(edges)} pairs of blocks of {p}", expected)
    pairs = tuple(map(tuple, edges.tolist()))
    return _cheapest(n, order, pairs, p, contexts, replace(draws, content=_HOST))


def shapley_plan(blocks: PairBlocks, contexts: int) -> Plan:
    """All pairs with every T, where T holds each player with one probability from U(0, 1)."""
    parts = _parts(contexts, contexts)
    return Plan(None, None, None, parts, blocks.edges, blocks.members.shape[-1])


def _parts(count: int, contexts: int) -> tuple[int, ...]:
    """``count`` T's in parts, as equal as can be."""
    number = min(contexts, _PARTS)
    return tuple(count // number + (k < count % number) for k in range(number))


def _listed(n: int, order: int, edges: Tensor, p: int) -> Plan:
    """All T's of the size at which they are fewest."""
    touched = 0 if 2 * (order + 1) <= n else 2
    size = order + touched
    members = torch.tensor(list(combinations(range(n), size)), dtype=torch.int64)
    held = torch.zeros(len(members), n, dtype=torch.bool).scatter_(1, members, True)
    chance = math.comb(n - 2, order) / len(members)
    return Plan(size, held, touched, (len(members),), edges, p, chance)


@lru_cache(maxsize=256)
def _cheapest(
    n: int, order: int, edges: tuple[tuple[int, ...], ...], p: int, contexts: int, host: Draws
) -> Plan:
    best, best_yield = None, -1.0
    for touched in (0, 1, 2):
        size = order + touched
        # The probability that a T of this size serves a given pair.
        chance = math.comb(n - 2, order) * (2 if touched == 1 else 1) / math.comb(n, size)
        parts = _parts(math.ceil(contexts / chance), contexts)
        # How many of the block's players a T holds: the law, and a systematic sample of it.
        places = range(p + 1)
        ways = [math.comb(p, a) * math.comb(n - p, size - a) if a <= size else 0 for a in places]
        law = np.array([way / math.comb(n, size) for way in ways])
        starts = [float(host.uniform(f"held {order} {touched} {k}", 1)) for k in range(len(parts))]
        points = [(np.arange(k) + start) / k for k, start in zip(parts, starts, strict=True)]
        drawn = law[:-1].cumsum().searchsorted(np.concatenate(points), side="right")
        # One more of each useful number that was not drawn.
        serves = np.array([math.comb(p - a, 2 - touched) * math.comb(a, touched) for a in places])
        seldom = np.bincount(drawn, minlength=p + 1) == 0
        drawn = np.concatenate([drawn, np.flatnonzero((serves > 0) & (law > 0) & seldom)])
        weights = law * len(drawn) / np.bincount(drawn, minlength=p + 1).clip(1)
        parts = (*parts[:-1], parts[-1] + len(drawn) - sum(parts))
        # Which players are at these places is drawn for each sample.
        held = torch.arange(p) < torch.tensor(drawn)[:, None]
        pairs = torch.tensor(edges)
        plan = Plan(size, held, touched, parts, pairs, p, chance, tuple(weights.tolist()))
        rows, gained = (int(count.sum()) for count in plan.counts())
        if gained > best_yield * rows:
            best, best_yield = plan, gained / rows
    assert best is not None
    return best
