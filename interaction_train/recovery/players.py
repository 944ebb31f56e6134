"""One ρ per player, by marginal likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.recovery.hyperparameters import LEAST_NOISE
from interaction_train.recovery.kernel import signs
from interaction_train.recovery.pairs import kernel_blocks, to_blocks

_STEPS, _RATE = 30, 0.3  # of Adam, on logarithms
_DECAY = 0.8, 0.95
_SPREAD = 2.0  # standard deviation of log(atanh ρ_i) around the single ρ's
_LARGEST = 3.0  # of atanh ρ: ρ = .995
_CELLS = 2**22  # numbers in one block of kernels


def learn_players(
    coalitions: Tensor, values: Tensor, rho: Tensor, noise: Tensor, fixed_noise: bool = False
) -> tuple[Tensor, Tensor]:
    """ρ of every player ``(B, n)`` and the noise ``(B,)`` that make the values most likely.

    The marginal likelihood, the mean integrated out and the scale σ² at its best value, times a
    normal prior of log(atanh ρ_i) around a single ρ. A fixed number of Adam's steps, in which a
    sample never sees the others.

    Args:
        coalitions: bool ``(m, n)``.
        values: ``(B, m)``.
        rho: ``(B,)``, where the players start and what the prior is around.
        noise: ``(B,)``, where the noise starts, or what it stays at.
        fixed_noise: whether it stays.
    """
    block = max(1, _CELLS // len(coalitions) ** 2)
    parts = [
        _learn(signs(coalitions), *samples, fixed_noise)
        for samples in zip(values.split(block), rho.split(block), noise.split(block), strict=True)
    ]
    return torch.cat([rho for rho, _ in parts]), torch.cat([noise for _, noise in parts])


def _learn(
    z: Tensor, values: Tensor, rho: Tensor, noise: Tensor, fixed_noise: bool
) -> tuple[Tensor, Tensor]:
    n = z.shape[-1]
    start = torch.cat([rho.atanh().unsqueeze(-1).expand(-1, n), noise.unsqueeze(-1)], -1).log()
    point, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, _STEPS + 1):
        strength, level = _read(point)
        slope = likelihood_slope(z, values, strength, level) * torch.cat(
            [strength, level.unsqueeze(-1)], -1
        )
        slope[:, :n] += (point - start)[:, :n] / _SPREAD**2
        if fixed_noise:
            slope[:, n] = 0
        mean = mean.lerp(slope, 1 - _DECAY[0])
        square = square.lerp(slope.square(), 1 - _DECAY[1])
        size = (square / (1 - _DECAY[1] ** step)).sqrt() + 1e-12
        rate = _RATE * (1 - (step - 1) / _STEPS) ** 0.5
        point = point - rate * mean / (1 - _DECAY[0] ** step) / size
    strength, level = _read(point)
    return strength.tanh(), noise if fixed_noise else level


def _read(point: Tensor) -> tuple[Tensor, Tensor]:
    """atanh ρ ``(B, n)`` and the noise ``(B,)`` of their logarithms ``(B, n + 1)``."""
    both = point.exp()
    return both[:, :-1].clamp(max=_LARGEST), both[:, -1].clamp(min=LEAST_NOISE)


def likelihood_slope(z: Tensor, values: Tensor, strength: Tensor, noise: Tensor) -> Tensor:
    """Slopes of −log L in atanh ρ_i and in the noise, ``(B, n + 1)``.

    With dK = K ∘ (z_i z_iᵀ − 1) those of all players are one product: the diagonal of
    Zᵀ[(P − ααᵀ/σ²) ∘ K]Z, less the sum of the bracket. Of rows that are pairs of complements it is
    the sum over the even block and the odd one, in which z_i z_iᵀ turns one's kernel into the
    other's.
    """
    kernel = kernel_blocks(z, strength.tanh())
    blocks = kernel.shape[-3]
    own = to_blocks(values, blocks)
    covariance = kernel.clone()
    covariance.diagonal(dim1=-2, dim2=-1).add_(noise[:, None, None])
    pull = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    ones = pull[:, 0].sum(-1)  # the mean, which costs nothing, is even
    mean = ones / ones.sum(-1, keepdim=True)
    pull[:, 0] -= mean.unsqueeze(-1) * ones.unsqueeze(-2)
    alpha = (pull @ own.unsqueeze(-1)).squeeze(-1)
    scale = (own * alpha).sum((-2, -1)) / (len(z) - 1)
    alpha = alpha / scale.sqrt()[:, None, None]
    pull -= alpha.unsqueeze(-1) * alpha.unsqueeze(-2)
    turned, first = (pull * kernel.flip(-3)).sum(-3), z[::blocks]
    players = (first * (turned @ first)).sum(-2)
    players = players - (pull * kernel).sum((-3, -2, -1)).unsqueeze(-1)
    return torch.cat([players, pull.diagonal(dim1=-2, dim2=-1).sum((-2, -1)).unsqueeze(-1)], -1) / 2
