"""The Walsh kernel, and the errors of a kernel fit on rows left out.

A coalition is z = 1 − 2x, −1 where a player is present, and χ_S(x) = Π_{i∈S} z_i. A game
v = Σ_S c_S χ_S whose coefficients have the prior variances Π_{i∈S} ρ_i / Π_i (1 + ρ_i) has the
covariance k(x, x') = Π_i (1 + ρ_i z_i z'_i) / (1 + ρ_i), which is 1 on the diagonal. As
log(1 + ρ s) = ½ log(1 − ρ²) + s atanh ρ for s = ±1, all 2^n sets take one matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor


def signs(coalitions: Tensor) -> Tensor:
    """z = 1 − 2x of coalitions, float64."""
    return 1 - 2 * coalitions.double()


def walsh_kernel(z: Tensor, others: Tensor, rho: Tensor) -> Tensor:
    """k(x, x') ``(..., m, K)`` of z ``(..., m, n)`` and others ``(..., K, n)``; ρ ``(..., n)``."""
    strength = rho.atanh().unsqueeze(-2)
    exponent = (z * strength) @ others.transpose(-1, -2)
    return (exponent - strength.sum(-1, keepdim=True)).exp()


def log_prior(members: Tensor, rho: Tensor) -> Tensor:
    """log of the prior variance of c_S in units of the scale; sets ``(..., k, n)``, ρ ``(…, n)``.

    ``(..., k)``.
    """
    chosen = (members.to(rho) @ rho.log().unsqueeze(-1)).squeeze(-1)
    return chosen - rho.log1p().sum(-1, keepdim=True)


def complements(coalitions: Tensor) -> Tensor:
    """For every row the index of its complement among the rows, its own where there is none."""
    z = signs(coalitions)
    apart = (z @ z.T).eq(-z.shape[-1])
    own = torch.arange(len(z), device=z.device)
    return torch.where(apart.any(-1), apart.int().argmax(-1), own)


def left_out(alpha: Tensor, variance: Tensor, between: Tensor, partner: Tensor) -> Tensor:
    """y less its prediction from the other rows, a row's complement left out with it; ``(..., m)``.

    Args:
        alpha: P y, ``(..., m)``.
        variance: P_ii, ``(..., m)``.
        between: P_ip of a row and its partner, ``(..., m)``.
        partner: of :func:`complements`; rows that are their own are left out alone.
    """
    alone = partner == torch.arange(len(partner), device=partner.device)
    both = (variance * variance[..., partner] - between.square()).masked_fill(alone, 1)
    pair = (variance[..., partner] * alpha - between * alpha[..., partner]) / both
    return torch.where(alone, alpha / variance, pair)
