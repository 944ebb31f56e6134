"""Flip sharing: differences of many pairs from the flips of one coalition.

For a coalition T and every pair {i, j} of a block P,

    Δv(i,j,T∖ij) = (−1)^{[i∈T]+[j∈T]} (v(T) − v(T⊕i) − v(T⊕j) + v(T⊕ij)),

where T⊕i flips i's membership. v(T) and the single flips are shared, so a difference costs little
more than one evaluation; alone it costs four. Given T's size and which of i and j it holds, T∖ij is
uniform over the contexts of its size.

An order m is served by |T| = m and the pairs that T does not touch, by |T| = m + 1 and those it
touches once, or by |T| = m + 2 and those inside it. Only what such pairs need is evaluated. How
many of a block's players T holds is drawn on the host, from the hypergeometric law: so the shapes
of all tensors are known there, and nothing is read back from the device. Which players these are
is drawn per sample on the device, where every pair of the block is wanted, else on the host too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.sampling import coalitions
from interaction_train.sampling.pairs import PairBlocks
from interaction_train.sampling.random import Draws

_ROWS = 8192  # coalitions × samples that go to the game in one call
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
    """

    size: int | None
    held: Tensor | None
    touched: int | None
    parts: tuple[int, ...]
    edges: Tensor
    p: int

    @property
    def count(self) -> int:
        return sum(self.parts)

    @property
    def exact(self) -> bool:
        return len(self.parts) == 1

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


@dataclass
class Sums:
    """Sums over contexts, from which all estimates follow; ``F`` parts, ``M`` orders, P pairs.

    Attributes:
        value: sums of Δ over the contexts of a pair and part, ``(B, M, F, P)`` float64.
        count: contexts of a pair and part, like ``value``.
        square, size: sums of Δ² and |Δ| over all contexts of a pair, ``(B, M, P)`` float64.
        total: per order and block, sums over the T's of s², s·c and c², where s and c are the sum
            and the number of the differences of a T: ``(B, M, blocks, 3)``.
        evaluations: coalitions evaluated per sample.
        differences: differences of a wanted order and pair per sample.
    """

    value: Tensor
    count: Tensor
    square: Tensor
    size: Tensor
    total: Tensor
    evaluations: int
    differences: int


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
    key = (n, order, tuple(map(tuple, edges.tolist())), p, blocks.complete, contexts)
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
    complete: bool,
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
                _held(host, f"{order} {touched} {part}", n, size, p, number, complete)
                for part, number in enumerate(parts)
            ]
        )
        plan = Plan(size, held, touched, parts, torch.tensor(edges), p)
        rows, gained = (int(count.sum()) for count in plan.counts())
        if gained > best_yield * rows:
            best, best_yield = plan, gained / rows
    assert best is not None
    return best


def _held(
    host: Draws, stream: str, n: int, size: int, p: int, number: int, complete: bool
) -> Tensor:
    """Which places of a block each of ``number`` coalitions of ``size`` holds: bool (number, p).

    The numbers of places are a systematic sample of the hypergeometric law.
    """
    weights = [math.comb(p, a) * math.comb(n - p, size - a) if a <= size else 0 for a in range(p)]
    law = torch.tensor([w / math.comb(n, size) for w in weights], dtype=torch.float64).cumsum(0)
    start = host.uniform(f"held {stream}", 1).double()[0]
    points = (torch.arange(number, dtype=torch.float64) + start) / number
    held = torch.searchsorted(law, points, right=True)
    if complete:  # which of the places are held is up to each sample
        return torch.arange(p) < held[:, None]
    return coalitions.uniform(host.bits(f"places {stream}", number, p)[0], held)


def shapley_plan(blocks: PairBlocks, contexts: int) -> Plan:
    """All pairs with every T, where T holds each player with one probability from U(0, 1)."""
    parts = _parts(contexts, contexts)
    return Plan(None, None, None, parts, blocks.edges, blocks.members.shape[-1])


def sample(game: MaskedGame, blocks: PairBlocks, plans: dict[str, Plan], draws: Draws) -> Sums:
    """Evaluate plans, without reading anything back from the device.

    Memory is flat in the number of contexts.

    Args:
        game: the game of B samples, with one number per coalition.
        blocks: the pairs.
        plans: name of the draws → plan; one per order.
        draws: the source of random numbers, with the contents of the B samples.

    Raises:
        InputError: a payoff with more than one number per coalition.
    """
    batch, number, _ = blocks.members.shape
    total = number * len(blocks.edges)
    parts = max(2, *(len(plan.parts) for plan in plans.values()))
    device = blocks.members.device

    def zeros(*sizes: int) -> Tensor:
        return torch.zeros(sizes, dtype=torch.float64, device=device)

    sums = Sums(
        zeros(batch, len(plans), parts, total),
        zeros(batch, len(plans), parts, total),
        zeros(batch, len(plans), total),
        zeros(batch, len(plans), total),
        zeros(batch, len(plans), number, 3),
        0,
        0,
    )
    counts = [plan.counts() for plan in plans.values()]
    sums.evaluations = number * sum(int(rows.sum()) for rows, _ in counts)
    sums.differences = number * sum(int(gained.sum()) for _, gained in counts)
    game.choose_chunk(batch * sums.evaluations)
    for m, (name, plan) in enumerate(plans.items()):
        for start, stop in _ranges(counts[m][0], batch * number):
            one = _Slice(game.n, blocks, plan, draws, name, start, stop)
            if one.rows == 0:
                continue
            values = game(one.coalitions())
            if values.dim() != 2:
                raise InputError("payoff", "one value per class", "one number per coalition")
            delta = one.differences(values)
            ids = one.ids.flatten(1)
            flat = delta.flatten(1)
            places = (one.ids + one.part[one.t] * total).flatten(1)
            sums.value[:, m].flatten(1).scatter_add_(1, places, flat)
            sums.count[:, m].flatten(1).scatter_add_(1, places, torch.ones_like(flat))
            sums.square[:, m].scatter_add_(1, ids, flat.square())
            sums.size[:, m].scatter_add_(1, ids, flat.abs())
            sums.total[:, m] += one.moments(delta)
    return sums


