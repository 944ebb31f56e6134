"""Shapley values as an attribution, from a game's values."""

from __future__ import annotations

from torch import Tensor

from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import one_number
from interaction_train.indices.exact import exact_values, shapley_values


def all_values(game: MaskedGame) -> Tensor:
    """Values ``(B, 2^n)`` of all coalitions of at most 20 players, of a payoff of one number."""
    return one_number(exact_values(game))


def shapley(game: MaskedGame) -> Tensor:
    """Shapley values from all coalitions, ``(B, n)``; exact (Deng et al. 2024, Eq. 29 and 30).

    Every effect is shared equally by its players: Σ of J(S)/|S| over S ∋ i.

    Raises:
        InputError: more than 20 players, or a payoff of several numbers.
    """
    return shapley_values(all_values(game))
