"""Sampled interactions of pairs: multi-order I^(m)(i,j) and Shapley I^Shap(i,j), with errors.

"Survey" is Zhou et al., "Interpretability of Neural Networks Based on Game-theoretic
Interactions", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.flips import Sums, sample
from interaction_train.indices.plans import order_plan, shapley_plan
from interaction_train.sampling.pairs import PairBlocks, PairSampler
from interaction_train.sampling.random import Draws, content_hash

REFERENCE_RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""The grid of orders m/(n−2) of the papers' released code."""


@dataclass(frozen=True)
class PairEstimates:
    """Estimates for B samples, M orders and P pairs, in the unit of the payoff; float64.

    Attributes:
        orders: the M orders as numbers of players; empty for Shapley interactions (M = 1).
        pairs: ``(B, P, 2)`` int64.
        value: ``(B, M, P)``, unbiased estimates: means of Δ over a pair's contexts. NaN where a
            pair met no context, which is more likely the fewer contexts were asked for, or was not
            looked at (:meth:`~interaction_train.sampling.pairs.PairSampler.at_ends`).
        stderr: ``(B, M, P)``, standard errors of ``value``; 0 for the end orders, which have one
            context each and are exact; NaN for a single context of another order.
        count: ``(B, M, P)``, contexts of each pair.
        part_sum: ``(F, B, M, P)``, sums of Δ over F independent parts of the contexts, 8 at most;
            for end orders the exact value in each.
        part_count: ``(F, B, M, P)``, contexts in each part; 1 for end orders.
        size: ``(B, M, P)``, means of |Δ| over contexts.
        contexts: ``(B, M)``, mean number of contexts of the pairs that were looked at.
        mean: ``(B, M)``, the mean interaction over pairs.
        mean_stderr: ``(B, M)``, its standard error given the pairs. Differences that share a
            coalition are correlated; it is the spread between coalitions.
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
        """The mean over the pairs that have a value, ``(B, M, P)`` → ``(B, M)``.

        Which pairs met a context does not depend on the game, so leaving the others out keeps the
        mean unbiased.
        """
        return values.nanmean(-1)


def resolve_orders(
    n: int, orders: Sequence[int] | None = None, ratios: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Orders as numbers of players in the context.

    Args:
        n: number of players, at least 2.
        orders: numbers of players, each 0 … n−2.
        ratios: or parts m/(n−2), each 0 … 1, rounded to the nearest order; two ratios that round
            to the same order are refused.

    Returns:
        the orders, as given; by default those of :data:`REFERENCE_RATIOS`, each once.

    Raises:
        InputError: an order or ratio out of its range or given twice, or both arguments.

    Examples:
        >>> resolve_orders(64, ratios=[0, 0.5, 1])
        (0, 31, 62)
    """
    if orders is not None and ratios is not None:
        raise InputError("orders, ratios", "both", "one of them")
    if ratios is not None:
        for ratio in ratios:
            if not 0 <= ratio <= 1:
                raise InputError("ratios", ratio, "numbers from 0 to 1")
        result = tuple(round(ratio * (n - 2)) for ratio in ratios)
        repeated = f"ratios that are the same order of {n} players, {result}"
    elif orders is not None:
        for order in orders:
            if not 0 <= order <= n - 2:
                raise InputError("orders", order, f"0 … n − 2 = {n - 2}")
        result = tuple(int(order) for order in orders)
        repeated = f"an order twice, {result}"
    else:
        return tuple(dict.fromkeys(round(ratio * (n - 2)) for ratio in REFERENCE_RATIOS))
    if not result or len(set(result)) < len(result):
        got = repeated if result else "none"
        raise InputError("orders" if ratios is None else "ratios", got, "at least one, each once")
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
    name: str = "multi_order",
) -> PairEstimates:
    """Multi-order interactions I^(m)(i,j), the mean of Δv(i,j,S) over |S| = m (survey, Eq. 11).

    Contexts are uniform over those of exactly m players, and independent of the batch: a sample's
    draws depend on its content, ``seed`` and ``name`` alone. Pairs of a block share evaluations
    (:mod:`~interaction_train.indices.flips`), so that a difference costs little more than one;
    the two end orders, which have one context each, are evaluated once, where the choice of pairs
    says so for more pairs. Memory is flat in the number of contexts.

    Args:
        game: the game of B samples, with one number per coalition.
        pairs: which pairs.
        contexts: contexts per pair and order, in the mean over pairs; at least 2, so that there
            are two independent parts.
        orders: numbers of players in the context, 0 … n−2.
        ratios: or parts of n−2; default: :data:`REFERENCE_RATIOS`.
        share: False evaluates every pair and context apart, at four evaluations a difference.
        seed: seed of the draws.
        name: name of the draws.

    Returns:
        estimates with standard errors and counts.

    Raises:
        InputError: contexts below 2, orders out of range or twice, players that the pairs do not
            fit, or a payoff that is not finite (the message names the sample).

    Examples:
        >>> from interaction_train.models import DigitsNet
        >>> from interaction_train.sampling.pairs import GivenPairs
        >>> from interaction_train.game.players import GridPlayers
        >>> x, y = torch.rand(2, 1, 8, 8), torch.tensor([3, 8])
        >>> game = MaskedGame(DigitsNet(), x, 0.3, GridPlayers(4, 4), labels=y, chunk_size=64)
        >>> found = sample_multi_order(game, GivenPairs([(0, 1), (0, 5)]), 20, orders=[0, 7, 14])
        >>> found.value.shape, found.stderr[:, 0].tolist()  # order 0 has one context: exact
        (torch.Size([2, 3, 2]), [[0.0, 0.0], [0.0, 0.0]])
    """
    _check_contexts(contexts)
    wanted = resolve_orders(game.n, orders, ratios)
    draws = Draws(content_hash(game.present), seed, name)

    def blocks(choice: PairSampler) -> PairBlocks:
        found = choice.blocks(game.players, game.present.shape[1:], draws)
        return found if share else _apart(found)

    more, inner = pairs.at_ends(contexts), blocks(pairs)
    outer = inner if more is pairs else blocks(more)
    ends = tuple(m for m in wanted if m in (0, game.n - 2))
    groups = [(inner, tuple(m for m in wanted if m not in ends)), (outer, ends)]
    if inner.members.shape == outer.members.shape and len(inner.edges) == len(outer.edges):
        groups = [(inner, wanted)]  # made of the same draws, they are the same
    found = []
    for chosen, orders in groups:
        if orders:
            plans = {str(m): order_plan(game.n, m, chosen, contexts, draws, share) for m in orders}
            exact = torch.tensor([plan.exact for plan in plans.values()])
            found.append(_estimates(orders, chosen, sample(game, chosen, plans, draws), exact))
    return found[0] if len(found) == 1 else _joined(wanted, *found)


