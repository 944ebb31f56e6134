"""Samplers of coalitions: exact sizes, and the right distribution by chi-square at fixed seeds."""

import itertools
import math

import pytest
import torch

from interaction_train.errors import InputError
from interaction_train.sampling.coalitions import bernoulli, disjoint_groups, uniform
from interaction_train.sampling.random import Draws


def keys_of(*shape, seed=0):
    """Random keys ``shape``: a batch of stateless draws."""
    return Draws(torch.arange(shape[0]), seed, "coalitions test").bits("keys", *shape[1:])


def codes(coalitions):
    """A number per coalition: bit i for player i."""
    return (coalitions * 2 ** torch.arange(coalitions.shape[-1])).sum(-1).flatten()


def score(observed, expected):
    """Chi-square in standard deviations above its mean, for counts and their expectations."""
    observed = observed.double().flatten()
    expected = torch.as_tensor(expected, dtype=torch.float64).expand_as(observed)
    assert expected.min() >= 5
    freedom = len(observed) - 1
    return (float(((observed - expected) ** 2 / expected).sum()) - freedom) / (2 * freedom) ** 0.5


def is_uniform(numbers, outcomes):
    """Whether every wanted outcome comes equally often, and no other one comes."""
    values, counts = numbers.unique(return_counts=True)
    return len(values) == outcomes and abs(score(counts, len(numbers) / outcomes)) < 4


class TestUniform:
    @pytest.mark.parametrize("size", range(6))
    def test_sizes_are_exact(self, size):
        coalitions = uniform(keys_of(50, 4, 5), size)
        assert coalitions.shape == (50, 4, 5)
        assert coalitions.dtype == torch.bool
        assert (coalitions.sum(-1) == size).all()

    @pytest.mark.parametrize("n", [4, 6])
    def test_uniform_over_all_coalitions_of_the_size(self, n):
        for size in range(1, n):
            assert is_uniform(codes(uniform(keys_of(12_000, n), size)), math.comb(n, size))

    def test_draws_of_one_sample_are_independent(self):
        two = codes(uniform(keys_of(12_000, 2, 4), 2)).view(-1, 2)
        assert is_uniform(two[:, 0] * 16 + two[:, 1], 36)

    def test_keys_of_all_signs(self):
        keys = torch.tensor([[-(2**63), 2**63 - 1, 0, -1, 1]])
        assert uniform(keys, 2).tolist() == [[True, False, False, True, False]]
        assert uniform(keys, 4).tolist() == [[True, False, True, True, True]]

    @pytest.mark.parametrize("size", [-1, 6])
    def test_refuses_size(self, size):
        with pytest.raises(InputError, match=f"size: got {size}, expected between 0 and the 5"):
            uniform(keys_of(2, 5), size)


class TestBernoulli:
    @pytest.mark.parametrize("keep", [0.0, 0.05, 0.3, 0.5, 0.99, 1.0])
    def test_rates(self, keep):
        coalitions = bernoulli(keys_of(5000, 8), keep)
        assert coalitions.dtype == torch.bool
        rates = coalitions.double().mean(0)
        spread = (keep * (1 - keep) / 5000) ** 0.5
        assert float((rates - keep).abs().max()) <= 4 * spread

    def test_players_are_independent(self):
        keep = 0.4
        sizes = torch.tensor([bin(c).count("1") for c in range(16)])
        expected = 12_000 * keep**sizes * (1 - keep) ** (4 - sizes)
        counts = codes(bernoulli(keys_of(12_000, 4), keep)).bincount(minlength=16)
        assert abs(score(counts, expected)) < 4

    def test_rate_per_coalition_and_per_player(self):
        keys = keys_of(4000, 2, 3)
        rates = bernoulli(keys, torch.tensor([[0.2], [0.7]])).double().mean(0)
        torch.testing.assert_close(
            rates, torch.tensor([[0.2], [0.7]]).double().expand(2, 3), atol=0.03, rtol=0
        )
        rates = bernoulli(keys, torch.tensor([0.0, 0.5, 1.0])).double().mean((0, 1))
        torch.testing.assert_close(rates, torch.tensor([0.0, 0.5, 1.0]).double(), atol=0.03, rtol=0)

    def test_rates_drawn_from_0_to_1_have_the_weights_of_shapley_interactions(self):
        # n = 6 players, a pair aside: |S|!(n-|S|-2)!/(n-1)! for the contexts S of the other four.
        n, samples = 6, 30_000
        draws = Draws(torch.arange(samples), name="weights")
        contexts = bernoulli(draws.bits("keys", n - 2), draws.uniform("keep", 1))
        sizes = torch.tensor([bin(c).count("1") for c in range(16)])
        weights = torch.tensor(
            [
                math.factorial(s) * math.factorial(n - s - 2) / math.factorial(n - 1)
                for s in sizes.tolist()
            ]
        )
        assert math.isclose(float(weights.sum()), 1, abs_tol=1e-6)
        counts = codes(contexts).bincount(minlength=16)
        assert abs(score(counts, weights.double() * samples)) < 4


