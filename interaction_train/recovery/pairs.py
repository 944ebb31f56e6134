"""Rows that are pairs of complements, whose kernel falls apart into two of half the size.

As k(−x, −x') = k(x, x'), the kernel of rows x_1, −x_1, x_2, −x_2, … maps vectors that are even, the
same on both rows of a pair, to even ones, and odd ones, opposite there, to odd ones. On these it is
A + B and A − B with A = k(x_i, x_j) and B = k(x_i, −x_j). Other rows are one block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.recovery.kernel import walsh_kernel


def are_pairs(z: Tensor) -> bool:
    """Whether every second row of ``(m, n)`` is the complement of the one before."""
    return len(z) % 2 == 0 and torch.equal(z[::2], -z[1::2])


def kernel_blocks(z: Tensor, rho: Tensor) -> Tensor:
    """The kernel of rows ``(m, n)`` with ρ ``(..., n)``, in blocks.

    ``(..., 1, m, m)``, or of pairs the even one and the odd one, ``(..., 2, m/2, m/2)``.
    """
    if not are_pairs(z):
        return walsh_kernel(z, z, rho).unsqueeze(-3)
    first = z[::2]
    near, far = walsh_kernel(first, first, rho), walsh_kernel(first, -first, rho)
    return torch.stack([near + far, near - far], -3)


def to_blocks(values: Tensor, blocks: int) -> Tensor:
    """What ``(..., m)`` is in the one block or in the two: ``(..., 1, m)`` or ``(..., 2, m/2)``."""
    if blocks == 1:
        return values.unsqueeze(-2)
    first, second = values[..., ::2], values[..., 1::2]
    return torch.stack([first + second, first - second], -2) / 2**0.5


def project_blocks(kernel: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What the blocks ``(B, b, h, h)`` of a kernel with a noise ``(B,)`` are projected with.

    P of :class:`~interaction_train.recovery.kernel.Projection` in blocks, and C⁻¹1 / 1ᵀC⁻¹1 in the
    first, ``(B, h)``, to which a constant belongs.
    """
    covariance = kernel.clone()
    covariance.diagonal(dim1=-2, dim2=-1).add_(noise[:, None, None])
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    sums = inverse[:, 0].sum(-1)
    pull = sums / sums.sum(-1, keepdim=True)
    inverse[:, 0] -= pull.unsqueeze(-1) * sums.unsqueeze(-2)
    return inverse, pull


def solve(z: Tensor, values: Tensor, rho: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """α ``(B, m)`` and the mean ``(B,)`` of values ``(B, m)``; ρ ``(B, n)``, noise ``(B,)``."""
    weights, pull = project_blocks(kernel_blocks(z, rho), noise)
    blocks = weights.shape[1]
    own = to_blocks(values, blocks)
    alpha = (weights @ own.unsqueeze(-1)).squeeze(-1)
    mean = (pull * own[:, 0]).sum(-1) / blocks**0.5
    if blocks == 1:
        return alpha[:, 0], mean
    even, odd = alpha.unbind(1)
    return torch.stack([even + odd, even - odd], -1).flatten(1) / 2**0.5, mean


def eigen(z: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(m,)`` and vectors ``(m, m)``, its columns, of a kernel with ρ ``(n,)``."""
    values, vectors = torch.linalg.eigh(kernel_blocks(z, rho))
    if len(values) == 1:
        return values[0], vectors[0]
    even, odd = vectors / 2**0.5
    both = torch.stack([torch.cat([even, odd], 1), torch.cat([even, -odd], 1)], 1)
    return values.flatten(), both.flatten(0, 1)
