"""Integrated and Expected Gradients."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from interaction_train.attributions.gradients import path_gradients
from interaction_train.attributions.subgames import over_baselines
from interaction_train.attributions.sums import player_sums
from interaction_train.errors import at_least
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide_dtype

STEPS = 64


def integrated_gradients(game: MaskedGame, *, steps: int = STEPS) -> Tensor:
    """d · ∫₀¹ ∂f(b + t d) dt with d = x − b, ``(B, n)`` (Deng et al. 2024, Eq. 25 and 26).

    It gives Σ_κ κ_i/Σκ · I(κ), summed over a player's elements. By Gauss–Legendre quadrature,
    exact for polynomials up to degree 2 ``steps``; a kink, as ReLU has, leaves an error of order
    1/``steps`` of its jump. Memory is flat in ``steps``.

    Args:
        game: its payoff is one number, its network can be differentiated.
        steps: nodes of the quadrature, at least 1.

    Raises:
        InputError: no steps, a payoff of several numbers, or a network without gradient.

    Examples:
        >>> import interaction_train as it
        >>> def network(x):  # logits x0² x1 and 0
        ...     return torch.stack([x[:, 0] ** 2 * x[:, 1], 0 * x[:, 0]], 1)
        >>> x, y = torch.tensor([[2.0, 3.0]]), torch.tensor([0])
        >>> game = it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y)
        >>> integrated_gradients(game).round(decimals=4)
        tensor([[8., 4.]])
    """
    at_least("steps", steps, 1)
    nodes, weights = gauss_legendre(steps, game.present.device)
    return player_sums(game, path_gradients(game, nodes, weights))


def expected_gradients(game: MaskedGame, *, absents: Tensor, steps: int = STEPS) -> Tensor:
    """The mean of :func:`integrated_gradients` over baselines, ``(B, n)`` (Eq. 27 and 28).

    Args:
        game: as there; its own baseline is not used.
        absents: ``(K, ...)``, baselines of which each broadcasts to the samples.
        steps: nodes of the quadrature, for each baseline.

    Raises:
        InputError: as there, or baselines that do not fit.
    """
    return over_baselines(game, absents, partial(integrated_gradients, steps=steps))


def gauss_legendre(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], in the dtype of sums."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    scaled = torch.from_numpy(np.stack([nodes / 2 + 0.5, weights / 2]))
    nodes_on, weights_on = scaled.to(device, wide_dtype(device))
    return nodes_on, weights_on
