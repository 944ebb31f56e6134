"""Sampled interactions of pairs: multi-order I^(m)(i,j) and Shapley I^Shap(i,j), with errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, at_least, whole
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import require_finite
from interaction_train.indices.flips import Sums, sample
from interaction_train.indices.plans import Plan, order_plan, shapley_plan
from interaction_train.sampling.pairs import PairBlocks, PairSampler
from interaction_train.sampling.random import Draws, content_hash

REFERENCE_RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""The grid of orders m/(n−2) of the papers' released code."""


@dataclass(frozen=True)
class PairEstimates:
    """Estimates for B samples, M orders and P pairs, in the unit of the payoff.

    Attributes:
        orders: the M orders as numbers of players; empty for Shapley interactions (M = 1).
        pairs: ``(B, P, 2)`` int64.
        value: ``(B, M, P)``, unbiased estimates: means of Δ over a pair's contexts. NaN where a
            pair met no context or was not looked at
            (:meth:`~interaction_train.sampling.pairs.PairSampler.at_ends`).
        stderr: ``(B, M, P)``, standard errors of ``value``; 0 for orders that are exact; NaN for a
            single context of another order.
        count: ``(B, M, P)``, contexts of each pair; C(n−2, m) for exact orders.
        part_sum: ``(F, B, M, P)``, sums of Δ over F independent parts of the contexts, 8 at most;
            for exact orders the value in each.
        part_count: ``(F, B, M, P)``, contexts in each part; 1 for exact orders.
        size: ``(B, M, P)``, means of |Δ| over contexts.
        contexts: ``(B, M)``, mean number of contexts of the pairs that were looked at.
        mean: ``(B, M)``, the mean interaction over pairs.
        mean_stderr: ``(B, M)``, its standard error given the pairs, from the spread between
            coalitions, which differences share; 0 for exact orders. Of less than about 10
            coalitions ±2 of it hold the truth too seldom.
        evaluations: coalitions evaluated per sample.
        differences: differences of a wanted order and pair per sample.
    """

    orders: tuple[int, ...]
    pairs: Tensor
    value: Tensor
    stderr: Tensor
    count: Tensor
    part_sum: Tensor
    part_count: Tensor
    size: Tensor
    contexts: Tensor
    mean: Tensor
    mean_stderr: Tensor
    evaluations: int
    differences: int

    def over_pairs(self, values: Tensor) -> Tensor:
        """The mean over the pairs that have a value, ``(B, M, P)`` → ``(B, M)``."""
        return values.nanmean(-1)


