"""Flip sharing: differences of many pairs from the flips of one coalition.

For a coalition T and every pair {i, j} of a block P,

    Δv(i,j,T∖ij) = (−1)^{[i∈T]+[j∈T]} (v(T) − v(T⊕i) − v(T⊕j) + v(T⊕ij)),

where T⊕i flips i's membership. v(T) and the single flips are shared, so a difference costs little
more than one evaluation; alone it costs four. Given T's size and which of i and j it holds, T∖ij is
uniform over the contexts of its size.

An order m is served by |T| = m and the pairs that T does not touch, by |T| = m + 1 and those it
touches once, or by |T| = m + 2 and those inside it. Only what such pairs need is evaluated. How
many of a block's players T holds is drawn on the host, from the hypergeometric law, so that the
shapes of all tensors are known there and nothing is read back from the device; which players these
are is drawn per sample on the device.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.game.masked import ROWS, MaskedGame
from interaction_train.game.precision import wide, wide_dtype
from interaction_train.indices.curve import coalition_values
from interaction_train.indices.plans import Plan
from interaction_train.sampling import coalitions
from interaction_train.sampling.pairs import PairBlocks
from interaction_train.sampling.random import Draws


@dataclass
class Sums:
    """Sums over contexts, from which all estimates follow; F parts, M orders, P pairs."""

    value: Tensor  # of Δ over the contexts of a pair and part, (B, M, F, P)
    count: Tensor  # contexts of a pair and part, like value
    square: Tensor  # of Δ² over all contexts of a pair, (B, M, P)
    size: Tensor  # of |Δ|, likewise
    # Over the T's of a block of s², s·c, c² and s, where s and c are the weighted sum and number
    # of the differences of a T: (B, M, blocks, 4).
    total: Tensor
    expected: Tensor  # differences of a block in the mean over the host's draws, (M,)
    number: Tensor  # of a block's T's that give differences, (M,)
    evaluations: int  # coalitions evaluated per sample
    differences: int  # differences of a wanted order and pair per sample
    # Of squared differences between neighbours among stratified T's, of Δ per pair (B, P) and of
    # its sum over the pairs of a block (B, blocks); None where there are too few.
    steps: tuple[Tensor, Tensor] | None = None


def sample(game: MaskedGame, blocks: PairBlocks, plans: dict[str, Plan], draws: Draws) -> Sums:
    """Evaluate plans by name of their draws, with nothing read back; memory is flat."""
    batch, number, _ = blocks.members.shape
    total = number * len(blocks.edges)
    parts = max(2, *(len(plan.parts) for plan in plans.values()))
    device = blocks.members.device
    dtype = wide_dtype(device)

    def zeros(*sizes: int) -> Tensor:
        return torch.zeros(batch, len(plans), *sizes, dtype=dtype, device=device)

    def there(numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=dtype).to(device, non_blocking=True)

    counts = [plan.counts() for plan in plans.values()]
    rows = number * sum(int(evaluated.sum()) for evaluated, _ in counts)
    differences = number * sum(int(gained.sum()) for _, gained in counts)
    sums = Sums(
        zeros(parts, total),
        zeros(parts, total),
        zeros(total),
        zeros(total),
        zeros(number, 4),
        there([plan.count * len(plan.edges) * plan.chance for plan in plans.values()]),
        there([int((gained > 0).sum()) for _, gained in counts]),
        rows,
        differences,
    )
    game.choose_chunk(batch * rows)
    for m, (name, plan) in enumerate(plans.items()):
        last: Tensor | None = None
        for start, stop in _ranges(counts[m][0], batch * number):
            one = _Slice(game.n, blocks, plan, draws, name, start, stop)
            if one.rows == 0:
                continue
            delta = one.differences(coalition_values(game, one.coalitions()))
            ids = one.ids.flatten(1)
            flat = delta.flatten(1)
            places = (one.ids + one.part[one.t] * total).flatten(1)
            sums.value[:, m].flatten(1).scatter_add_(1, places, flat)
            sums.count[:, m].flatten(1).scatter_add_(1, places, torch.ones_like(flat))
            sums.square[:, m].scatter_add_(1, ids, flat.square())
            sums.size[:, m].scatter_add_(1, ids, flat.abs())
            sums.total[:, m] += one.moments(delta)
            if plan.strata:
                grid = delta.unflatten(-1, (one.sets, -1))
                steps = grid if last is None else torch.cat([last, grid], 2)
                inside = plan.part[start - (last is not None) : stop].diff() == 0
                inside = inside.to(device, non_blocking=True)
                last, steps = grid[:, :, -1:], steps.diff(dim=2) * inside[:, None]
                found = steps.square().sum(2).flatten(1), steps.sum(-1).square().sum(-1)
                old = sums.steps or (0, 0)
                sums.steps = old[0] + found[0], old[1] + found[1]
    return sums


def _ranges(counts: Tensor, copies: int) -> Iterator[tuple[int, int]]:
    """(start, stop): ranges of T's whose evaluations fit one call of the game."""
    rows, start, before = counts.cumsum(0).tolist(), 0, 0
    while start < len(rows):
        stop = max(start + 1, bisect_right(rows, before + ROWS // copies))
        yield start, stop
        start, before = stop, rows[stop - 1]


def _everyone(members: Tensor, n: int) -> Tensor:
    """All players, those of the block first: ``(B, blocks, p)`` → ``(B, blocks, n)``."""
    place = torch.arange(members.shape[-1], device=members.device).expand_as(members)
    last = torch.full((*members.shape[:2], n), n, device=members.device)
    return last.scatter_(-1, members, place).argsort(dim=-1, stable=True)


class _Slice:
    """The T's of one range and what is evaluated for them, for all samples and blocks."""

    def __init__(
        self, n: int, blocks: PairBlocks, plan: Plan, draws: Draws, name: str, start: int, stop: int
    ) -> None:
        self.n, self.sets = n, stop - start
        members, edges, p = blocks.members, plan.edges, plan.p
        batch, number, _ = members.shape
        device = members.device

        def there(*tables: Tensor) -> list[Tensor]:
            return [table.to(device, non_blocking=True) for table in tables]

        needed, useful = plan.needed(start, stop)
        self.rows = int(needed.sum())
        index = (needed.flatten().cumsum(0) - 1).view_as(needed)
        of_row, column = needed.nonzero().unbind(1)
        # First and second flip of each row, as places in the block; p for none.
        nothing = torch.full((1 + p, 2), p)
        nothing[1:, 0] = torch.arange(p)
        flips = torch.cat([nothing, edges])[column]
        t, e = useful.nonzero().unbind(1)
        corners = torch.stack(
            [index[t, 0], index[t, 1 + edges[e, 0]], index[t, 1 + edges[e, 1]], index[t, 1 + p + e]]
        )
        span = range(start, stop)
        self.flips, self.corners, self.of_row, self.t, self.part, ends, edge = there(
            flips, corners, of_row, t, plan.part[start:stop], edges[e], e
        )
        self.weights: Tensor | None = None
        if plan.weights is not None and plan.held is not None:
            weights = torch.tensor(plan.weights, dtype=wide_dtype(device))
            (self.weights,) = there(weights[plan.held[start:stop].sum(1)])
        # The player at each place: a new order of the block for every T where any order will do.
        if plan.held is not None and not plan.exact:
            order = draws.bits(f"places {name}", number, span, p).argsort(-1)
            place = torch.zeros(p, p, dtype=torch.int64)
            place[edges[:, 0], edges[:, 1]] = torch.arange(len(edges))
            (place,) = there(place + place.T)
            edge = place[tuple(self._at_ends(order, ends))]
        else:
            order = torch.arange(p, device=device).expand(batch, number, self.sets, p)
        ids = edge + torch.arange(number, device=device)[:, None] * len(edges)
        self.ids = ids.expand(batch, -1, -1)
        self.players = members.unsqueeze(2).expand(-1, -1, self.sets, -1).gather(-1, order)
        keys = draws.bits(f"contexts {name}", number, span, n)
        if plan.held is None:
            # Keep rates are stratified over each part: one from each of its equal slices of (0, 1).
            sizes = torch.tensor(plan.parts)
            place = torch.arange(plan.count) - (sizes.cumsum(0) - sizes)[plan.part]
            within, slices = there(place[start:stop], sizes[plan.part[start:stop]])
            keep = (within + draws.uniform(f"keep {name}", number, span)) / slices
            self.contexts = coalitions.bernoulli(keys, keep.unsqueeze(-1))
        else:
            (held,) = there(plan.held[start:stop])
            info = torch.iinfo(torch.int64)
            fixed = self.players
            if plan.exact:
                fixed = _everyone(members, n).unsqueeze(2).expand_as(keys)
            keys.scatter_(-1, fixed, torch.where(held, info.min, info.max).expand_as(fixed))
            self.contexts = coalitions.uniform(keys, plan.size or 0)
        first, second = self._at_ends(self.contexts.gather(-1, self.players), ends)
        self.sign = 1 - 2 * wide(first ^ second)

    def _at_ends(self, values: Tensor, ends: Tensor) -> list[Tensor]:
        """What ``(B, blocks, T's, p)`` holds at both ends of every useful pair."""
        flat, p = values.flatten(2), values.shape[-1]
        return [flat[:, :, self.t * p + ends[:, k]] for k in (0, 1)]

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
        """Δ of every useful pair and T, ``(B, blocks, differences)``."""
        values = values.view(len(values), -1, self.rows)
        none, first, second, both = (values[:, :, corner] for corner in self.corners)
        return self.sign * (none - first - second + both)

    def moments(self, delta: Tensor) -> Tensor:
        """What is added to ``Sums.total``, ``(B, blocks, 4)``."""
        s, c = (
            delta.new_zeros(*delta.shape[:2], self.sets).index_add_(2, self.t, part)
            for part in (delta, torch.ones_like(delta))
        )
        if self.weights is not None:
            s, c = s * self.weights, c * self.weights
        return torch.stack([part.sum(-1) for part in (s * s, s * c, c * c, s)], -1)
