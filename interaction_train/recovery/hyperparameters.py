"""One ρ and the noise of a Walsh kernel, chosen by leaving rows out."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.recovery.kernel import complements, left_out, signs
from interaction_train.recovery.pairs import kernel_blocks, to_blocks

RHOS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
NOISES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
_ROWS = 512  # that choose ρ, for which more change little


def choose_rho(coalitions: Tensor, values: Tensor) -> Tensor:
    """The ρ of :data:`RHOS` with the least error on rows left out, ``(B,)``, at its best noise."""
    rows, some = coalitions[:_ROWS], values[:, :_ROWS]
    rhos = values.new_tensor(RHOS)
    shared = rhos.unsqueeze(-1).expand(-1, coalitions.shape[1])
    least = torch.stack([_errors(rows, some, rho).amin(-1) for rho in shared], -1)
    return rhos[least.argmin(-1)]


def choose_noise(coalitions: Tensor, values: Tensor, rho: Tensor) -> Tensor:
    """The noise of :data:`NOISES` with the least error on rows left out, ``(B,)``; ρ ``(B, n)``."""
    noise = torch.empty_like(rho[:, 0])
    distinct, which = rho.unique(dim=0, return_inverse=True)
    for at, one in enumerate(distinct):
        best = _errors(coalitions, values[which == at], one).argmin(-1)
        noise[which == at] = values.new_tensor(NOISES)[best]
    return noise


def _errors(coalitions: Tensor, values: Tensor, rho: Tensor) -> Tensor:
    """Mean squared errors on rows left out, ``(B, noises)``, at one ρ ``(n,)``.

    One eigendecomposition serves all samples and noises. Of rows that are pairs of complements, two
    that are left out together are one in each block.
    """
    spectrum, vectors = torch.linalg.eigh(kernel_blocks(signs(coalitions), rho))
    inverse = 1 / (spectrum.clamp(min=0).unsqueeze(-1) + values.new_tensor(NOISES))
    sums = vectors[0] @ (inverse[0] * vectors[0].sum(0).unsqueeze(-1))
    total = sums.sum(0)
    variance = vectors.square() @ inverse
    variance[0] -= sums.square() / total
    turned = to_blocks(values, len(vectors)).transpose(0, 1) @ vectors
    alpha = (turned.unsqueeze(-2) * inverse.mT.unsqueeze(1)) @ vectors.mT.unsqueeze(1)
    alpha[0] -= alpha[0].sum(-1, keepdim=True) * (sums / total).T
    if len(vectors) == 2:
        return (alpha / variance.mT.unsqueeze(1)).square().sum((0, -1)) / len(coalitions)
    partner = complements(coalitions)
    between = (vectors[0] * vectors[0, partner]) @ inverse[0] - sums * sums[partner] / total
    return left_out(alpha[0], variance[0].T, between.T, partner).square().mean(-1)
