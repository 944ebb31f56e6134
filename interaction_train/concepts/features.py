"""Dividends of a feature: what sets of players add to a vector, and how strongly."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import all_logits
from interaction_train.indices.exact import CELLS, all_coalitions, dividends, exact_values

MOST = 16  # players: of every coordinate 65 536 numbers


def feature_dividends(game: MaskedGame, *, grad: bool = False) -> Tensor:
    """Harsanyi dividends I(S) ∈ R^d of a feature, ``(B, 2^n, d)`` (survey, Sec. 4.3).

    They sum to the feature itself; I(∅) is the feature of the baseline.

    Args:
        game: with the payoff ``"all"``, of a network that ends at a layer
            (:class:`~interaction_train.game.layers.LayerPrefix`), and at most 16 players.
        grad: whether the result is differentiable.

    Raises:
        InputError: another payoff, more players, or without ``grad`` features that are not finite.

    Examples:
        >>> import interaction_train as it
        >>> from interaction_train.game.layers import LayerPrefix
        >>> network, x = it.models.DigitsNet(), torch.rand(1, 1, 8, 8)
        >>> prefix = LayerPrefix(network, "features.2")
        >>> game = MaskedGame(prefix, x, 0.0, it.GridPlayers(2, 2), "all")
        >>> parts = feature_dividends(game)
        >>> parts.shape, torch.allclose(parts.sum(1), prefix(x), atol=1e-5)
        (torch.Size([1, 16, 256]), True)
    """
    return dividends(_values(game, grad)).movedim(1, -1)


def feature_strengths(game: MaskedGame, *, grad: bool = False) -> Tensor:
    """‖I(S)‖₂ of a feature's dividends, ``(B, 2^n)``; arguments as of :func:`feature_dividends`.

    Coordinates are transformed a block at a time; kept of all are the values, B · d · 2^n numbers.
    """
    blocks = _values(game, grad).split(max(1, CELLS >> game.n), 1)
    norm = torch.linalg.vector_norm
    return norm(torch.stack([norm(dividends(block), dim=1) for block in blocks]), dim=0)


def _values(game: MaskedGame, grad: bool) -> Tensor:
    """``(B, d, 2^n)``."""
    if game.payoff is not all_logits:
        got = getattr(game.payoff, "__name__", "a callable")
        raise InputError("game", f"the payoff {got}", "the payoff 'all', of every coordinate")
    if game.n > MOST:
        expected = f"at most {MOST}; fewer players (a coarser grid) will do"
        raise InputError("game", f"{game.n} players", expected)
    if not grad:
        return exact_values(game)
    return game(all_coalitions(game.n, game.present.device), grad=True).movedim(1, -1)
