"""What a budget of evaluations tells about a game of too many players for all coalitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.explaining.progress import progress_bar
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.readings import product
from interaction_train.indices.sampled_pairs import (
    PairEstimates,
    resolve_orders,
    sample_multi_order,
    sample_shapley_pairs,
)
from interaction_train.indices.sampled_values import ValueEstimates, sample_shapley_values
from interaction_train.sampling.pairs import AllPairs

_PAIRS = 3 / 4  # the part of a budget that goes to pairs; the rest goes to Shapley values
_LEAST = 2  # chains or contexts, for a standard error


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
    _orders: dict[int, PairEstimates] = field(default_factory=dict)
    _spectrum: tuple[list[int], Tensor] | None = None

    def values_and_pairs(self) -> tuple[ValueEstimates, PairEstimates]:
        """Shapley values, and Shapley interactions of all pairs."""
        n = self.game.n
        chain, context = n - 1, _all_pairs(n)
        contexts = max(_LEAST, int(self.budget * _PAIRS) // context)
        chains = (self.budget - contexts * context - 2) // chain
        if chains < _LEAST:
            self._too_small(f"all pairs of {n} players", _LEAST * (context + chain) + 2)
        with self._bar("interactions", chains * chain + 2 + contexts * context):
            values = sample_shapley_values(self.game, chains, seed=self.seed)
            pairs = sample_shapley_pairs(self.game, AllPairs(), contexts, seed=self.seed)
        self.evaluations += values.evaluations + pairs.evaluations
        return values, pairs

    def order(self, m: int) -> PairEstimates:
        """I^(m)(i,j) of all pairs, sampled when an order is first asked for."""
        if m not in self._orders:
            self._orders[m] = self._sample(m, self.budget)
        return self._orders[m]

    def spectrum(self) -> tuple[list[int], Tensor]:
        """Some orders, and unbiased means over pairs of I^(m)(i,j)², ``(B, M)``."""
        if self._spectrum is None:
            orders = list(resolve_orders(self.game.n))
            share = self.budget // len(orders)
            for m in orders:  # first of all: nothing is spent where one cannot be paid
                self._contexts(m, share, len(orders))
            means = [
                (found := self._sample(m, share, len(orders))).over_pairs(product(found))
                for m in orders
            ]
            self._spectrum = orders, torch.cat(means, -1).to("cpu", torch.float64)
        return self._spectrum

    def _sample(self, m: int, budget: int, jobs: int = 1) -> PairEstimates:
        contexts = self._contexts(m, budget, jobs)
        with self._bar(f"order {m}", budget):
            found = sample_multi_order(self.game, AllPairs(), contexts, orders=[m], seed=self.seed)
        self.evaluations += found.evaluations
        return found

    def _contexts(self, m: int, budget: int, jobs: int) -> int:
        """How many contexts of each pair a budget pays."""
        n = self.game.n
        if m in (0, n - 2):
            if _all_pairs(n) > budget:
                self._too_small(f"order {m} of {n} players", _all_pairs(n) * jobs)
            return _LEAST
        cost, useful = _order_cost(n, m)
        pairs = math.comb(n, 2)
        contexts = budget // cost * useful // pairs
        if contexts < _LEAST:
            least = math.ceil(_LEAST * pairs / useful) * cost
            self._too_small(f"order {m} of {n} players", least * jobs)
        return contexts

    def _too_small(self, what: str, least: int) -> None:
        expected = f"at least {least} evaluations for {what}; or fewer players"
        raise InputError("budget", self.budget, expected)

    @contextmanager
    def _bar(self, title: str, evaluations: int) -> Iterator[None]:
        with reported(self.game, title, evaluations, self.shown):
            yield


@contextmanager
def reported(game: MaskedGame, title: str, evaluations: int, shown: bool | None) -> Iterator[None]:
    """Show a bar while so many coalitions of each sample of a game are evaluated."""
    before: Callable[[int], None] | None = game.progress
    with progress_bar(title, evaluations * len(game.present), shown) as game.progress:
        try:
            yield
        finally:
            game.progress = before


def _all_pairs(n: int) -> int:
    """Evaluations of one coalition, all its single and all its double flips."""
    return 1 + n + math.comb(n, 2)


def _order_cost(n: int, m: int) -> tuple[int, int]:
    """Evaluations and useful pairs of one T, in the best of the three ways to serve an order.

    See :mod:`~interaction_train.indices.flips`: T holds none, one or both players of a pair.
    """
    inside = m + 2
    ways = [
        (1 + n - m + math.comb(n - m, 2), math.comb(n - m, 2)),
        (1 + n + (m + 1) * (n - m - 1), (m + 1) * (n - m - 1)),
        (1 + inside + math.comb(inside, 2), math.comb(inside, 2)),
    ]
    return max(ways, key=lambda way: way[1] / way[0])


def pair_matrices(estimates: PairEstimates, n: int) -> tuple[Tensor, Tensor]:
    """Values and standard errors of one order of all pairs, ``(B, n, n)`` on the CPU, float64."""
    pairs = estimates.pairs[0].cpu()

    def symmetric(values: Tensor) -> Tensor:
        result = torch.zeros(len(values), n, n, dtype=torch.float64)
        result[:, pairs[:, 0], pairs[:, 1]] = values[:, 0].to("cpu", torch.float64)
        return result + result.mT

    return symmetric(estimates.value), symmetric(estimates.stderr)
