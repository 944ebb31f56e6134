"""The Walsh kernel against enumeration, and rows left out against refitting without them."""

import itertools
import math

import pytest
import torch

from interaction_train.indices import all_coalitions
from interaction_train.recovery import fit_rows
from interaction_train.recovery.kernel import complements, log_prior, signs, walsh_kernel
from interaction_train.recovery.players import likelihood_slope


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_of(m, n, seed=0):
    return uniform(m, n, seed=seed) < 0.5


def test_the_kernel_is_the_sum_over_all_sets():
    n, rho = 6, uniform(6) * 0.9
    x = all_coalitions(n)
    z = signs(x)
    expected = torch.zeros(64, 64, dtype=torch.float64)
    for size in range(n + 1):
        for players in itertools.combinations(range(n), size):
            character = torch.ones(64, dtype=torch.float64)
            for i in players:
                character = character * torch.where(x[:, i], -1.0, 1.0)
            expected += math.prod(rho[list(players)].tolist()) * torch.outer(character, character)
    norm = float((1 + rho).prod())
    torch.testing.assert_close(walsh_kernel(z, z, rho) * norm, expected)
    torch.testing.assert_close(log_prior(x, rho).exp().sum(), torch.ones((), dtype=torch.float64))


def test_the_kernel_of_a_thousand_players_is_finite():
    z = signs(rows_of(40, 1000))
    kernel = walsh_kernel(z, z, torch.full((1000,), 0.99, dtype=torch.float64))
    assert kernel.isfinite().all()
    torch.testing.assert_close(kernel, torch.eye(40, dtype=torch.float64))


def test_rows_left_out_equal_refits_without_them():
    x, y = rows_of(40, 9), uniform(2, 40, seed=1)
    x[1], x[3] = ~x[0], ~x[2]  # two pairs of complements; the others are alone
    model = fit_rows(x, y, rho=0.2, noise=0.05)
    partner = complements(x)
    assert partner[:5].tolist() == [1, 0, 3, 2, 4]
    residuals = torch.empty_like(y)
    for i in range(40):
        others = [j for j in range(40) if j not in (i, int(partner[i]))]
        refit = fit_rows(x[others], y[:, others], rho=0.2, noise=0.05)
        residuals[:, i] = (y - refit.predict(x))[:, i]
    spread = y - y.mean(1, keepdim=True)
    expected = 1 - residuals.square().sum(1) / spread.square().sum(1)
    torch.testing.assert_close(model.r2_loo, expected)


def test_the_slope_is_that_of_the_marginal_likelihood():
    """Of y ~ N(mean, σ²(K + λ)) with the mean integrated out and σ² at its best, by autograd."""
    m, n = 12, 4
    z, y = signs(rows_of(m, n)), uniform(1, m, seed=1)
    point = torch.cat([0.1 + uniform(n, seed=2), torch.tensor([0.3])]).double().requires_grad_()
    covariance = walsh_kernel(z, z, point[:n].tanh()) + point[n] * torch.eye(m).double()
    basis = torch.linalg.qr(torch.eye(m).double() - 1 / m).Q[:, : m - 1]  # contrasts: no mean
    contrast, rest = basis.T @ covariance @ basis, basis.T @ y[0]
    quadratic = rest @ torch.linalg.solve(contrast, rest)
    (((m - 1) * quadratic.log() + contrast.logdet()) / 2).backward()
    slope = likelihood_slope(z, y, point.detach()[None, :n], point.detach()[n:])
    torch.testing.assert_close(slope[0], point.grad)


@pytest.mark.parametrize("noise", [None, 0.0])
def test_equal_rows_do_no_harm(noise):
    x, y = rows_of(30, 5), uniform(1, 30, seed=3)
    x[10:20] = x[:10]
    assert fit_rows(x, y, noise=noise).predict(x).isfinite().all()
