"""Sampled interactions of two blocks of players, with errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.errors import InputError, at_least
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide_dtype
from interaction_train.indices.blocks import Blocks, checked_blocks
from interaction_train.indices.curve import coalition_values
from interaction_train.indices.stratified import stratified_mean
from interaction_train.sampling.coalitions import bernoulli
from interaction_train.sampling.random import Draws, content_hash


@dataclass(frozen=True)
class BetweenBlocks:
    """ψ(a,b) of B samples, in the unit of the payoff.

    Attributes:
        value: ``(B,)``, or ``(B, P)`` for P pairs of blocks; unbiased.
        stderr: like ``value``, standard errors over contexts, widened by Student's t: ±2 of them
            hold the truth as often at few contexts as ±2 of an exact one.
        evaluations: coalitions evaluated per sample.
    """

    value: Tensor
    stderr: Tensor
    evaluations: int


def sample_between(
    game: MaskedGame, a: Blocks, b: Blocks, contexts: int = 100, *, seed: int = 0
) -> BetweenBlocks:
    """ψ(a,b) of one pair of blocks, or of P pairs at once (as :func:`.blocks.block_interaction`).

    The mean of v(T∪a∪b) − v(T∪a) − v(T∪b) + v(T) over contexts T ⊆ N∖(a∪b), which hold each player
    with one probability from U(0, 1); 4 evaluations each. Contexts come in twos, T and the others'
    players that it lacks, so that what is linear in T adds no error. A pair's draws depend on its
    players, not on the other pairs. Memory is flat in ``contexts``.

    Args:
        game: the game of B samples, whose payoffs are one number, which is finite.
        a: a block of distinct players, or P blocks.
        b: as many that do not overlap those of ``a``.
        contexts: contexts of each pair; even, at least 4.
        seed: seed of the draws.

    Raises:
        InputError: blocks that are empty, overlap or hold anything but players, contexts out of
            their range, or a bad payoff.
    """
    at_least("contexts", contexts, 4)
    if contexts % 2:
        raise InputError("contexts", contexts, "an even number: they come in twos")
    first, second, single = checked_blocks(a, b, game.n)
    pairs, device = len(first), game.present.device
    first, second = first.to(device), second.to(device)
    corners = torch.stack([first | second, first, second, torch.zeros_like(first)], 1)
    others = ~corners[:, 0]
    signs = torch.tensor([1, -1, -1, 1] * 2, dtype=wide_dtype(device), device=device)
    draws = Draws(content_hash(game.present), seed, "between")
    # Of both blocks alike: ψ(a,b) = ψ(b,a).
    pair = content_hash(first) + content_hash(second)

    def differences(span: range) -> Tensor:
        place = torch.tensor(span, device=device)
        # T's rate is from (0, 1/2), its complement's from (1/2, 1).
        rate = (place + draws.uniform("keep", pair, span)) / contexts
        inside = bernoulli(draws.bits("players", pair, span, game.n), rate.unsqueeze(-1))
        both = torch.stack([inside, ~inside], 3) & others[:, None, None]
        rows = both.unsqueeze(4) | corners[:, None, None]
        values = coalition_values(game, rows.flatten(1, 4)).unflatten(1, (pairs, len(span), 8))
        return (values @ signs / 2).transpose(1, 2)

    slices = contexts // 2
    value, stderr = stratified_mean(map(differences, game.spans(slices, pairs * 8)), slices)
    stderr = stderr * _widened(slices)
    if single:
        value, stderr = value[:, 0], stderr[:, 0]
    return BetweenBlocks(value, stderr, 4 * contexts * pairs)


def _widened(slices: int) -> float:
    """Quantile of Student's t over the normal one, 2.

    The degrees of freedom are those of squared differences of neighbours (von Neumann, 1941).
    """
    from scipy.special import ndtr, stdtrit  # a third of a second, for those who need it

    freedom = 2 * (slices - 1) ** 2 / (3 * slices - 4)
    return float(stdtrit(freedom, ndtr(2.0))) / 2
