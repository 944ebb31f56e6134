"""Gradient × Input, and its means on the way: Integrated and Expected Gradients."""

from __future__ import annotations

import warnings
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interaction_train.attributions.gradients import (
    pass_rows,
    path_gradients,
    path_payoffs,
    player_sums,
)
from interaction_train.attributions.subgames import over_baselines
from interaction_train.errors import whole
from interaction_train.game.masked import MaskedGame

STEPS = 64
_TOLERANCE = 0.02  # of Σ|a|, by which a sum may miss the change of the payoff
_MISSED = (
    "{} miss up to {:.1%} of Σ|a| of v(N) - v(∅): their integral is only near, with steps={}; "
    "with more it comes nearer"
)


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


def integrated_gradients(game: MaskedGame, *, steps: int = STEPS, check: bool = True) -> Tensor:
    """d · ∫₀¹ ∂f(b + t d) dt with d = x − b, ``(B, n)`` (Deng et al. 2024, Eq. 25 and 26).

    It gives Σ_κ κ_i/Σκ · I(κ), summed over a player's elements. By Gauss–Legendre quadrature,
    exact for polynomials up to degree 2 ``steps``; a kink, as ReLU has, leaves an error of order
    1/``steps`` of its jump: where the sum of a sample misses v(N) − v(∅) by more than 2 % of Σ|a|,
    a UserWarning says so. Memory is flat in ``steps``.

    Args:
        game: its payoff is one number, its network can be differentiated.
        steps: nodes of the quadrature, at least 1.
        check: compare the sums, with two more evaluations of each sample.

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
    whole("steps", steps, 1)
    return _checked("integrated gradients", _integral(game, steps, check), steps, check)


def expected_gradients(
    game: MaskedGame, *, absents: Tensor, steps: int = STEPS, check: bool = True
) -> Tensor:
    """The mean of :func:`integrated_gradients` over baselines, ``(B, n)`` (Eq. 27 and 28).

    Args:
        game: as there; its own baseline is not used.
        absents: ``(K, ...)``, baselines of which each broadcasts to the samples.
        steps: nodes of the quadrature, for each baseline.
        check: as there, of the means.

    Raises:
        InputError: as there, or baselines that do not fit.
    """
    whole("steps", steps, 1)
    found = over_baselines(game, absents, partial(_integral, steps=steps, check=check))
    return _checked("expected gradients", found, steps, check)


def _integral(game: MaskedGame, steps: int, check: bool) -> Tensor:
    """Attributions ``(B, n)``; to check, in two more columns what they miss, and rounding."""
    nodes, weights = torch.from_numpy(gauss_legendre(steps))
    elements = path_gradients(game, nodes, weights)
    found = player_sums(game, elements)
    if not check:
        return found
    values = path_payoffs(game, torch.tensor([0.0, 1.0]), pass_rows(game, 2 * len(found)))
    base, value = values.to(found).T
    missed = elements.flatten(1).sum(1) - (value - base)
    rounding = 512 * torch.finfo(game.present.dtype).eps * torch.maximum(value.abs(), base.abs())
    return torch.cat([found, missed[:, None], rounding[:, None]], 1)


def _checked(name: str, found: Tensor, steps: int, check: bool) -> Tensor:
    """Attributions of :func:`_integral`, with a warning where they miss too much."""
    if not check:
        return found
    found, missed, rounding = found[:, :-2], found[:, -2].abs(), found[:, -1]
    size = found.abs().sum(1)
    wrong = ~(missed <= _TOLERANCE * size + rounding)  # also when NaN
    if bool(wrong.any()):
        worst = float((missed / size)[wrong].max())
        warnings.warn(_MISSED.format(name, worst, steps), UserWarning, stacklevel=3)
    return found


@lru_cache(maxsize=8)
def gauss_legendre(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Nodes and weights on [0, 1], ``(2, count)``."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return np.stack([nodes / 2 + 0.5, weights / 2])
