"""K without its matrix, against its definition."""

import pytest
import torch

from interaction_train.concepts import patterns
from tests.concepts.games import all_patterns, column

N = 4


def matrix(n: int) -> torch.Tensor:
    """K, a column for each pattern; the AND of ∅ is the constant, its OR nothing."""
    return torch.stack([column(p, is_or, n) for is_or, p in all_patterns(n)], 1)


def test_sums_are_the_adjoint_of_values():
    torch.manual_seed(0)
    x, r = torch.randn(3, 2 << N).double(), torch.randn(3, 1 << N).double()
    torch.testing.assert_close(patterns.values_of(x), x @ matrix(N).T)
    torch.testing.assert_close(patterns.sums_of(r), r @ matrix(N))


def test_columns_norms_and_gram():
    full = matrix(N)
    index = torch.arange(2 << N)
    torch.testing.assert_close(patterns.columns(index, N).double(), full.T)
    torch.testing.assert_close(patterns.counted_on(N, index.device).double(), full.sum(0))
    torch.testing.assert_close(patterns._gram(index[None], N)[0].double(), full.T @ full)


@pytest.mark.parametrize("n", [1, 3])
def test_small_numbers_of_players(n):
    v = torch.arange(1.0, 1 + (1 << n)).double()[None]
    index = torch.arange(2 << n)[None]
    free, best = patterns.least_squares(v, index, torch.ones_like(index, dtype=torch.bool))
    torch.testing.assert_close(free + patterns.values_of(best), v)
