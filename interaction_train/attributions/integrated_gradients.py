"""Integrated and Expected Gradients."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interaction_train.attributions.gradients import path_gradients
from interaction_train.attributions.subgames import over_baselines
from interaction_train.attributions.sums import player_sums
from interaction_train.errors import at_least
from interaction_train.game.masked import MaskedGame

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
    nodes, weights = torch.from_numpy(gauss_legendre(steps))
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


@lru_cache(maxsize=8)
def gauss_legendre(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Nodes and weights on [0, 1], ``(2, count)``."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return np.stack([nodes / 2 + 0.5, weights / 2])
