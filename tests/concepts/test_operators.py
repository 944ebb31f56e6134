"""The fast operators, against the matrices that they stand for."""

import pytest
import torch

from interaction_train.concepts.operators import Operators
from interaction_train.concepts.transforms import values_from_and_or

CPU = torch.device("cpu")


def matrix(n: int) -> torch.Tensor:
    """K from its definition, ``(2^n, 2·2^n)``."""
    sets = range(1 << n)
    rows = [
        [float(s & part == part) for part in sets] + [float(s & part != 0) for part in sets]
        for s in sets
    ]
    return torch.tensor(rows, dtype=torch.float64)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_values_and_adjoint_are_the_matrix(n):
    ops, k = Operators(n, CPU), matrix(n)
    x, y = random(3, 2, 1 << n), random(2, 3, 1 << n)
    torch.testing.assert_close(ops.values(x), x.flatten(1) @ k.T)
    torch.testing.assert_close(ops.adjoint(y).flatten(2), y @ k)
    x[:, 1, 0] = 0
    torch.testing.assert_close(ops.values(x), values_from_and_or(x[:, 0], x[:, 1]))


@pytest.mark.parametrize("n", [1, 2, 4, 6, 7, 8])
def test_the_inverse_is_the_inverse(n):
    ops, gram, y = Operators(n, CPU), matrix(n) @ matrix(n).T, random(3, 1 << n)
    for tau in (0.003, 1.0, 40.0):
        expected = torch.linalg.solve(gram + tau * torch.eye(1 << n, dtype=torch.float64), y.T).T
        torch.testing.assert_close(ops.solve(y, tau), expected, rtol=1e-6, atol=1e-8)
    rates = torch.tensor([[0.5], [2.0], [9.0]], dtype=torch.float64)
    each = torch.stack([ops.solve(row, float(rate)) for row, rate in zip(y, rates, strict=True)])
    torch.testing.assert_close(ops.solve(y, rates), each)


@pytest.mark.parametrize("n", [1, 3, 6, 8])
def test_the_basis_is_orthonormal_and_diagonalises(n):
    ops, eye = Operators(n, CPU), torch.eye(1 << n, dtype=torch.float64)
    basis = ops.spectral(eye)
    torch.testing.assert_close(basis @ basis.T, eye)
    torch.testing.assert_close(ops.from_spectral(basis), eye)
    gram = matrix(n) @ matrix(n).T
    diagonal = basis.T @ gram @ basis
    size = float(gram.abs().max())
    torch.testing.assert_close(diagonal, torch.diag(ops.lam), rtol=0, atol=1e-12 * size * 2**n)


def test_memory_and_time_of_many_players():
    ops, y = Operators(14, CPU), random(1, 1 << 14)
    torch.testing.assert_close(ops.values(ops.adjoint(ops.solve(y, 1.0))) + ops.solve(y, 1.0), y)
