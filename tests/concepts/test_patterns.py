"""K without its matrix, against its definition."""

import pytest
import torch

from interaction_train.concepts import patterns
from interaction_train.concepts.transforms import and_or_sums, values_from_and_or
from tests.concepts.games import all_patterns, column

N = 4


def matrix(n: int) -> torch.Tensor:
    """K, a column for each pattern; both patterns of ∅ are the constant."""
    return torch.stack([column(p, is_or and p != (), n) for is_or, p in all_patterns(n)], 1)


def test_sums_are_the_adjoint_of_values():
    torch.manual_seed(0)
    x, r = torch.randn(3, 2 << N).double(), torch.randn(3, 1 << N).double()
    torch.testing.assert_close(patterns.values_of(x), x @ matrix(N).T)
    torch.testing.assert_close(patterns.sums_of(r), r @ matrix(N))


def test_the_adjoint_is_differentiable_and_fits_the_transform():
    torch.manual_seed(1)
    r, a, o = torch.randn(3, 2, 8).double()
    i_and, i_or = and_or_sums(r)
    paired = (i_and * a + i_or * o).sum(-1)
    torch.testing.assert_close(paired, (r * values_from_and_or(a, o)).sum(-1))
    assert torch.autograd.gradcheck(and_or_sums, r.requires_grad_())


def test_columns_norms_and_gram():
    full = matrix(N)
    index = torch.arange(2 << N)
    torch.testing.assert_close(patterns.columns(index, N).double(), full.T)
    torch.testing.assert_close(patterns.counted_on(N, index.device).double(), full.sum(0))
    torch.testing.assert_close(patterns._gram(index[None], N)[0].double(), full.T @ full)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_small_numbers_of_players(n):
    v = torch.arange(1.0, 1 + (1 << n)).double()[None]
    index = torch.arange(2 << n)[None]
    free, best = patterns.least_squares(v, index, torch.ones_like(index, dtype=torch.bool))
    torch.testing.assert_close(free + patterns.values_of(best), v)
