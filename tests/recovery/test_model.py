"""Readings against exact indices of small games, and against sums over all sets of larger ones."""

import pytest
import torch
from torch import Tensor

from interaction_train.concepts import or_interactions
from interaction_train.errors import InputError
from interaction_train.indices import (
    all_coalitions,
    dividends,
    shapley_interactions,
    shapley_values,
)
from interaction_train.recovery import WalshModel, fit_rows, fit_walsh

N = 8
SETS = all_coalitions(N)


def random_values(batch: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 1 << n, generator=generator, dtype=torch.float64)


def listed(v: Tensor):
    """A game that looks its values up."""
    n = v.shape[-1].bit_length() - 1
    return lambda x: v[..., (x.long() << torch.arange(n)).sum(-1)]


def fourier(v: Tensor) -> Tensor:
    """c_S of all S, by their definition."""
    n = v.shape[-1].bit_length() - 1
    sets = all_coalitions(n)
    overlap = sets.double() @ sets.double().T
    return v @ (1 - 2 * (overlap % 2)) / (1 << n)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-6):
    torch.testing.assert_close(got, expected.to(got), rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def v() -> Tensor:
    return random_values(2, N)


@pytest.fixture(scope="module", params=["loo", "learned", 0.3])
def exact(request, v) -> WalshModel:
    return fit_walsh(listed(v), 1 << N, players=N, rho=request.param)


def test_all_coalitions_give_every_index_exactly(exact, v):
    close(exact.predict(SETS), v)
    close(exact.coefficient(SETS), fourier(v))
    close(exact.dividend(SETS), dividends(v))
    close(exact.or_dividend(SETS), or_interactions(v))
    close(exact.shapley(), shapley_values(v))
    close(exact.pairs(), shapley_interactions(v))
    gains = [listed(v)(SETS | own) - listed(v)(SETS & ~own) for own in torch.eye(N).bool()]
    close(exact.banzhaf(), torch.stack(gains, -1).mean(1))


def test_all_coalitions_give_the_exact_spectrum(exact, v):
    sizes, squares = SETS.sum(-1), fourier(v).square()
    orders = torch.stack([squares[:, sizes == d].sum(-1) for d in range(1, N + 1)], -1)
    close(exact.spectrum(), orders / orders.sum(-1, keepdim=True))
    assert exact.r2_holdout.isnan().all()  # nothing is left to hold out
    assert exact.fresh_values.shape == (2, 0)


def few(n: int = 10, m: int = 60) -> WalshModel:
    """A fit far from exact, with a ρ of its own per player and sample."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(m, n, generator=generator) < 0.5
    y = torch.randn(2, m, generator=generator, dtype=torch.float64)
    rho = torch.rand(2, n, generator=generator, dtype=torch.float64) * 0.8
    return WalshModel(x, y, x[:0], y[:, :0], rho, torch.tensor([0.1, 0.02]).double())


def test_readings_of_few_rows_are_those_of_the_function_that_was_fitted():
    model = few()
    n, sets = model.n, all_coalitions(model.n)
    fitted = model.predict(sets)
    close(model.coefficient(sets), fourier(fitted), 1e-9)
    close(model.dividend(sets), dividends(fitted), 1e-9)
    close(model.or_dividend(sets), or_interactions(fitted), 1e-9)
    close(model.shapley(), shapley_values(fitted), 1e-9)
    close(model.pairs(), shapley_interactions(fitted), 1e-9)
    sizes, squares = sets.sum(-1), fourier(fitted).square()
    orders = torch.stack([squares[:, sizes == d].sum(-1) for d in range(1, n + 1)], -1)
    close(model.spectrum(), orders / orders.sum(-1, keepdim=True), 1e-9)


def test_coefficients_and_their_errors_are_the_posteriors():
    """Bayesian regression on all 2^n characters, the constant's prior being flat."""
    n, model = 6, few(6, 25)
    sets = all_coalitions(n)
    characters = 1 - 2 * (model.coalitions.double() @ sets.double().T % 2)
    for at in range(2):
        rho, noise, y = model.rho[at], model.noise[at], model.values[at]
        precision = (1 + rho).prod() / torch.where(sets, rho, 1.0).prod(-1)
        precision[0] = 0
        covariance = torch.linalg.inv(characters.T @ characters / noise + precision.diag())
        mean = covariance @ characters.T @ y / noise
        scale = y @ (y - characters @ mean) / noise / 24
        close(model.coefficient(sets)[at], mean, 1e-9)
        close(model.stderr(sets)[at], (covariance.diagonal() * scale).sqrt(), 1e-9)


def test_many_players_are_read_as_they_are_counted():
    """300 players of whom 6 matter: the readings are those of the small game."""
    n, few_players = 300, [3, 50, 120, 121, 200, 299]
    v = random_values(1, 6)
    own = torch.full((1, n), 1e-12, dtype=torch.float64)
    own[:, few_players] = 0.5
    x = torch.rand(64, n, generator=torch.Generator().manual_seed(2)) < 0.5
    x[:, few_players] = all_coalitions(6)
    y, noise = listed(v)(all_coalitions(6)), torch.full((1,), 1e-11, dtype=torch.float64)
    model = WalshModel(x, y, x[:0], y[:, :0], own, noise)
    close(model.shapley()[:, few_players], shapley_values(v))
    close(model.pairs()[:, few_players][..., few_players], shapley_interactions(v))
    assert model.spectrum().shape == (1, 10)
    squares, sizes = fourier(v).square()[0], all_coalitions(6).sum(-1)
    close(model.spectrum()[0, 1], squares[sizes == 2].sum() / squares[1:].sum())


def test_the_rest_of_the_orders_is_the_last_share():
    model = few(12, 40)
    squares = fourier(model.predict(all_coalitions(12)))[:, 1:].square()
    late = all_coalitions(12)[1:].sum(-1) >= 10
    close(model.spectrum()[:, 9], squares[:, late].sum(-1) / squares.sum(-1), 1e-12)


def test_every_reading_is_linear_in_the_values_and_differentiable():
    model = few(5, 12)
    sets = [[0], [1, 4], [0, 2, 3], []]
    others = model.coalitions[:3] ^ True

    def readings(values: Tensor) -> Tensor:
        fit = fit_rows(model.coalitions, values, rho=0.3, noise=0.1)
        return torch.cat([
            fit.predict(others), fit.coefficient(sets), fit.dividend(sets), fit.or_dividend(sets),
            fit.shapley(), fit.banzhaf(), fit.pairs().flatten(1),
        ], 1)  # fmt: skip

    y = model.values
    close(readings(2 * y - 3 * y.flip(1)), 2 * readings(y) - 3 * readings(y.flip(1)), 1e-9)
    assert torch.autograd.gradcheck(readings, (y[:1].clone().requires_grad_(),))

    def nonlinear(values: Tensor) -> Tensor:
        fit = fit_rows(model.coalitions, values, rho=0.3, noise=0.1)
        return torch.cat([fit.spectrum().flatten(), fit.r2_loo])

    assert torch.autograd.gradcheck(nonlinear, (y[:1].clone().requires_grad_(),))


def test_samples_are_fitted_as_if_alone():
    model = few()
    one = fit_rows(model.coalitions, model.values, rho="learned")
    for at in range(2):
        alone = fit_rows(model.coalitions, model.values[at : at + 1], rho="learned")
        close(one.rho[at], alone.rho[0], 1e-9)
        close(one[at].dividend([[1, 2]]), alone.dividend([[1, 2]]), 1e-9)
        close(one.pairs()[at], alone.pairs()[0], 1e-9)


def test_the_spectrum_of_rounding_is_none():
    """The rows' complements cancel the odd orders, and a ρ so small leaves no others."""
    model = fit_walsh(lambda x: (1 - 2 * (x.sum(-1) % 2)).double(), 200, players=10, rho=1e-6)
    assert model.spectrum().isnan().all()


def test_sets_may_differ_between_samples():
    model = few()
    sets = torch.stack([all_coalitions(10)[5:8], all_coalitions(10)[100:103]])
    for read in (model.coefficient, model.dividend, model.or_dividend, model.stderr):
        expected = torch.stack([read(sets[0])[0], read(sets[1])[1]])
        close(read(sets), expected, 1e-12)
    close(model.predict(sets)[1], model.predict(sets[1])[1], 1e-12)


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (3, "sets"),
        ([["a"]], r"sets\[0\]"),
        ([[1], [0.5]], r"sets\[1\]"),
        ([[0, 10]], r"sets\[0\]"),
        ([[0], [-1, 2]], r"sets\[1\]"),
        ([[3, 3]], r"sets\[0\]"),
        ([0, 1], r"sets\[0\]"),
        (torch.zeros(3, 9, dtype=torch.bool), "sets"),
        (torch.zeros(3, 10), "sets"),
        (torch.zeros(3, 3, 10, dtype=torch.bool), "sets"),
    ],
)
def test_sets_out_of_range_are_named(sets, named):
    with pytest.raises(InputError, match=named):
        few().dividend(sets)


def test_coalitions_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="coalitions"):
        few().predict(torch.zeros(3, 9, dtype=torch.bool))
