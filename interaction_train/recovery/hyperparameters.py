"""One ρ and the noise of a Walsh kernel, chosen by leaving rows out."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.recovery.kernel import complements, left_out, signs, walsh_kernel

RHOS = (0.003, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
NOISES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
LEAST_NOISE = 1e-8  # of the kernel's diagonal: rows may be equal
_ROWS = 512  # that choose ρ, for which more change little


def choose_rho(coalitions: Tensor, values: Tensor) -> Tensor:
    """The ρ of :data:`RHOS` with the least error on rows left out, ``(B,)``, at its best noise."""
    rows, some = coalitions[:_ROWS], values[:, :_ROWS]
    rhos = values.new_tensor(RHOS)
    least = torch.stack([_errors(rows, some, rho).amin(-1) for rho in rhos], -1)
    return rhos[least.argmin(-1)]


def choose_noise(coalitions: Tensor, values: Tensor, rho: Tensor) -> Tensor:
    """The noise of :data:`NOISES` with the least error on rows left out, ``(B,)``; ρ ``(B,)``."""
    noise = torch.empty_like(rho)
    for one in rho.unique():
        own = rho == one
        best = _errors(coalitions, values[own], one).argmin(-1)
        noise[own] = values.new_tensor(NOISES)[best]
    return noise


def _errors(coalitions: Tensor, values: Tensor, rho: Tensor) -> Tensor:
    """Mean squared errors on rows left out, ``(B, noises)``: one eigendecomposition for all."""
    z, partner = signs(coalitions), complements(coalitions)
    spectrum, vectors = _eigen(z, rho.expand(z.shape[-1]))
    inverse = 1 / (spectrum.clamp(min=0).unsqueeze(-1) + values.new_tensor(NOISES))
    sums = vectors @ (inverse * vectors.sum(0).unsqueeze(-1))
    total = sums.sum(0)
    variance = vectors.square() @ inverse - sums.square() / total
    between = (vectors * vectors[partner]) @ inverse - sums * sums[partner] / total
    alpha = ((values @ vectors).unsqueeze(-2) * inverse.T) @ vectors.T
    alpha = alpha - alpha.sum(-1, keepdim=True) * (sums / total).T
    return left_out(alpha, variance.T, between.T, partner).square().mean(-1)


def _eigen(z: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of the kernel of rows; of pairs of complements in a quarter of time.

    k(−x, −x') = k(x, x'), so that vectors are the same on both halves of a pair, or opposite.
    """
    first, second = z[::2], z[1::2]
    if len(z) % 2 or not torch.equal(first, -second):
        return torch.linalg.eigh(walsh_kernel(z, z, rho))
    near, far = walsh_kernel(first, first, rho), walsh_kernel(first, second, rho)
    values, halves = torch.linalg.eigh(torch.stack([near + far, near - far]))
    signed = torch.stack([halves, halves * halves.new_tensor([1, -1]).view(2, 1, 1)], 2)
    return values.flatten(), torch.cat([*signed.flatten(1, 2)], -1) / 2**0.5
