"""What a budget of evaluations tells about a game of too many players for all coalitions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.explaining.progress import reported
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import ValueEstimates, sample_shapley_values
from interaction_train.indices.readings import product
from interaction_train.indices.sampled_pairs import (
    REFERENCE_RATIOS,
    PairEstimates,
    sample_multi_order,
    sample_shapley_pairs,
)
from interaction_train.recovery import WalshModel, fit_walsh
from interaction_train.sampling.pairs import AllPairs

_PAIRS = 3 / 4  # the part of a budget that goes to pairs; the rest goes to Shapley values
_LEAST = 2  # chains or contexts, for a standard error
_ROWS = 2048  # of a fit of all sets: its time grows with their third power
_GRIDS = REFERENCE_RATIOS, (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.5, 1.0)  # of orders m/(n−2)


@dataclass
class Sampler:
    """Estimates of one game, each job of which costs at most ``budget`` evaluations per sample.

    Attributes:
        evaluations: coalitions evaluated per sample so far.
    """

    game: MaskedGame
    budget: int
    seed: int = 0
    shown: bool | None = None
    evaluations: int = 0
    _orders: dict[int, PairEstimates] = field(default_factory=dict, init=False)
    _spectrum: tuple[list[int], Tensor] | None = field(default=None, init=False)
    _fit: WalshModel | None = field(default=None, init=False)

    def values_and_pairs(self) -> tuple[ValueEstimates, PairEstimates]:
        """Shapley values, and Shapley interactions of all pairs."""
        n = self.game.n
        chain, context = n - 1, _all_pairs(n)
        contexts = max(_LEAST, int(self.budget * _PAIRS) // context)
        chains = (self.budget - contexts * context - 2) // chain
        if chains < _LEAST:
            least = min(2**n, _LEAST * (context + chain) + 2)  # all coalitions would do as well
            raise self._too_small(f"all pairs of {n} players", least)
        with reported(self.game, "values, pairs", self.budget, self.shown):
            values = sample_shapley_values(self.game, chains, seed=self.seed)
            pairs = sample_shapley_pairs(self.game, AllPairs(), contexts, seed=self.seed)
        self.evaluations += values.evaluations + pairs.evaluations
        return values, pairs

    def order(self, m: int) -> PairEstimates:
        """I^(m)(i,j) of all pairs, sampled when an order is first asked for."""
        if m not in self._orders:
            contexts = _contexts(self.game.n, m, self.budget)
            if contexts < _LEAST:
                least = _least_budget(self.game.n, m)
                raise self._too_small(f"order {m} of {self.game.n} players", least)
            with reported(self.game, f"order {m}", self.budget, self.shown):
                self._orders[m] = self._sample(m, contexts)
        return self._orders[m]

    def spectrum(self) -> tuple[list[int], Tensor]:
        """Some orders, and unbiased means over pairs of I^(m)(i,j)², ``(B, M)`` on the CPU.

        As many orders as the budget pays for all pairs of, out of those of the papers' code.
        """
        if self._spectrum is None:
            plan = self._plan_orders()
            with reported(self.game, "orders", self.budget, self.shown):
                found = [self._sample(m, contexts) for m, contexts in plan.items()]
            squares = torch.cat([one.over_pairs(product(one)) for one in found], -1)
            self._spectrum = list(plan), squares.to("cpu", torch.float64)
        return self._spectrum

    def fit(self) -> WalshModel:
        """A fit of all sets of players to a part of the budget, a ninth of which judges it."""
        if self._fit is None:
            n = self.game.n
            fresh = min(self.budget, _ROWS) // 9
            rows = min(self.budget, _ROWS) - fresh
            if rows < 2 * n:
                raise self._too_small(f"interactions of {n} players", math.ceil(2 * n * 9 / 8))
            with reported(self.game, "interactions", rows + fresh, self.shown):
                self._fit = fit_walsh(self.game, rows, fresh=fresh, seed=self.seed)
            self.evaluations += rows + fresh
        return self._fit

    def _plan_orders(self) -> dict[int, int]:
        """Orders → contexts of each."""
        n, least = self.game.n, 0
        for ratios in _GRIDS:
            orders = list(dict.fromkeys(round(ratio * (n - 2)) for ratio in ratios))
            inner = [m for m in orders if m not in (0, n - 2)]
            ends = (len(orders) - len(inner)) * _all_pairs(n)
            share = (self.budget - ends) // max(1, len(inner))
            contexts = [_contexts(n, m, share if m in inner else self.budget) for m in orders]
            if share >= 0 and min(contexts) >= _LEAST:
                return dict(zip(orders, contexts, strict=True))
            least = ends + len(inner) * max((_least_budget(n, m) for m in inner), default=0)
        raise self._too_small(f"three orders of {n} players", least)

    def _sample(self, m: int, contexts: int) -> PairEstimates:
        found = sample_multi_order(self.game, AllPairs(), contexts, orders=[m], seed=self.seed)
        self.evaluations += found.evaluations
        return found

    def _too_small(self, what: str, least: int) -> InputError:
        expected = f"at least {least} evaluations, for {what}; or fewer players"
        return InputError("budget", self.budget, expected)


def pair_matrices(estimates: PairEstimates, n: int) -> tuple[Tensor, Tensor]:
    """Values and standard errors of one order of all pairs, ``(B, n, n)`` on the CPU, float64."""
    pairs = estimates.pairs[0].cpu()

    def symmetric(values: Tensor) -> Tensor:
        result = torch.zeros(len(values), n, n, dtype=torch.float64)
        result[:, pairs[:, 0], pairs[:, 1]] = values[:, 0].to("cpu", torch.float64)
        return result + result.mT

    return symmetric(estimates.value), symmetric(estimates.stderr)


def _all_pairs(n: int) -> int:
    """Evaluations of one coalition, all its single and all its double flips."""
    return 1 + n + math.comb(n, 2)


def _contexts(n: int, m: int, budget: int) -> int:
    """How many contexts of every pair a budget pays at order m; the ends have a single one."""
    cost, useful = _order_cost(n, m)
    if m in (0, n - 2):
        return _LEAST if cost <= budget else 0
    return budget // cost * useful // math.comb(n, 2)


def _least_budget(n: int, m: int) -> int:
    cost, useful = _order_cost(n, m)
    return cost if m in (0, n - 2) else math.ceil(_LEAST * math.comb(n, 2) / useful) * cost


def _order_cost(n: int, m: int) -> tuple[int, int]:
    """Evaluations of one T, and the pairs it serves, in the cheapest of the ways to do an order.

    T holds none, one or both players of a pair (:mod:`~interaction_train.indices.flips`).
    """
    inside, outside, crossing = m + 2, n - m, (m + 1) * (n - m - 1)
    ways = (
        (_all_pairs(outside), math.comb(outside, 2)),
        (1 + n + crossing, crossing),
        (_all_pairs(inside), math.comb(inside, 2)),
    )
    return max(ways, key=lambda way: way[1] / way[0])
