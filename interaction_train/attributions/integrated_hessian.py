"""Integrated Hessian: Integrated Gradients of Integrated Gradients, by pairs of players."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.derivatives import path_derivatives
from interaction_train.attributions.integrated_gradients import gauss_legendre
from interaction_train.attributions.subgames import masked_attributions
from interaction_train.attributions.values import values_of
from interaction_train.errors import InputError, at_least
from interaction_train.game.masked import MaskedGame

_MOST = 20  # players, as the result has a number for every set


def integrated_hessian(game: MaskedGame, *, augmented: bool = False, steps: int = 20) -> Tensor:
    """Values of single players and pairs, ``(B, 2^n)``, which sum to v(N) − v(∅); other sets get 0.

    A term I(κ) goes to pairs {i, j} by 2 κ_i κ_j/|κ|² and to single players by κ_i²/|κ|², the
    policy of order 2 that Lundstrom & Razaviyayn 2023 distribute synergies by. By integrals over
    b + u d with logarithmic weights, u = s⁴ at Gauss–Legendre nodes s; one double backward pass for
    each player and node.

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
        given = both.sum(-1) - alone @ pairs.to(alone).sum(0)
        values = values_of(game, torch.cat([torch.zeros_like(single[:1]), small])).to(given)
        empty, one, two = values.split([1, n, len(i)], -1)
        found = found - given
        found[:, n:] += two - one[:, i] - one[:, j] + empty
    result = found.new_zeros(len(found), 1 << n)
    bits = 1 << torch.arange(n, device=device)
    result[:, torch.cat([bits, bits[i] + bits[j]])] = found
    return result


def _singles_and_pairs(game: MaskedGame, i: Tensor, j: Tensor, steps: int) -> Tensor:
    """The values of single players and then of the pairs i, j, ``(B, n + pairs)``."""
    s, weights = gauss_legendre(steps, game.present.device)
    u, log = s**4, -4 * s.log()
    weights = weights * 4 * s**3 * log
    slopes, bends = path_derivatives(game, u, weights, weights * u)
    return torch.cat([slopes + bends.diagonal(dim1=-2, dim2=-1), 2 * bends[:, i, j]], -1)
