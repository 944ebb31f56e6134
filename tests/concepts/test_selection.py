"""Selected concepts, against brute force and torch's least squares."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from interaction_train.concepts.patterns import counted_on
from interaction_train.concepts.selection import decomposed, removal_costs, select_concepts
from interaction_train.errors import InputError
from interaction_train.indices.exact import all_coalitions
from tests.concepts.games import (
    ANDS,
    ORS,
    all_patterns,
    column,
    concepts_of,
    counts_on,
    design,
    exact_game,
    made_of,
    only_dividends,
    permuted,
    random_game,
    row,
    subsets,
)

KNOWN = {(False, p): x for p, x in ANDS.items()} | {(True, p): x for p, x in ORS.items()}


def slow_values(concepts, constant, n):
    """The game of (is_or, players) → value, coalition by coalition."""
    return torch.tensor(
        [
            constant + sum(x for (o, p), x in concepts.items() if counts_on(p, o, c))
            for c in subsets(n)
        ],
        dtype=torch.float64,
    )


def slow_r2(v, fitted):
    return float(1 - ((v - fitted) ** 2).sum() / ((v - v.mean()) ** 2).sum())


@pytest.mark.parametrize("settings", [{"count": 5}, {"count": 512}, {"r2": 1.0}, {"r2": 0.9999}])
@pytest.mark.parametrize("refit", [True, False])
def test_the_exact_game_is_its_five_concepts(settings, refit):
    surrogate = select_concepts(*exact_game(), **settings, refit=refit)
    assert concepts_of(surrogate) == pytest.approx(KNOWN, abs=1e-9)
    assert surrogate.count.tolist() == [5]
    assert float(surrogate.constant) == pytest.approx(0.25)
    assert float(surrogate.r2) == pytest.approx(1)
    assert float(surrogate.max_error) < 1e-9


def test_the_strongest_come_first_and_ties_by_lowest_index():
    i_and, i_or = row({(0, 1): 1.0, (2,): -1.0, (0,): 3.0}, 3), row({(0, 1): 1.0, (1, 2): 2.0}, 3)
    surrogate = select_concepts(*made_of(i_and, i_or), count=4, refit=False)
    kept = [(False, (0,)), (True, (1, 2)), (False, (0, 1)), (False, (2,))]
    assert list(concepts_of(surrogate)) == kept


@given(st.integers(1, 32), st.booleans())
@settings(deadline=None, max_examples=15)
def test_values_are_those_of_the_sum_over_concepts(count, refit):
    concepts, v = random_game(4)
    surrogate = select_concepts(concepts, v, count=count, refit=refit)
    fitted = surrogate(all_coalitions(4))
    assert fitted.shape == (3, 16)
    for b in range(3):
        slow = slow_values(concepts_of(surrogate, b), float(surrogate.constant[b]), 4)
        torch.testing.assert_close(fitted[b], slow)
        assert float(surrogate.r2[b]) == pytest.approx(slow_r2(v[b], slow))
        assert float(surrogate.max_error[b]) == pytest.approx(float((v[b] - slow).abs().max()))


@pytest.mark.parametrize("count", [1, 4, 12])
def test_refit_is_least_squares(count):
    concepts, v = random_game(5)
    surrogate = select_concepts(concepts, v, count=count)
    for b in range(3):
        explicit = design(surrogate.members[b], surrogate.is_or[b])
        best = torch.linalg.lstsq(explicit, v[b, :, None]).solution[:, 0]
        torch.testing.assert_close(surrogate.constant[b], best[0])
        torch.testing.assert_close(surrogate.value[b], best[1:])


@pytest.mark.parametrize("n", [2, 5, 8])
def test_all_concepts_explain_all(n):
    """Also where they are far too many to be independent, and where their values are wrong."""
    concepts, v = random_game(n)
    torch.manual_seed(0)
    other = torch.randn(v.shape, dtype=torch.float64)
    for game in (v, other):
        surrogate = select_concepts(concepts, game, count=2 << n)
        torch.testing.assert_close(surrogate.r2, torch.ones(3).double())
        assert float(surrogate.max_error.max()) < 1e-8
        torch.testing.assert_close(surrogate(all_coalitions(n)), game)


def test_removal_costs_are_those_of_removing():
    n = 4
    concepts, v = random_game(n)
    v = v + torch.linspace(-1, 1, 16).double()
    values, weights, _ = decomposed(concepts, v)
    fitted = concepts.values()
    costs = removal_costs(values - fitted, weights, counted_on(n, values.device))
    assert bool((costs[:, [0, 16]] == 0).all())
    for b, (j, (is_or, players)) in itertools.product(range(3), enumerate(all_patterns(n))):
        if players:
            part = concepts.or_[b] if is_or else concepts.and_[b]
            without = fitted[b] - part[j % 16] * column(players, is_or, n)
            slow = ((v[b] - without) ** 2).sum() - ((v[b] - fitted[b]) ** 2).sum()
            torch.testing.assert_close(costs[b, j], slow)


def slow_removal(concepts, constant, v, r2, n):
    """C3's greedy removal, every candidate tried."""
    while True:
        tried = {
            gone: slow_values({c: x for c, x in concepts.items() if c != gone}, constant, n)
            for gone in concepts
        }
        gone = min(tried, key=lambda c: float(((v - tried[c]) ** 2).sum()))
        if slow_r2(v, tried[gone]) < r2:
            return concepts
        concepts = {c: x for c, x in concepts.items() if c != gone}