def sample_shapley_pairs(
    game: MaskedGame,
    pairs: PairSampler,
    contexts: int = 100,
    *,
    seed: int = 0,
    name: str = "shapley_pairs",
) -> PairEstimates:
    """Shapley interactions I^Shap(i,j) of pairs (survey, Eq. 5), the mean of I^(m)(i,j) over m.

    Contexts hold each player with one probability drawn from U(0, 1). A context is independent of
    whether its coalition holds i and j, so every pair of a block gets one from every coalition.

    Args:
        game: the game of B samples, with one number per coalition.
        pairs: which pairs.
        contexts: contexts of every pair, at least 2.
        seed: seed of the draws.
        name: name of the draws.

    Returns:
        estimates with one order, M = 1.

    Raises:
        InputError: as :func:`sample_multi_order`.
    """
    _check_contexts(contexts)
    draws = Draws(content_hash(game.present), seed, name)
    blocks = pairs.blocks(game.players, game.present.shape[1:], draws)
    plan = shapley_plan(blocks, contexts)
    sums = sample(game, blocks, {"shapley": plan}, draws)
    return _estimates((), blocks, sums, torch.tensor([False]), plan.strata)


def _check_contexts(contexts: int) -> None:
    if contexts < 2:
        raise InputError("contexts", contexts, "at least 2, for two independent parts")


def _apart(blocks: PairBlocks) -> PairBlocks:
    """Every pair as a block of its own."""
    return PairBlocks(blocks.pairs, torch.tensor([[0, 1]]))


def _estimates(
    orders: tuple[int, ...],
    blocks: PairBlocks,
    sums: Sums,
    exact: Tensor,
    strata: int = 0,
) -> PairEstimates:
    exact = exact.to(sums.value.device)[:, None]
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
        scale = 2 * strata * count[:, 0].double()
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
    _check_finite(sums)
    return result


def _joined(wanted: tuple[int, ...], inner: PairEstimates, ends: PairEstimates) -> PairEstimates:
    """Inner and end orders of different pairs as one, NaN or 0 where a pair was not looked at."""
    orders = inner.orders + ends.orders
    place = torch.tensor([orders.index(m) for m in wanted])
    place = place.to(inner.value.device, non_blocking=True)

    def both(first: Tensor, second: Tensor, nothing: float) -> Tensor:
        """``(…, M, P)`` of both."""
        right = first.new_full((*first.shape[:-1], second.shape[-1]), nothing)
        left = second.new_full((*second.shape[:-1], first.shape[-1]), nothing)
        parts = [torch.cat([first, right], -1), torch.cat([left, second], -1)]
        return torch.cat(parts, -2).index_select(-2, place)

    def per_order(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second], -1).index_select(-1, place)

    # The parts of an end order are all alike, as many as the inner orders have.
    shape = inner.part_sum.shape[0], *ends.part_sum.shape[1:]
    return PairEstimates(
        wanted,
        torch.cat([inner.pairs, ends.pairs], 1),
        both(inner.value, ends.value, torch.nan),
        both(inner.stderr, ends.stderr, torch.nan),
        both(inner.count, ends.count, 0),
        both(inner.part_sum, ends.part_sum[:1].expand(shape), 0),
        both(inner.part_count, ends.part_count[:1].expand(shape), 0),
        both(inner.size, ends.size, torch.nan),
        per_order(inner.contexts, ends.contexts),
        per_order(inner.mean, ends.mean),
        per_order(inner.mean_stderr, ends.mean_stderr),
        inner.evaluations + ends.evaluations,
        inner.differences + ends.differences,
    )


def _check_finite(sums: Sums) -> None:
    bad = ~sums.size.sum((1, 2)).isfinite()
    if bad.any():
        at = int(bad.nonzero()[0, 0])
        raise InputError("game", f"a payoff that is not finite for sample {at}", "finite payoffs")
