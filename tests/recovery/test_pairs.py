"""Pairs of complements in blocks of half the size, against the whole matrices."""

import pytest
import torch

from interaction_train.indices import all_coalitions
from interaction_train.recovery.kernel import log_prior, signs, walsh_kernel
from interaction_train.recovery.pairs import from_blocks, solve
from interaction_train.recovery.players import likelihood_slope
from interaction_train.recovery.readings import order_scale, order_variances


def rows(kind: str) -> torch.Tensor:
    """14 rows of 9 players: pairs of complements one after the other, or not."""
    first = torch.rand(7, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    paired = torch.stack([first, ~first], 1).flatten(0, 1)
    return signs(paired if kind == "pairs" else paired.roll(1, 0))


def numbers(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["pairs", "others"])
def test_variances_of_orders(kind):
    """Against all coefficients, one by one."""
    z, rho, alpha = rows(kind), 0.1 + 0.3 * numbers(9), numbers(2, 14)
    sets = all_coalitions(9)
    characters = 1 - 2 * ((z < 0).double() @ sets.double().T % 2)
    squares = (log_prior(sets, rho).exp() * (alpha @ characters)).square()
    expected = [squares[:, sets.sum(-1) == order].sum(-1) for order in range(10)]
    found = order_variances(z, alpha, rho, 9) * order_scale(rho)
    torch.testing.assert_close(found, torch.stack(expected, -1))


@pytest.mark.parametrize("kind", ["pairs", "others"])
def test_fit_with_a_free_mean(kind):
    """(K + σ² I) α + mean = y with Σα = 0, of three samples."""
    z, rho, noise = rows(kind), 0.1 + 0.3 * numbers(3, 9), 0.1 + numbers(3)
    y = numbers(3, 14)
    alpha, mean, weights = solve(z, y.unsqueeze(1), rho, noise)
    alpha, mean = from_blocks(alpha).squeeze(1), mean.squeeze(1)
    assert weights.shape[1] == (2 if kind == "pairs" else 1)
    kernel = walsh_kernel(z, z, rho)
    fitted = (kernel @ alpha.unsqueeze(-1)).squeeze(-1) + noise.unsqueeze(-1) * alpha
    torch.testing.assert_close(fitted + mean.unsqueeze(-1), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(alpha.sum(-1), torch.zeros(3).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["pairs", "others"])
def test_slope_of_the_likelihood(kind):
    """−log L of y's 13 contrasts, which a mean does not touch, at the scale that fits best."""
    z, y = rows(kind), numbers(2, 14)
    strength = (0.1 + 0.3 * numbers(2, 9)).requires_grad_()
    noise = (0.1 + numbers(2)).requires_grad_()
    basis = torch.eye(14, dtype=torch.float64)
    basis[:, 0] = 1
    contrasts = torch.linalg.qr(basis)[0][:, 1:]
    covariance = walsh_kernel(z, z, strength.tanh()) + noise[:, None, None] * torch.eye(14)
    seen, apart = y @ contrasts, contrasts.T @ covariance @ contrasts
    square = (seen * torch.linalg.solve(apart, seen)).sum(-1)
    loss = (apart.logdet() + 13 * square.log()) / 2
    slopes = torch.autograd.grad(loss.sum(), [strength, noise])
    found = likelihood_slope(z, y, strength.detach(), noise.detach())
    expected = torch.cat([slopes[0], slopes[1].unsqueeze(-1)], -1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