class TestOneKeyServesBoth:
    """Ranks come from the high bits and Bernoulli draws from the low ones, independently."""

    def test_ranks_and_low_bits_are_independent(self):
        keys = keys_of(20_000, 5)
        ranks = keys.argsort(-1).argsort(-1)[:, 0]
        low = (keys[:, 0] & 0xFFFFFF) * 8 >> 24
        counts = (ranks * 8 + low).bincount(minlength=40)
        assert abs(score(counts, 20_000 / 40)) < 4

    def test_coalitions_of_both_kinds_are_independent(self):
        keys = keys_of(40_000, 4)
        fixed, free = codes(uniform(keys, 2)), codes(bernoulli(keys, 0.5))
        assert is_uniform(fixed * 16 + free, 6 * 16)

    def test_contexts_given_a_group_are_independent_of_it(self):
        # As the interaction loss uses it: group and context out of the same keys.
        keys = keys_of(40_000, 4)
        group, context = disjoint_groups(keys, [1, 1]), bernoulli(keys, 0.5)
        member = (group == 0).int().argmax(-1) * 4 + (group == 1).int().argmax(-1)
        assert is_uniform(member * 16 + codes(context), 12 * 16)


class TestDisjointGroups:
    @pytest.mark.parametrize("sizes", [[1], [2, 1], [1, 2, 3], [3, 4], [7], [1] * 7])
    def test_sizes(self, sizes):
        groups = disjoint_groups(keys_of(40, 3, 7), sizes)
        assert groups.shape == (40, 3, 7)
        assert groups.dtype == torch.int64
        for k, size in enumerate([*sizes, 7 - sum(sizes)]):  # one label each: groups are disjoint
            assert ((groups == k).sum(-1) == size).all()

    @pytest.mark.parametrize(("n", "sizes"), [(5, [1, 2]), (4, [2, 2]), (5, [1, 1, 1]), (6, [3])])
    def test_uniform_over_all_choices(self, n, sizes):
        groups = disjoint_groups(keys_of(20_000, n), sizes)
        outcomes, left = 1, n
        for size in sizes:
            outcomes, left = outcomes * math.comb(left, size), left - size
        numbers = (groups * (len(sizes) + 1) ** torch.arange(n)).sum(-1)
        assert is_uniform(numbers, outcomes)

    def test_every_permutation_of_single_groups(self):
        groups = disjoint_groups(keys_of(12_000, 4), [1] * 4)
        seen = {tuple(row) for row in groups.tolist()}
        assert seen == set(itertools.permutations(range(4)))

    def test_a_tuple_of_sizes(self):
        keys = keys_of(5, 7)
        assert torch.equal(disjoint_groups(keys, (2, 3)), disjoint_groups(keys, [2, 3]))

    @pytest.mark.parametrize("sizes", [[], [0], [1, -1], [3, 3], [6]])
    def test_refuses_sizes(self, sizes):
        with pytest.raises(InputError, match="sizes: got"):
            disjoint_groups(keys_of(2, 5), sizes)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    keys = keys_of(10, 6)
    uniform(keys, 3)
    bernoulli(keys, 0.5)
    disjoint_groups(keys, [2, 2])
    assert torch.equal(torch.get_rng_state(), before)


def test_keys_are_not_changed():
    keys = keys_of(10, 6)
    before = keys.clone()
    uniform(keys, 2)
    bernoulli(keys, 0.5)
    disjoint_groups(keys, [2, 2])
    assert torch.equal(keys, before)
