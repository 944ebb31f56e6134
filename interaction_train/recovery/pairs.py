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


def from_blocks(values: Tensor) -> Tensor:
    """Back from ``(..., 1, m)`` or ``(..., 2, m/2)`` to ``(..., m)``."""
    if values.shape[-2] == 1:
        return values.squeeze(-2)
    even, odd = values.unbind(-2)
    return torch.stack([even + odd, even - odd], -1).flatten(-2) / 2**0.5


def project_blocks(kernel: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What the blocks ``(..., b, h, h)`` of a kernel with a noise ``(...)`` are projected with.

    With C the kernel plus the noise on its diagonal: P = C⁻¹ − C⁻¹1 (1ᵀC⁻¹1)⁻¹ 1ᵀC⁻¹, symmetric, in
    blocks, which turns values y into α = P y of a fit whose mean costs nothing; and C⁻¹1 / 1ᵀC⁻¹1
    in the first block, ``(..., h)``, to which a constant belongs.
    """
    covariance = kernel.clone()
    covariance.diagonal(dim1=-2, dim2=-1).add_(noise[..., None, None])
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    sums = inverse[..., 0, :, :].sum(-1)
    pull = sums / sums.sum(-1, keepdim=True)
    inverse[..., 0, :, :] -= pull.unsqueeze(-1) * sums.unsqueeze(-2)
    return inverse, pull


def solve(z: Tensor, values: Tensor, rho: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """α in blocks ``(..., B, b, h)``, means ``(..., B)``, and P in blocks ``(..., b, h, h)``.

    Of values ``(..., B, m)`` with ρ ``(..., n)`` and a noise ``(...)``.
    """
    weights, pull = project_blocks(kernel_blocks(z, rho), noise)
    blocks = weights.shape[-3]
    own = to_blocks(values, blocks)
    alpha = (own.transpose(-2, -3) @ weights).transpose(-2, -3)
    mean = (own[..., 0, :] @ pull.unsqueeze(-1)).squeeze(-1) / blocks**0.5
    return alpha, mean, weights
