"""Integrated Hessian: Integrated Gradients of Integrated Gradients, by pairs of players."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interaction_train.attributions.derivatives import path_derivatives
from interaction_train.attributions.integrated_gradients import gauss_legendre
from interaction_train.attributions.subgames import masked_attributions
from interaction_train.errors import InputError, at_least
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import one_number

_MOST = 20  # players, as the result has a number for every set


def integrated_hessian(game: MaskedGame, *, augmented: bool = False, steps: int = 20) -> Tensor:
    """Values of single players and pairs, ``(B, 2^n)``, which sum to v(N) − v(∅); other sets get 0.

    A term I(κ) goes to pairs {i, j} by 2 κ_i κ_j/|κ|² and to single players by κ_i²/|κ|², the
    policy of order 2 that Lundstrom & Razaviyayn 2023 distribute synergies by. They are integrals
    over b + u d with the weight −ln u, by Gauss quadrature that is exact for polynomials up to
    degree 2 ``steps``; one double backward pass for each player and node.

    Args:
        game: of at most 20 players; its payoff is one number.
        augmented: leave the effects of pairs whole; C(n, 2) + n times the work.
        steps: nodes of the quadrature.

    Raises:
        InputError: more players, no steps, a payoff of several numbers, or a network without
            gradient.

    Examples:
        >>> import interaction_train as it
        >>> def network(x):  # logits x0 x1 and 0
        ...     return torch.stack([x[:, 0] * x[:, 1], 0 * x[:, 0]], 1)
        >>> x, y = torch.ones(1, 2), torch.tensor([0])
        >>> game = it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y)
        >>> integrated_hessian(game).round(decimals=4)
        tensor([[0.0000, 0.2500, 0.2500, 0.5000]])
        >>> integrated_hessian(game, augmented=True).round(decimals=4).abs()
        tensor([[0., 0., 0., 1.]])
    """
    n = game.n
    at_least("steps", steps, 1)
    if n > _MOST:
        raise InputError("game", f"{n} players", f"at most {_MOST}")
    device = game.present.device
    i, j = torch.triu_indices(n, n, 1, device=device)

    def parts(inner: MaskedGame) -> Tensor:
        return _singles_and_pairs(inner, i, j, steps)

    found = parts(game)
    if augmented:
        single = torch.eye(n, dtype=torch.bool, device=device)
        pairs = single[i] | single[j]
        small = torch.cat([single, pairs])
        # What a pair's effect gives each set is what x_ij's parts have beyond x_i's and x_j's.
        alone, both = masked_attributions(game, small, parts).split([n, len(i)], -1)
        given = both.sum(-1) - (n - 1) * alone.sum(-1)
        values = one_number(game(torch.cat([torch.zeros_like(single[:1]), small]))).to(given)
        empty, one, two = values.split([1, n, len(i)], -1)
        found = found - given
        found[:, n:] += two - one[:, i] - one[:, j] + empty
    result = found.new_zeros(len(found), 1 << n)
    bits = 1 << torch.arange(n, device=device)
    result[:, torch.cat([bits, bits[i] + bits[j]])] = found
    return result


def _singles_and_pairs(game: MaskedGame, i: Tensor, j: Tensor, steps: int) -> Tensor:
    """The values of single players and then of the pairs i, j, ``(B, n + pairs)``."""
    u, weights = torch.from_numpy(_gauss_log(steps))
    slopes, bends = path_derivatives(game, u, weights, weights * u)
    return torch.cat([slopes + bends.diagonal(dim1=-2, dim2=-1), 2 * bends[:, i, j]], -1)


@lru_cache(maxsize=8)
def _gauss_log(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Nodes u and weights of the Gauss quadrature of ∫₀¹ −ln(u) f(u) du, ``(2, count)``.

    From the three-term recurrence of the weight's orthogonal polynomials (Golub & Welsch).
    """
    s, weights = gauss_legendre(10 * count + 100)
    u = s**8  # so that the sum over s is as good as the integral
    mass = -64 * weights * s**7 * np.log(s)
    diagonal, beside = np.zeros(count), np.zeros(count)
    before, now = np.zeros_like(u), np.ones_like(u) / np.sqrt(mass.sum())
    for k in range(count):
        diagonal[k] = mass @ (u * now**2)
        following = (u - diagonal[k]) * now - beside[k - 1] * before
        beside[k] = np.sqrt(mass @ following**2)
        before, now = now, following / beside[k]
    off = beside[:-1]
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return np.stack([nodes, vectors[0] ** 2 * mass.sum()])