def resolve_orders(
    n: int, orders: Sequence[int] | None = None, ratios: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Orders as numbers of players in the context.

    Args:
        n: number of players, at least 2.
        orders: numbers of players, each 0 … n−2 and none twice.
        ratios: or parts m/(n−2), rounded; default: those of :data:`REFERENCE_RATIOS` that differ.

    Raises:
        InputError: an order or ratio out of its range or given twice, or both arguments.

    Examples:
        >>> resolve_orders(64, ratios=[0, 0.5, 1])
        (0, 31, 62)
    """
    if orders is not None and ratios is not None:
        raise InputError("orders, ratios", "both", "one of them")
    if ratios is not None:
        name, given, last, unit = "ratios", tuple(ratios), 1, n - 2
        wanted, twice = "numbers from 0 to 1", f"ratios that are the same order of {n} players"
    elif orders is not None:
        name, last, unit = "orders", n - 2, 1
        given = tuple(whole(name, order, 0) for order in orders)
        wanted, twice = f"0 … n − 2 = {n - 2}", "an order twice"
    else:
        return tuple(dict.fromkeys(round(ratio * (n - 2)) for ratio in REFERENCE_RATIOS))
    for value in given:
        if not 0 <= value <= last:
            raise InputError(name, value, wanted)
    result = tuple(round(value * unit) for value in given)
    if not result or len(set(result)) < len(result):
        got = f"{twice}, {result}" if result else "none"
        raise InputError(name, got, "at least one, each once")
    return result


def sample_multi_order(
    game: MaskedGame,
    pairs: PairSampler,
    contexts: int = 100,
    *,
    orders: Sequence[int] | None = None,
    ratios: Sequence[float] | None = None,
    share: bool = True,
    seed: int = 0,
) -> PairEstimates:
    """Multi-order interactions I^(m)(i,j), the mean of Δv(i,j,S) over |S| = m (survey, Eq. 11).

    Contexts are uniform over those of exactly m players; a sample's draws depend on its content and
    ``seed`` alone. An order is exact where ``contexts`` reach for all C(n−2, m) of a pair: each is
    evaluated once. So are the two end orders, which have one context each, where the choice of
    pairs says so for more pairs. Pairs of a block share evaluations
    (:mod:`~interaction_train.indices.flips`). Memory is flat in them.

    Args:
        game: the game of B samples, whose payoffs are one number, which is finite.
        pairs: which pairs.
        contexts: contexts per pair and order, in the mean over pairs; at least 2.
        orders: numbers of players in the context, or
        ratios: parts of n−2; as :func:`resolve_orders` takes them.
        share: False evaluates every pair and context apart, at four evaluations a difference.
        seed: seed of the draws.

    Raises:
        InputError: arguments out of range, players that the pairs do not fit, or a bad payoff.

    Examples:
        >>> import interaction_train as it
        >>> x, y, net = torch.rand(2, 1, 8, 8), torch.tensor([3, 8]), it.models.DigitsNet()
        >>> game = MaskedGame(net, x, 0.3, it.GridPlayers(4, 4), labels=y, chunk_size=64)
        >>> found = sample_multi_order(game, it.GivenPairs([(0, 1), (0, 5)]), 20, orders=[0, 7, 14])
        >>> found.value.shape, found.stderr[:, 0].tolist()  # order 0 has one context: exact
        (torch.Size([2, 3, 2]), [[0.0, 0.0], [0.0, 0.0]])
    """
    at_least("contexts", contexts, 2)  # for two independent parts
    wanted = resolve_orders(game.n, orders, ratios)
    draws = Draws(content_hash(game.present), seed, "multi_order")

    def blocks(choice: PairSampler) -> PairBlocks:
        found = choice.blocks(game.players, game.present.shape[1:], draws)
        return found if share else PairBlocks(found.pairs)

    more, inner = pairs.at_ends(contexts), blocks(pairs)
    outer = inner if more is pairs else blocks(more)
    ends = tuple(m for m in wanted if m in (0, game.n - 2))
    groups = [(inner, tuple(m for m in wanted if m not in ends)), (outer, ends)]
    if inner.members.shape == outer.members.shape and len(inner.edges) == len(outer.edges):
        groups = [(inner, wanted)]  # made of the same draws, they are the same
    found = []
    for chosen, orders in groups:
        if orders:
            plans = {str(m): order_plan(game.n, m, chosen, contexts, draws) for m in orders}
            found.append(_estimates(orders, chosen, plans, sample(game, chosen, plans, draws)))
    return found[0] if len(found) == 1 else _joined(wanted, *found)


def sample_shapley_pairs(
    game: MaskedGame, pairs: PairSampler, contexts: int = 100, *, seed: int = 0
) -> PairEstimates:
    """Shapley interactions I^Shap(i,j) of pairs (survey, Eq. 5), the mean of I^(m)(i,j) over m.

    One order, M = 1. Contexts hold each player with one probability drawn from U(0, 1), and every
    pair of a block gets one from every coalition. Args: as :func:`sample_multi_order`.
    """
    at_least("contexts", contexts, 2)  # for two independent parts
    draws = Draws(content_hash(game.present), seed, "shapley_pairs")
    blocks = pairs.blocks(game.players, game.present.shape[1:], draws)
    plans = {"shapley": shapley_plan(blocks, contexts)}
    return _estimates((), blocks, plans, sample(game, blocks, plans, draws))


def _estimates(
    orders: tuple[int, ...], blocks: PairBlocks, plans: dict[str, Plan], sums: Sums
) -> PairEstimates:
    exact = torch.tensor([plan.exact for plan in plans.values()])[:, None]
    exact = exact.to(sums.value.device, non_blocking=True)
    count, total = sums.count.sum(2), sums.value.sum(2)
    value = total / count
    stderr = ((sums.square / count - value.square()).clamp(min=0) / (count - 1)).sqrt()
    # The mean over pairs is a total over coalitions divided by what that is expected to count (the
    # number that it does count would bias it); its spread is that between a block's coalitions.
    number = blocks.members.shape[1]
    s, c = (part.unflatten(-1, (number, -1)).sum(-1) for part in (total, count))
    local = (s / c).nan_to_num()  # few contexts can miss a block
    ss, sc, cc, weighted = sums.total.unbind(-1)
    expected = sums.expected * number
    spread = (ss - 2 * local * sc + local.square() * cc).clamp(min=0).sum(-1)
    spread = (spread * sums.number / (sums.number - 1)).sqrt() / expected
    mean = weighted.sum(-1) / expected
    if sums.steps is not None:
        # Keep rates are stratified, one from each slice of (0, 1): neighbours differ by as much as
        # two draws from one slice, all together by more.
        scale = 2 * sum(plan.strata for plan in plans.values()) * count[:, 0]
        stderr = (sums.steps[0] / scale).sqrt()[:, None]
        spread = (sums.steps[1] / (scale[:, :1] * len(blocks.edges) ** 2)).sum(-1).sqrt()[:, None]
        spread = spread / number
    result = PairEstimates(
        orders,
        blocks.pairs,
        value,
        stderr.masked_fill(exact, 0),
        count.long(),
        torch.where(exact, value, sums.value.movedim(2, 0)),
        torch.where(exact, 1, sums.count.movedim(2, 0)),
        sums.size / count,
        count.mean(-1),
        mean,
        spread.masked_fill(exact.squeeze(-1), 0),
        sums.evaluations,
        sums.differences,
    )
    require_finite(sums.size)
    return result


def _joined(wanted: tuple[int, ...], inner: PairEstimates, ends: PairEstimates) -> PairEstimates:
    """Inner and end orders of different pairs as one, NaN or 0 where a pair was not looked at."""
    orders = inner.orders + ends.orders
    place = torch.tensor([orders.index(m) for m in wanted])
    place = place.to(inner.value.device, non_blocking=True)
    # The parts of an end order are all alike, as many as the inner orders have.
    shape = inner.part_sum.shape[0], *ends.part_sum.shape[1:]
    parts = {name: getattr(ends, name)[:1].expand(shape) for name in ("part_sum", "part_count")}
    ends = replace(ends, **parts)
    found: dict[str, Any] = {}
    for name in ("value", "stderr", "size", "count", "part_sum", "part_count"):
        first, second = getattr(inner, name), getattr(ends, name)
        nothing = 0 if name in ("count", *parts) else torch.nan
        first = nn.functional.pad(first, (0, ends.pairs.shape[1]), value=nothing)
        second = nn.functional.pad(second, (inner.pairs.shape[1], 0), value=nothing)
        found[name] = torch.cat([first, second], -2).index_select(-2, place)
    for name in ("contexts", "mean", "mean_stderr"):
        both = torch.cat([getattr(inner, name), getattr(ends, name)], -1)
        found[name] = both.index_select(-1, place)
    for name in ("evaluations", "differences"):
        found[name] = getattr(inner, name) + getattr(ends, name)
    return PairEstimates(orders=wanted, pairs=torch.cat([inner.pairs, ends.pairs], 1), **found)
