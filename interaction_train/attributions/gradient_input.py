"""Gradient × Input."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.gradients import path_gradients
from interaction_train.attributions.sums import player_sums
from interaction_train.game.masked import MaskedGame


def gradient_input(game: MaskedGame) -> Tensor:
    """Gradient times difference from the baseline, d · ∂f(x) with d = x − b, ``(B, n)``.

    A player gets the sum over its elements. In Taylor effects at the baseline it is Σ_κ κ_i I(κ),
    by Euler's theorem. Deng et al. 2024, Eq. 14 and 15, print x · ∂f(x), which is the same where
    the baseline is 0, and as its share the first-order effect ∂_i f(b) d_i alone, which it is only
    for linear networks.

    Raises:
        InputError: a payoff of several numbers, or a network without gradient.

    Examples:
        >>> import interaction_train as it
        >>> def network(x):  # logits x0² x1 and 0
        ...     return torch.stack([x[:, 0] ** 2 * x[:, 1], 0 * x[:, 0]], 1)
        >>> x, y = torch.tensor([[2.0, 3.0]]), torch.tensor([0])
        >>> gradient_input(it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y))
        tensor([[24., 12.]])
    """
    once = torch.ones(1)
    return player_sums(game, path_gradients(game, once, once))
