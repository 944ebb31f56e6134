"""One ρ per player, by marginal likelihood and rows held back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from interaction_train.recovery.kernel import signs, walsh_kernel
from interaction_train.recovery.pairs import (
    from_blocks,
    kernel_blocks,
    project_blocks,
    solve,
    to_blocks,
)

_STEPS, _RATE = 30, 0.3  # of Adam, on logarithms
_DECAY = 0.8, 0.95
_SPREAD = 2.0  # standard deviation of log(atanh ρ_i) around the single ρ's
_START = 0.003, 0.06  # of atanh ρ_i, where kernels of many players know a slope
_LARGEST = 3.0  # of atanh ρ: ρ = .995
_LEAST_NOISE = 1e-8  # of the kernel's diagonal
_HELD_BACK = 5  # every fifth pair of rows judges
_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way from the single ρ to the likeliest
_CELLS = 2**22  # numbers in one block of kernels


def learn_players(
    coalitions: Tensor, values: Tensor, rho: Tensor, noise: Tensor, fixed_noise: bool = False
) -> Tensor:
    """ρ of every player, ``(B, n)``: from a single one as far towards the likeliest as pays.

    Likeliest: by the marginal likelihood of four fifths of the rows, the mean integrated out and
    the scale σ² at its best value, times a normal prior of log(atanh ρ_i) around the single ρ. The
    other rows say how much of the way is taken, on that scale: none, unless more is better by over
    a standard error, or quarters of it. On few noisy rows all of it would overfit.

    Args:
        coalitions: bool ``(m, n)``.
        values: ``(B, m)``.
        rho: ``(B,)``, the single ρ.
        noise: ``(B,)``, where the noise starts, or what it stays at.
        fixed_noise: whether it stays.
    """
    z = signs(coalitions)
    judges = torch.arange(len(z), device=z.device) // 2 % _HELD_BACK == 0
    if bool(judges.all()):
        return rho.unsqueeze(-1).expand(-1, z.shape[-1]).contiguous()
    start = torch.cat([rho.atanh().unsqueeze(-1).expand(-1, z.shape[-1]), noise.unsqueeze(-1)], -1)
    start = start.clamp(min=_LEAST_NOISE).log()
    block = max(1, _CELLS // len(z) ** 2)
    samples = zip(values.split(block), start.split(block), strict=True)
    return torch.cat([_learned(z, judges, *some, fixed_noise) for some in samples])


def _learned(z: Tensor, judges: Tensor, values: Tensor, start: Tensor, fixed_noise: bool) -> Tensor:
    origin = start.clone()
    origin[:, :-1] = start[:, :-1].clamp(*map(math.log, _START))
    likeliest = _climb(z[~judges], values[:, ~judges], origin, fixed_noise)
    points = [start, *(origin.lerp(likeliest, share) for share in _SHARES)]
    errors = torch.stack([_errors(z, judges, values, point) for point in points])
    gain = errors[0] - errors
    stderr = gain.std(-1) / errors.shape[-1] ** 0.5
    certain = gain.mean(-1) > stderr  # by more than chance; never of the single ρ itself
    best = errors.mean(-1).masked_fill(~certain, torch.inf).argmin(0)  # none certain: the first
    point = torch.stack(points)[best, torch.arange(len(best), device=best.device)]
    return _read(point)[0].tanh()


def _errors(z: Tensor, judges: Tensor, values: Tensor, point: Tensor) -> Tensor:
    """Squared errors on the judging rows, ``(B, rows)``, of a fit to the others."""
    strength, noise = _read(point)
    rows, rho = z[~judges], strength.tanh()
    alpha, mean, _ = solve(rows, values[:, None, ~judges], rho, noise)
    found = from_blocks(alpha) @ walsh_kernel(rows, z[judges], rho)
    return (values[:, judges] - (found + mean.unsqueeze(-1)).squeeze(1)).square()


def _climb(z: Tensor, values: Tensor, start: Tensor, fixed_noise: bool) -> Tensor:
    """A fixed number of Adam's steps, in which a sample never sees the others: ``(B, n + 1)``.

    Points are logarithms of atanh ρ and, last, of the noise.
    """
    n = z.shape[-1]
    point, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
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
    return point


def _read(point: Tensor) -> tuple[Tensor, Tensor]:
    """atanh ρ ``(B, n)`` and the noise ``(B,)`` of their logarithms ``(B, n + 1)``."""
    both = point.exp()
    return both[:, :-1].clamp(max=_LARGEST), both[:, -1].clamp(min=_LEAST_NOISE)


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
    pull, _ = project_blocks(kernel, noise)
    alpha = (pull @ own.unsqueeze(-1)).squeeze(-1)
    scale = (own * alpha).sum((-2, -1)) / (len(z) - 1)
    alpha = alpha / scale.sqrt()[:, None, None]
    pull = pull - alpha.unsqueeze(-1) * alpha.unsqueeze(-2)
    turned, first = (pull * kernel.flip(-3)).sum(-3), z[::blocks]
    players = (first * (turned @ first)).sum(-2)
    players = players - (pull * kernel).sum((-3, -2, -1)).unsqueeze(-1)
    return torch.cat([players, pull.diagonal(dim1=-2, dim2=-1).sum((-2, -1)).unsqueeze(-1)], -1) / 2
