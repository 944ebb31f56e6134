"""A game's values, where one number for each coalition is wanted."""

from __future__ import annotations

from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.exact import exact_values


def values_of(game: MaskedGame, coalitions: Tensor) -> Tensor:
    """Values ``(B, K)`` of coalitions, bool ``(K, n)``, in the game's own dtype."""
    return _one_number(game(coalitions))


def all_values(game: MaskedGame) -> Tensor:
    """Values ``(B, 2^n)`` of all coalitions of at most 20 players."""
    return _one_number(exact_values(game))


def _one_number(values: Tensor) -> Tensor:
    if values.dim() != 2:
        raise InputError("payoff", "one value per class", "one number per coalition")
    return values