def _ranges(counts: Tensor, copies: int) -> Iterator[tuple[int, int]]:
    """(start, stop): ranges of T's whose evaluations fit one call of the game."""
    rows = counts.cumsum(0).tolist()
    start = 0
    while start < len(rows):
        stop, before = start + 1, rows[start - 1] if start else 0
        while stop < len(rows) and (rows[stop] - before) * copies <= _ROWS:
            stop += 1
        yield start, stop
        start = stop


class _Slice:
    """The T's of one range and what is evaluated for them, for all samples and blocks."""

    def __init__(
        self,
        n: int,
        blocks: PairBlocks,
        plan: Plan,
        draws: Draws,
        name: str,
        start: int,
        stop: int,
    ) -> None:
        self.n, self.sets = n, stop - start
        members, edges, p = blocks.members, plan.edges, plan.p
        batch, number, _ = members.shape
        device = members.device
        needed, useful = plan.needed(start, stop)
        self.rows = int(needed.sum())
        index = (needed.flatten().cumsum(0) - 1).view_as(needed)
        self.of_row, column = needed.nonzero().unbind(1)
        # First and second flip of each row, as places in the block; p for none.
        nothing = torch.full((1 + p, 2), p)
        nothing[1:, 0] = torch.arange(p)
        flips = torch.cat([nothing, edges])[column]
        t, e = useful.nonzero().unbind(1)
        corners = torch.stack(
            [index[t, 0], index[t, 1 + edges[e, 0]], index[t, 1 + edges[e, 1]], index[t, 1 + p + e]]
        )
        self.flips, self.corners, self.of_row, self.t = (
            part.to(device, non_blocking=True) for part in (flips, corners, self.of_row, t)
        )
        ends = edges[e].to(device, non_blocking=True)
        span = range(start, stop)
        sizes = torch.tensor(plan.parts)
        part = torch.arange(len(sizes)).repeat_interleave(sizes)[start:stop]
        self.part = part.to(device, non_blocking=True)
        # The player at each place: a new order of the block for every T where any order will do.
        if blocks.complete and plan.held is not None:
            order = draws.bits(f"places {name}", number, span, p).argsort(-1)
            place = torch.zeros(p, p, dtype=torch.int64)
            place[edges[:, 0], edges[:, 1]] = torch.arange(len(edges))
            place[edges[:, 1], edges[:, 0]] = torch.arange(len(edges))
            flat = order.flatten(2)
            first, second = (flat[:, :, self.t * p + ends[:, k]] for k in (0, 1))
            edge = place.to(device, non_blocking=True)[first, second]
        else:
            order = torch.arange(p, device=device).expand(batch, number, self.sets, p)
            edge = e.to(device, non_blocking=True).expand(batch, number, -1)
        self.ids = edge + torch.arange(number, device=device)[:, None] * len(edges)
        self.players = members.unsqueeze(2).expand(-1, -1, self.sets, -1).gather(-1, order)
        if plan.held is None:
            # Keep rates are stratified over each part: one from each of its equal slices of (0, 1).
            within = torch.arange(start, stop) - (sizes.cumsum(0) - sizes)[part]
            strata = torch.stack([within, sizes[part]]).to(device, non_blocking=True)
            keep = (strata[0] + draws.uniform(f"keep {name}", number, span)) / strata[1]
            keys = draws.bits(f"contexts {name}", number, span, n)
            self.contexts = coalitions.bernoulli(keys, keep.unsqueeze(-1))
        else:
            held = plan.held[start:stop].to(device, non_blocking=True)
            keys = draws.bits(f"contexts {name}", number, span, n)
            info = torch.iinfo(torch.int64)
            keys.scatter_(-1, self.players, torch.where(held, info.min, info.max).expand_as(order))
            self.contexts = coalitions.uniform(keys, plan.size or 0)
        inside = self.contexts.gather(-1, self.players).flatten(2)
        first, second = (inside[:, :, self.t * p + ends[:, k]] for k in (0, 1))
        self.sign = 1 - 2 * (first ^ second).double()

    def coalitions(self) -> Tensor:
        """``(B, blocks · rows, n)``."""
        p = self.players.shape[-1]
        padded = torch.nn.functional.pad(self.players, (0, 1), value=self.n).flatten(2)
        rows = torch.nn.functional.pad(self.contexts, (0, 1))[:, :, self.of_row]
        for k in (0, 1):
            place = padded[:, :, self.of_row * (p + 1) + self.flips[:, k]].unsqueeze(-1)
            rows.scatter_(-1, place, ~rows.gather(-1, place))
        return rows[..., : self.n].flatten(1, 2)

    def differences(self, values: Tensor) -> Tensor:
        """Δ of every useful pair and T, ``(B, blocks, differences)`` float64."""
        values = values.double().view(len(values), -1, self.rows)
        none, first, second, both = (values[:, :, corner] for corner in self.corners)
        return self.sign * (none - first - second + both)

    def moments(self, delta: Tensor) -> Tensor:
        """Sums over T's of s², s·c and c² (see :class:`Sums`), ``(B, blocks, 3)``."""
        s, c = (
            delta.new_zeros(*delta.shape[:2], self.sets).index_add_(2, self.t, part)
            for part in (delta, torch.ones_like(delta))
        )
        return torch.stack([(s * s).sum(-1), (s * c).sum(-1), (c * c).sum(-1)], -1)
