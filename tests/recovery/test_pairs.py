"""Pairs of complements in blocks of half the size, against the whole matrices."""

import pytest
import torch

from interaction_train.recovery.kernel import signs, walsh_kernel
from interaction_train.recovery.pairs import eigen, kernel_blocks, solve
from interaction_train.recovery.players import likelihood_slope


def rows(kind: str) -> torch.Tensor:
    """14 rows of 9 players: pairs of complements one after the other, or not."""
    first = torch.rand(7, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    paired = torch.stack([first, ~first], 1).flatten(0, 1)
    return signs(paired if kind == "pairs" else paired.roll(1, 0))


def numbers(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["pairs", "others"])
def test_eigenvectors(kind):
    z, rho = rows(kind), 0.1 + 0.3 * numbers(9)
    assert len(kernel_blocks(z, rho)) == (2 if kind == "pairs" else 1)
    values, vectors = eigen(z, rho)
    kernel = walsh_kernel(z, z, rho)
    torch.testing.assert_close(vectors * values @ vectors.T, kernel, rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(14).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["pairs", "others"])
def test_fit_with_a_free_mean(kind):
    """(K + σ² I) α + mean = y with Σα = 0, of three samples."""
    z, rho, noise = rows(kind), 0.1 + 0.3 * numbers(3, 9), 0.1 + numbers(3)
    y = numbers(3, 14)
    alpha, mean = solve(z, y, rho, noise)
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
