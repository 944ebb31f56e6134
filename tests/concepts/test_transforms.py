"""AND and OR transforms, against their definitions."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from interaction_train.concepts.transforms import (
    fewest_pairs,
    merge_single,
    or_interactions,
    values_from_and_or,
    values_from_or,
)
from interaction_train.errors import InputError
from interaction_train.indices import all_coalitions, dividends


def games(n: int, *lead: int) -> torch.Tensor:
    torch.manual_seed(n)
    return torch.randn(*lead, 1 << n, dtype=torch.float64)


def or_by_definition(v: torch.Tensor) -> torch.Tensor:
    n = v.shape[-1].bit_length() - 1
    full = (1 << n) - 1
    result = [v[0]]
    for s in range(1, 1 << n):
        inside = [sub for sub in range(1 << n) if sub & s == sub]
        signs = [(-1) ** (s.bit_count() - sub.bit_count()) for sub in inside]
        result.append(-sum(sign * v[full ^ sub] for sign, sub in zip(signs, inside, strict=True)))
    return torch.stack(result)


@given(st.integers(0, 5))
@settings(deadline=None, max_examples=6)
def test_or_follows_its_definition(n):
    v = games(n)
    torch.testing.assert_close(or_interactions(v), or_by_definition(v))


def test_or_is_minus_the_dividends_of_the_flipped_game():
    v = games(6, 3)
    expected = -dividends(v.flip(-1))
    torch.testing.assert_close(or_interactions(v)[..., 1:], expected[..., 1:])


@pytest.mark.parametrize("n", [0, 1, 4, 7])
def test_values_invert_both(n):
    v, share = games(n, 2, 3), games(n, 3)
    parts = dividends(v - share), or_interactions(share.expand_as(v))
    torch.testing.assert_close(values_from_and_or(*parts), v)
    torch.testing.assert_close(values_from_or(or_interactions(v)), v)


def test_an_or_counts_where_one_of_its_players_is():
    i_or = torch.zeros(16)
    i_or[0b0110] = 1.5
    i_or[0] = 0.25
    members = all_coalitions(4)[:, 1:3].any(1)
    torch.testing.assert_close(values_from_or(i_or), 0.25 + 1.5 * members)


def test_an_or_of_k_players_is_many_ands():
    i_or = torch.zeros(32)
    i_or[0b10110] = 1.0
    assert int((dividends(values_from_or(i_or)).abs() > 1e-6).sum()) == 2**3 - 1


def test_single_players_merge_into_and():
    i_and, i_or = games(4, 2), games(4, 2) + 1
    a, o = merge_single(i_and, i_or)
    single = all_coalitions(4).sum(1) <= 1
    assert bool((o[:, single] == 0).all())
    torch.testing.assert_close(o[:, ~single], i_or[:, ~single])
    torch.testing.assert_close(a[:, ~single], i_and[:, ~single])
    torch.testing.assert_close(values_from_and_or(a, o), values_from_and_or(i_and, i_or))


def test_two_players_instead_of_their_and_and_or():
    i_and, i_or = merge_single(games(5, 40), games(5, 40) + 1)
    a, o = fewest_pairs(i_and, i_or)
    torch.testing.assert_close(values_from_and_or(a, o), values_from_and_or(i_and, i_or))
    pair = all_coalitions(5).sum(1) == 2
    assert bool((a * o <= 0)[:, pair].all())
    assert bool((i_and * i_or > 0)[:, pair].any())
    before, after = (x.abs().sum(-1) + y.abs().sum(-1) for x, y in ((i_and, i_or), (a, o)))
    assert bool((after <= before + 1e-9).all())
    assert bool(((a != 0).sum(-1) + (o != 0).sum(-1) < 2 * 32 - 6).all())


def test_gradients():
    v = games(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(or_interactions, v)
    assert torch.autograd.gradcheck(values_from_and_or, (v, games(3, 2).requires_grad_()))
    assert torch.autograd.gradcheck(merge_single, (v, v))


@pytest.mark.parametrize("function", [values_from_and_or, merge_single])
def test_other_numbers_of_players_are_refused(function):
    with pytest.raises(InputError, match="i_or: got shape"):
        function(games(3), games(2))


def test_a_length_that_is_no_power_of_two_is_refused():
    with pytest.raises(InputError, match="v: got"):
        or_interactions(torch.zeros(3))
