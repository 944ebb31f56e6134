"""What a Walsh fit says of all sets at once: indices of players and pairs, and the spectrum.

With f = mean + Σ_j α_j k(x_j, ·), every reading is a sum over the m rows of polynomials in one
variable t, whose powers count the players of a set. Their degree is n, but what lies beyond the
orders that ρ allows is less than rounding (:func:`degree`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from interaction_train.recovery.pairs import are_pairs, to_blocks


def degree(weights: Tensor, n: int) -> int:
    """The highest order whose sets matter, of players that count with odds w_i, ``(..., n)``.

    The coefficient of t^d in Π (1 + t w_i) / Π (1 + w_i) is the probability of d among independent
    players; by Bernstein's inequality all beyond the result are less than 1e-16 together.
    """
    mean = float((weights / (1 + weights)).sum(-1).max())
    return min(n, math.ceil(mean + 9 * math.sqrt(mean) + 25))


def shapley_of(z: Tensor, alpha: Tensor, rho: Tensor) -> Tensor:
    """φ_i = −2 Σ_{S∋i, |S| odd} ĉ_S / |S|, ``(B, n)``.

    The mean of f(T) − f(T∖i) over T∋i in which every other player is present with p ~ U(0, 1):
    t = 1 − 2p from −1 to 1, Π_{k≠i} (1 + t ρ_k z_k), by Gauss and Legendre.
    """
    total = torch.zeros_like(rho)
    for node, weight in _nodes(rho):
        rows = alpha * _products(z, rho, node)
        centre = rows.sum(-1, keepdim=True)
        total = total + weight * (rows @ z - node * rho * centre) / (1 - (node * rho).square())
    return -2 * rho * total


def pairs_of(z: Tensor, alpha: Tensor, rho: Tensor) -> Tensor:
    """I^Shap(i,j) = 4 Σ_{S⊇ij, |S| even} ĉ_S / (|S| − 1), ``(B, n, n)``, 0 where i = j."""
    n = z.shape[-1]
    total = alpha.new_zeros(*rho.shape, n)
    for node, weight in _nodes(rho):
        rows = alpha * _products(z, rho, node)
        without = (1 - (node * rho).square()).unsqueeze(-2)  # z / (1 + tρz) = (z − tρ) / (1 − t²ρ²)
        ratios = (z - node * rho.unsqueeze(-2)) / without
        total = total + weight * (ratios * rows.unsqueeze(-1)).transpose(-1, -2) @ ratios
    total = 4 * total * rho.unsqueeze(-1) * rho.unsqueeze(-2)
    return total.masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), 0)


def order_variances(z: Tensor, alpha: Tensor, rho: Tensor, top: int) -> Tensor:
    """Σ_{|S|=d} ĉ_S² of d = 0 … top in units of :func:`order_scale`, ``(B, top + 1)``; one ρ (n,).

    αᵀ G(t) α with G(t) = Π_i (1 + t ρ_i² z_i z'_i) at the roots of unity, and their Fourier
    transform back: the powers of t. ``top`` is the :func:`degree` of ρ², at least. That of ∅ lacks
    the mean. Of pairs of complements half the rows do: the even part of α has all the even orders,
    the odd part the odd ones.
    """
    squares, values = rho.square(), []
    blocks = 2 if are_pairs(z) else 1
    turned, z = to_blocks(alpha, blocks).to(torch.complex128), z[::blocks]
    for k in range((top + 1) // 2 + 1):  # the other half are conjugates
        angle = 2 * math.pi * k / (top + 1)
        point = torch.complex(math.cos(angle) * squares, math.sin(angle) * squares)
        plus, minus = (1 + point).log(), (1 - point).log()
        odd, even = (plus - minus) / 2, (plus + minus).sum() / 2 - squares.log1p().sum()
        kernel = (torch.complex((odd.real * z) @ z.T, (odd.imag * z) @ z.T) + even).exp()
        values.append(((turned @ kernel) * turned).sum(-1))
    orders = torch.fft.irfft(torch.stack(values, -1).conj(), top + 1)
    if blocks == 1:
        return orders[:, 0]
    odd = torch.arange(top + 1, device=z.device) % 2 == 1
    return 2 * torch.where(odd, orders[:, 1], orders[:, 0])


def order_scale(rho: Tensor) -> Tensor:
    """The unit of :func:`order_variances`, ``(...)``."""
    return (rho.square().log1p().sum(-1) - 2 * rho.log1p().sum(-1)).exp()


def _products(z: Tensor, rho: Tensor, node: float) -> Tensor:
    """Π_k (1 + t ρ_k z_k) / (1 + ρ_k) of every row, ``(B, m)``."""
    scaled = node * rho
    constant = (1 - scaled.square()).log().sum(-1) / 2 - rho.log1p().sum(-1)
    return (scaled.atanh() @ z.T + constant.unsqueeze(-1)).exp()


def _nodes(rho: Tensor) -> list[tuple[float, float]]:
    """Places in [−1, 1] and weights that sum to 1, exact up to the degree that matters."""
    count = degree(rho, rho.shape[-1]) // 2 + 1
    places, weights = np.polynomial.legendre.leggauss(count)
    return list(zip(places.tolist(), (weights / 2).tolist(), strict=True))
