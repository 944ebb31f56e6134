"""A game's values, where one number for each coalition is wanted."""

from __future__ import annotations

from torch import Tensor

from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import one_number
from interaction_train.indices.exact import exact_values


def values_of(game: MaskedGame, coalitions: Tensor) -> Tensor:
    """Values ``(B, K)`` of coalitions, bool ``(K, n)``, in the game's own dtype."""
    return one_number(game(coalitions))


def all_values(game: MaskedGame) -> Tensor:
    """Values ``(B, 2^n)`` of all coalitions of at most 20 players."""
    return one_number(exact_values(game))
