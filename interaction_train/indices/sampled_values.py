"""Sampled Shapley values, with errors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interaction_train.errors import at_least
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import (
    end_coalitions,
    finite_values,
    mean_of_chains,
    nested_chains,
)
from interaction_train.sampling.random import Draws, content_hash


@dataclass(frozen=True)
class ValueEstimates:
    """Shapley values of B samples, in the unit of the payoff.

    Attributes:
        value: ``(B, n)``, unbiased; they sum to v(N) − v(∅), up to rounding.
        stderr: ``(B, n)``, standard errors over chains.
        ends: ``(B, 2)``, v(∅) and v(N); exact.
        evaluations: coalitions evaluated per sample.
    """

    value: Tensor
    stderr: Tensor
    ends: Tensor
    evaluations: int


def sample_shapley_values(game: MaskedGame, chains: int = 100, *, seed: int = 0) -> ValueEstimates:
    """Shapley values φ(i), the mean gain by player i over random orders of joining.

    Every chain adds all players in a random order and gives each of them a gain, for n − 1
    evaluations (Castro, Gómez & Tejada, "Polynomial calculation of the Shapley value based on
    sampling", 2009). Memory is flat in ``chains``.

    Args:
        game: of B samples and 2 players at least; payoffs are one number, which is finite.
        chains: number of chains, at least 2.
        seed: seed of the draws, which otherwise depend on a sample's content alone.

    Raises:
        InputError: arguments out of range, or a bad payoff.

    Examples:
        >>> import interaction_train as it
        >>> x, y, net = torch.rand(2, 1, 8, 8), torch.tensor([3, 8]), it.models.DigitsNet()
        >>> game = it.MaskedGame(net, x, 0.3, it.GridPlayers(4, 4), labels=y, chunk_size=64)
        >>> found = sample_shapley_values(game, chains=10)
        >>> found.value.shape, found.evaluations  # 10 chains of 15, v(∅) and v(N)
        (torch.Size([2, 16]), 152)
    """
    at_least("chains", chains, 2)
    ends = finite_values(game, end_coalitions(game))
    draws = Draws(content_hash(game.present), seed, "shapley_values")
    found = nested_chains(game, chains, draws, ends)
    mean, error = mean_of_chains((curve.diff().gather(-1, place) for place, curve in found), chains)
    return ValueEstimates(mean, error, ends, chains * (game.n - 1) + 2)