@pytest.mark.parametrize("r2", [0.5, 0.9, 0.999])
def test_greedy_removal_is_that_of_trying_all(r2):
    concepts, v = random_game(4)
    everything = select_concepts(concepts, v, count=32, refit=False)
    surrogate = select_concepts(concepts, v, r2=r2, refit=False)
    assert bool((surrogate.r2 >= r2).all())
    for b in range(3):
        slow = slow_removal(concepts_of(everything, b), float(concepts.constant[b]), v[b], r2, 4)
        assert concepts_of(surrogate, b) == pytest.approx(slow)


def test_refit_only_raises_r2():
    concepts, v = random_game(6)
    raw, refitted = (select_concepts(concepts, v, r2=0.8, refit=refit) for refit in (False, True))
    assert bool((raw.members == refitted.members).all())
    assert bool((refitted.r2 > raw.r2).all())


@pytest.mark.parametrize("chosen", [{"count": 12}, {"r2": 0.9}])
@pytest.mark.parametrize("refit", [True, False])
def test_a_batch_is_its_samples(chosen, refit):
    concepts, v = random_game(5, strong=7)
    quiet, _ = random_game(5, strong=1)
    i_and = torch.cat([concepts.and_[:2], quiet.and_[2:]])
    i_or = torch.cat([concepts.or_[:2], quiet.or_[2:]])
    batch, v = made_of(i_and, i_or, concepts.constant)
    together = select_concepts(batch, v, **chosen, refit=refit)
    assert len(set(together.count.tolist())) > 1  # samples of different lengths
    assert together.members.shape[1] == int(together.count.max())
    for b in range(3):
        alone, _ = made_of(i_and[b], i_or[b], concepts.constant[b])
        one = select_concepts(alone, v[b], **chosen, refit=refit)
        assert len(one) == 1
        for field in dataclasses.fields(one):
            mine, other = getattr(together[b], field.name), getattr(one, field.name)
            torch.testing.assert_close(mine, other, msg=field.name)
        padding = slice(int(together.count[b]), None)
        assert not bool(together.members[b, padding].any() | together.is_or[b, padding].any())
        assert not bool(together.value[b, padding].any())


@pytest.mark.parametrize("chosen", [{"count": 9}, {"r2": 0.9}])
def test_permuted_players_permute_the_result(chosen):
    order = [3, 0, 4, 2, 1]
    concepts, v = random_game(5, batch=1)
    i_and, i_or = permuted(concepts.and_, order), permuted(concepts.or_, order)
    other, w = made_of(i_and, i_or, concepts.constant)
    torch.testing.assert_close(w, permuted(v, order))
    before = concepts_of(select_concepts(concepts, v, **chosen))
    after = concepts_of(select_concepts(other, w, **chosen))
    renamed = {(o, tuple(sorted(order[i] for i in p))): x for (o, p), x in after.items()}
    assert renamed == pytest.approx(before)


def test_calls_take_coalitions_of_each_sample():
    surrogate = select_concepts(*random_game(4), count=6)
    coalitions = torch.rand(3, 7, 4) < 0.5
    each = surrogate(coalitions)
    for b in range(3):
        torch.testing.assert_close(each[b], surrogate(coalitions[b])[b])
        torch.testing.assert_close(each[b : b + 1], surrogate[b](coalitions[b]))
    assert [len(one) for one in surrogate] == [1, 1, 1]
    torch.testing.assert_close(surrogate[-1].value, surrogate[2].value)


def test_single_precision_comes_back_as_such():
    concepts, v = random_game(4, dtype=torch.float32)
    surrogate = select_concepts(concepts, v, count=6)
    assert surrogate.value.dtype == surrogate.r2.dtype == torch.float32
    wide = select_concepts(*random_game(4), count=6)
    torch.testing.assert_close(surrogate.value.double(), wide.value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chosen", [{"count": 3}, {"r2": 0.9}])
def test_a_constant_game_has_no_concepts_and_no_r2(chosen):
    v = torch.full((2, 8), 0.1)
    surrogate = select_concepts(only_dividends(torch.zeros(2, 8)), v, **chosen)
    assert surrogate.members.shape == (2, 0, 3)
    assert bool(surrogate.r2.isnan().all())
    torch.testing.assert_close(surrogate(all_coalitions(3)), v)


def test_a_decomposition_that_is_too_coarse_for_r2_warns():
    concepts, v = random_game(4, batch=1)
    with pytest.warns(UserWarning, match="1 of 1 surrogates stay below r2 = 0.99"):
        select_concepts(concepts, v + torch.linspace(0, 9, 16), r2=0.99, refit=False)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "count: got None and r2 = None, expected exactly one"),
        ({"count": 1, "r2": 0.5}, "expected exactly one"),
        ({"count": 0}, r"count: got 0, expected in \[1, 32\]"),
        ({"count": 33}, "count: got 33"),
        ({"r2": 0.0}, r"r2: got 0.0, expected in \(0, 1\]"),
        ({"r2": 1.1}, "r2: got 1.1"),
        ({"r2": float("nan")}, "r2: got nan"),
    ],
)
def test_bad_choices_are_refused(chosen, message):
    with pytest.raises(InputError, match=message):
        select_concepts(*random_game(4), **chosen)


def test_bad_values_are_refused():
    concepts, v = random_game(4)
    for bad in (v[:, :15], v.long(), v[:2], v[:, :8], v[0], v[None], v * torch.nan):
        with pytest.raises(InputError, match="v: got"):
            select_concepts(concepts, bad, count=2)
    surrogate = select_concepts(concepts, v, count=2)
    for bad in (torch.ones(2, 4), torch.ones(2, 3).bool(), torch.ones(4).bool()):
        with pytest.raises(InputError, match="coalitions: got"):
            surrogate(bad)
    with pytest.raises(IndexError):
        surrogate[3]
