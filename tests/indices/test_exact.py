"""Exact indices against shapiq, against the papers' definitions, and against each other."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from shapiq.game_theory.exact import ExactComputer
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.indices.exact import (
    all_coalitions,
    dividends,
    exact_values,
    interaction_spectrum,
    multi_order_interactions,
    order_curve,
    order_strengths,
    shapley_interactions,
    shapley_values,
    values_from_dividends,
)
from interaction_train.indices.exact_sets import (
    block_shapley_values,
    multivariate_interaction,
    multivariate_strength,
    shapley_interaction,
)

# The papers' definitions, word for word: a game is a function of a frozenset of players.


def subsets(players):
    players = list(players)
    return [
        frozenset(c) for k in range(len(players) + 1) for c in itertools.combinations(players, k)
    ]


def as_game(v):
    """The set function of a 1-D value tensor; an independent reading of its index."""
    values = v.tolist()
    return lambda coalition: values[sum(2**player for player in coalition)]


def slow_shapley(game, players):
    """Mean marginal gain over all orders in which the players may arrive."""
    gains = dict.fromkeys(players, 0.0)
    for arrivals in itertools.permutations(players):
        for k, player in enumerate(arrivals):
            gains[player] += game(frozenset(arrivals[: k + 1])) - game(frozenset(arrivals[:k]))
    return {player: gain / math.factorial(len(players)) for player, gain in gains.items()}


def slow_delta(game, subset, context):
    """Δ_S v(T), below Eq. 5."""
    return sum((-1) ** (len(subset) - len(part)) * game(part | context) for part in subsets(subset))


def slow_interaction(game, players, subset):
    """I^Shap(S) over the given players, Eq. 5."""
    s, n = len(subset), len(players)
    return sum(
        math.factorial(len(context))
        * math.factorial(n - len(context) - s)
        / math.factorial(n - s + 1)
        * slow_delta(game, subset, context)
        for context in subsets(set(players) - set(subset))
    )


def slow_multi_order(game, n, m, i, j):
    """I^(m)(i,j), Eq. 11."""
    contexts = [c for c in subsets(set(range(n)) - {i, j}) if len(c) == m]
    return sum(slow_delta(game, {i, j}, context) for context in contexts) / len(contexts)


def slow_block_value(game, n, subset, block):
    """φ([C] | N∖S ∪ {[C]}): the block is one player called "C", the rest of S is absent."""
    others = [i for i in range(n) if i not in subset]

    def merged(coalition):
        inside = set(block) if "C" in coalition else set()
        return game(frozenset(coalition - {"C"}) | inside)

    return slow_shapley(merged, [*others, "C"])["C"]


def partitions(players):
    players = list(players)
    if not players:
        yield []
        return
    first, rest = players[0], players[1:]
    for others in subsets(rest):
        for blocks in partitions([p for p in rest if p not in others]):
            yield [frozenset({first}) | others, *blocks]


def random_values(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pairs(n):
    return list(itertools.permutations(range(n), 2))


@st.composite
def games(draw, least=2, most=5):
    n = draw(st.integers(least, most))
    number = st.floats(-100, 100, allow_nan=False, width=32)
    values = draw(st.lists(number, min_size=2**n, max_size=2**n))
    return n, torch.tensor(values, dtype=torch.float64)


@st.composite
def games_with_subset(draw, least=1, smallest=1):
    n, v = draw(games(least=least))
    order = draw(st.permutations(range(n)))
    return n, v, order[: draw(st.integers(smallest, n))]


some = settings(max_examples=25, deadline=None, derandomize=True)


def close(got, expected, scale=100.0):
    torch.testing.assert_close(
        torch.as_tensor(got, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=1e-11 * scale,
    )


class TestAllCoalitions:
    def test_bit_i_is_player_i(self):
        coalitions = all_coalitions(3)
        assert coalitions.dtype == torch.bool
        assert coalitions.int().tolist() == [
            [0, 0, 0],
            [1, 0, 0],
            [0, 1, 0],
            [1, 1, 0],
            [0, 0, 1],
            [1, 0, 1],
            [0, 1, 1],
            [1, 1, 1],
        ]

    def test_no_players(self):
        assert all_coalitions(0).shape == (1, 0)

    @pytest.mark.parametrize("n", [-1, 63])
    def test_refuses_number_of_players(self, n):
        with pytest.raises(InputError, match=r"n: got"):
            all_coalitions(n)


@pytest.fixture(scope="module")
def v():
    return random_values(2, 3, 2**6, seed=5) * 3 + 7


@pytest.fixture(scope="module")
def computers(v):
    powers = 2 ** np.arange(6)

    def computer(values):
        return ExactComputer(lambda z: values[z.astype(int) @ powers], 6)

    places = itertools.product(*map(range, v.shape[:2]))
    return {place: computer(v[place].numpy()) for place in places}


class TestAgainstShapiq:
    """shapiq's ExactComputer with a plain callable: its Game would normalise v(∅) away."""

    n = 6

    def compare_pairs(self, got, computers, index, order):
        for place, computer in computers.items():
            reference = computer(index, order)
            for i, j in pairs(self.n):
                pair = tuple(sorted((i, j)))
                assert abs(float(got[(*place, i, j)]) - reference[pair]) < 1e-11

    def test_shapley_values(self, v, computers):
        got = shapley_values(v)
        assert got.shape == (2, 3, self.n)
        for place, computer in computers.items():
            reference = computer("SV", 1)
            for i in range(self.n):
                assert abs(float(got[(*place, i)]) - reference[(i,)]) < 1e-11

    def test_pairs_are_sii(self, v, computers):
        self.compare_pairs(shapley_interactions(v), computers, "SII", 2)

    def test_mean_over_orders_is_sii(self, v, computers):
        self.compare_pairs(multi_order_interactions(v).mean(-3), computers, "SII", 2)

    def test_order_zero_is_moebius(self, v, computers):
        self.compare_pairs(multi_order_interactions(v)[..., 0, :, :], computers, "Moebius", 6)

    def test_last_order_is_co_moebius(self, v, computers):
        self.compare_pairs(multi_order_interactions(v)[..., -1, :, :], computers, "Co-Moebius", 2)

    def test_orders_make_banzhaf(self, v, computers):
        n = self.n
        weights = torch.tensor([math.comb(n - 2, m) / 2 ** (n - 2) for m in range(n - 1)])
        orders = multi_order_interactions(v)
        got = (orders * weights.double()[:, None, None]).sum(-3)
        self.compare_pairs(got, computers, "BII", 2)

    def test_orders_make_shapley_taylor(self, v, computers):
        n = self.n
        weights = torch.tensor(
            [2 * (n - 1 - m) / (n * (n - 1)) for m in range(n - 1)], dtype=torch.float64
        )
        orders = multi_order_interactions(v)
        self.compare_pairs((orders * weights[:, None, None]).sum(-3), computers, "STII", 2)

    def test_dividends(self, v, computers):
        got = dividends(v)
        for place, computer in computers.items():
            reference = computer("Moebius", self.n)
            for coalition in subsets(range(self.n)):
                index = sum(2**i for i in coalition)
                expected = reference[tuple(sorted(coalition))]
                assert abs(float(got[(*place, index)]) - expected) < 1e-10

    @pytest.mark.parametrize("size", [1, 2, 3, 4])
    def test_subsets_are_sii(self, v, computers, size):
        for subset in itertools.combinations(range(self.n), size):
            got = shapley_interaction(v, subset)
            assert got.shape == (2, 3)
            for place, computer in computers.items():
                assert abs(float(got[place]) - computer("SII", size)[subset]) < 1e-10


class TestAgainstDefinitions:
    @some
    @given(games(least=1))
    def test_shapley_values(self, case):
        n, v = case
        expected = slow_shapley(as_game(v), range(n))
        close(shapley_values(v), [expected[i] for i in range(n)])

    @some
    @given(games(least=0))
    def test_dividends(self, case):
        n, v = case
        game = as_game(v)
        expected = torch.zeros(2**n, dtype=torch.float64)
        for s in subsets(range(n)):
            expected[sum(2**i for i in s)] = slow_delta(game, s, frozenset())
        close(dividends(v), expected, scale=100 * 2**n)

    @some
    @given(games())
    def test_multi_order_interactions(self, case):
        n, v = case
        game, got = as_game(v), multi_order_interactions(v)
        assert got.shape == (n - 1, n, n)
        expected = torch.zeros_like(got)
        for (i, j), m in itertools.product(pairs(n), range(n - 1)):
            expected[m, i, j] = slow_multi_order(game, n, m, i, j)
        close(got, expected)

    @some
    @given(games())
    def test_shapley_interactions(self, case):
        n, v = case
        game, expected = as_game(v), torch.zeros(n, n, dtype=torch.float64)
        for i, j in pairs(n):
            expected[i, j] = slow_interaction(game, range(n), {i, j})
        close(shapley_interactions(v), expected)

    @some
    @given(games_with_subset())
    def test_shapley_interaction_of_a_subset(self, case):
        n, v, subset = case
        close(
            shapley_interaction(v, subset),
            slow_interaction(as_game(v), range(n), subset),
            scale=100 * 2 ** len(subset),
        )

    @some
    @given(games_with_subset())
    def test_block_shapley_values(self, case):
        n, v, subset = case
        got = block_shapley_values(v, subset)
        assert got.shape == (2 ** len(subset),)
        for positions in subsets(range(len(subset))):
            block = [subset[k] for k in positions]
            expected = slow_block_value(as_game(v), n, subset, block)
            close(got[sum(2**k for k in positions)], expected)

    @some
    @given(games_with_subset())
    def test_multivariate_interaction_is_eq_8(self, case):
        n, v, subset = case
        game = as_game(v)
        expected = slow_block_value(game, n, subset, subset) - sum(
            slow_block_value(game, n, subset, [i]) for i in subset
        )
        close(multivariate_interaction(v, subset), expected, scale=1000)

    @some
    @given(games_with_subset())
    def test_multivariate_strength_is_eq_10(self, case):
        n, v, subset = case
        game = as_game(v)
        phi = {b: slow_block_value(game, n, subset, b) for b in subsets(subset)}
        totals = [sum(phi[b] for b in blocks) for blocks in partitions(subset)]
        close(multivariate_strength(v, subset), max(totals) - min(totals), scale=1000)

    @some
    @given(games(least=0))
    def test_order_curve(self, case):
        n, v = case
        game = as_game(v)
        expected = [
            sum(game(c) for c in subsets(range(n)) if len(c) == s) / math.comb(n, s)
            for s in range(n + 1)
        ]
        close(order_curve(v), expected)


class TestIdentities:
    @some
    @given(games(least=1))
    def test_shapley_values_are_efficient(self, case):
        _, v = case
        close(shapley_values(v).sum(), v[-1] - v[0])

    @some
    @given(games(least=0))
    def test_dividends_sum_to_the_whole(self, case):
        # Formula 2; survey, Eq. 3: the empty coalition's dividend is part of the sum.
        n, v = case
        close(dividends(v).sum(), v[-1], scale=100 * 4**n)

    @some
    @given(games(least=0))
    def test_dividends_and_values_are_inverse(self, case):
        n, v = case
        close(values_from_dividends(dividends(v)), v, scale=100 * 2**n)
        close(dividends(values_from_dividends(v)), v, scale=100 * 2**n)

    @some
    @given(games(least=1))
    def test_shapley_values_from_dividends(self, case):
        # Formula 2; survey, Eq. 4.
        n, v = case
        members, shares = all_coalitions(n), dividends(v)
        sizes = members.sum(-1)
        expected = [(shares / sizes)[members[:, i]].sum() for i in range(n)]
        close(shapley_values(v), torch.stack(expected), scale=1000)

    @some
    @given(games_with_subset())
    def test_shapley_interaction_from_dividends(self, case):
        # Formula 3; survey, Eq. 7 with the dividends of the original game.
        n, v, subset = case
        members, shares = all_coalitions(n), dividends(v)
        inside = members[:, list(subset)].all(-1)
        contexts = members.sum(-1) - len(subset)
        close(
            shapley_interaction(v, subset), (shares[inside] / (contexts[inside] + 1)).sum(), 10_000
        )

    @some
    @given(games_with_subset(least=2, smallest=2))
    def test_presence_less_absence(self, case):
        # Recursive property 2: I(S∪i) = I(S | i present) - I(S | i absent).
        n, v, subset = case
        i, rest = subset[0], [p - (p > subset[0]) for p in subset[1:]]
        present = all_coalitions(n)[:, i]
        with_i, without_i = v[present], v[~present]
        expected = shapley_interaction(with_i, rest) - shapley_interaction(without_i, rest)
        close(shapley_interaction(v, subset), expected, scale=10_000)

    @some
    @given(games_with_subset())
    def test_eq_6(self, case):
        # L = S left out of the sum, which the survey's print includes.
        n, v, subset = case
        others, game = set(range(n)) - set(subset), as_game(v)
        smaller = sum(slow_interaction(game, others | p, p) for p in subsets(subset)[1:-1])
        whole = block_shapley_values(v, subset)[-1]
        close(shapley_interaction(v, subset), whole - smaller, scale=10_000)

    @some
    @given(games(least=1))
    def test_one_player_has_its_shapley_value(self, case):
        n, v = case
        close([float(shapley_interaction(v, [i])) for i in range(n)], shapley_values(v))

    @some
    @given(games())
    def test_pair_is_a_subset(self, case):
        n, v = case
        expected = torch.zeros(n, n, dtype=torch.float64)
        for i, j in pairs(n):
            expected[i, j] = shapley_interaction(v, (i, j))
        close(shapley_interactions(v), expected)

    @some
    @given(games())
    def test_multi_order_from_dividends(self, case):
        # Formula 4.
        n, v = case
        members, shares = all_coalitions(n), dividends(v)
        expected = torch.zeros(n - 1, n, n, dtype=torch.float64)
        for i, j in pairs(n):
            inside = members[:, i] & members[:, j]
            rest = (members.sum(-1) - 2)[inside].tolist()
            for m in range(n - 1):
                expected[m, i, j] = sum(
                    share * math.comb(n - 2 - r, m - r) / math.comb(n - 2, m)
                    for share, r in zip(shares[inside].tolist(), rest, strict=True)
                    if r <= m
                )
        close(multi_order_interactions(v), expected, scale=10_000)

    @some
    @given(games())
    def test_efficiency_over_ordered_pairs(self, case):
        # Formula 5; survey, Eq. 12.
        n, v = case
        main = sum(float(v[1 << i] - v[0]) for i in range(n))
        per_order = multi_order_interactions(v).sum((-2, -1)).tolist()  # each pair twice
        weighted = sum((n - 1 - m) / (n * (n - 1)) * total for m, total in enumerate(per_order))
        close(main + weighted, v[-1] - v[0], scale=1000)

    @some
    @given(games())
    def test_closed_form_per_player(self, case):
        # Formula 6.
        n, v = case
        full = 2**n - 1
        expected = [float(v[full] - v[full ^ (1 << i)] - v[1 << i] + v[0]) for i in range(n)]
        interactions = shapley_interactions(v)
        close(interactions.sum(-1), expected, scale=1000)
        mean = float(interactions.sum()) / (n * (n - 1))
        close(mean, sum(expected) / n / (n - 1), scale=1000)

    @some
    @given(games(), st.data())
    def test_group_form_weighs_orders_by_a_tent(self, case, data):
        # Formula 7: c = 1, 2, …, k, …, k, …, 2, 1 with sum k(n - k).
        n, v = case
        k = data.draw(st.integers(1, n // 2))
        full = 2**n - 1
        masks = [sum(1 << i for i in a) for a in itertools.combinations(range(n), k)]
        expected = sum(float(v[full] - v[full ^ a] - v[a] + v[0]) for a in masks) / len(masks)
        tent = [min(m + 1, k, n - 1 - m) for m in range(n - 1)]
        assert sum(tent) == k * (n - k)
        means = multi_order_interactions(v).sum((-2, -1)) / (n * (n - 1))
        close((torch.tensor(tent) * means).sum(), expected, scale=1000)

    @some
    @given(games())
    def test_second_difference_of_the_order_curve(self, case):
        # Formula 8.
        n, v = case
        means = multi_order_interactions(v).sum((-2, -1)) / (n * (n - 1))
        close(order_curve(v).diff(n=2), means, scale=1000)

    @some
    @given(games())
    def test_order_curve_from_orders(self, case):
        # Formula 8: f(s) = v(∅) + s μ̄ + Σ_m (s-1-m)_+ Ī^(m).
        n, v = case
        means = (multi_order_interactions(v).sum((-2, -1)) / (n * (n - 1))).tolist()
        mu = sum(float(v[1 << i] - v[0]) for i in range(n)) / n
        expected = [
            float(v[0]) + s * mu + sum(max(0, s - 1 - m) * means[m] for m in range(n - 1))
            for s in range(n + 1)
        ]
        close(order_curve(v), expected, scale=1000)

    @some
    @given(games_with_subset())
    def test_multivariate_interaction_is_eq_9(self, case):
        n, v, subset = case
        others = set(range(n)) - set(subset)
        game = as_game(v)
        expected = sum(
            slow_interaction(game, others | part, part) for part in subsets(subset) if len(part) > 1
        )
        close(multivariate_interaction(v, subset), expected, scale=10_000)

    @some
    @given(games_with_subset())
    def test_strength_is_bounded_by_its_interactions(self, case):
        # Formula 9: T([S]) <= Σ |I^Shap(L | N∖S ∪ L)|; and it is at least |B([S])|.
        n, v, subset = case
        others, game = set(range(n)) - set(subset), as_game(v)
        bound = sum(
            abs(slow_interaction(game, others | part, part))
            for part in subsets(subset)
            if len(part) > 1
        )
        strength = float(multivariate_strength(v, subset))
        assert strength <= bound + 1e-8
        assert strength >= abs(float(multivariate_interaction(v, subset))) - 1e-8

    @some
    @given(games())
    def test_additive_games_have_no_interactions(self, case):
        n, v = case
        additive = all_coalitions(n).double() @ v[:n] + v[-1]
        zero = torch.zeros(n - 1, n, n)
        close(multi_order_interactions(additive), zero)
        close(multivariate_strength(additive, range(n)), 0.0)
        close(shapley_values(additive), v[:n])

    @some
    @given(games(), st.randoms(use_true_random=False))
    def test_relabelled_players(self, case, random):
        n, v = case
        order = random.sample(range(n), n)  # new player k is the old order[k]
        powers = torch.tensor([1 << i for i in order])
        renamed = v[(all_coalitions(n) * powers).sum(-1)]
        close(shapley_values(renamed), shapley_values(v)[order])
        got, expected = multi_order_interactions(renamed), multi_order_interactions(v)
        close(got, expected[:, order][:, :, order])


class TestShapesAndPrecision:
    def functions(self):
        return {
            "dividends": (dividends, (16,)),
            "values_from_dividends": (values_from_dividends, (16,)),
            "order_curve": (order_curve, (5,)),
            "shapley_values": (shapley_values, (4,)),
            "multi_order_interactions": (multi_order_interactions, (3, 4, 4)),
            "shapley_interactions": (shapley_interactions, (4, 4)),
            "shapley_interaction": (lambda v: shapley_interaction(v, [2, 0]), ()),
            "block_shapley_values": (lambda v: block_shapley_values(v, [2, 0, 3]), (8,)),
            "multivariate_interaction": (lambda v: multivariate_interaction(v, [3, 1]), ()),
            "multivariate_strength": (lambda v: multivariate_strength(v, [3, 1, 0]), ()),
        }

    @pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (0,)])
    def test_leading_axes(self, leading):
        v = random_values(*leading, 16)
        for name, (function, shape) in self.functions().items():
            got = function(v)
            assert got.shape == (*leading, *shape), name
            for place in itertools.product(*map(range, leading)):
                close(got[place], function(v[place].clone()))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_dtype_is_kept_and_sums_are_float64(self, dtype):
        v = (random_values(3, 16) + 5).to(dtype)
        for name, (function, _) in self.functions().items():
            got = function(v)
            assert got.dtype == dtype, name
            # float64 inside: the result is the float64 one, rounded once.
            assert torch.equal(got, function(v.double()).to(dtype)), name

    def test_inputs_are_left_alone(self):
        v = random_values(3, 16)
        before = v.clone()
        for name, (function, _) in self.functions().items():
            function(v)
            assert torch.equal(v, before), name

    def test_noncontiguous_values(self):
        v = random_values(16, 3).T
        assert not v.is_contiguous()
        for function, _ in self.functions().values():
            close(function(v), function(v.contiguous()))

    def test_differentiable(self):
        v = random_values(2, 16, seed=3).requires_grad_()
        for function, _ in self.functions().values():
            assert torch.autograd.gradcheck(function, (v,))

    def test_autocast_does_not_round(self):
        v = random_values(3, 16, dtype=torch.float32)
        plain = {name: f(v) for name, (f, _) in self.functions().items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for name, (function, _) in self.functions().items():
                assert torch.equal(function(v), plain[name]), name

    def test_blocks_do_not_change_sums(self, monkeypatch):
        v = random_values(3, 2**9)
        whole = [
            multi_order_interactions(v),
            shapley_values(v),
            block_shapley_values(v, [4, 1]),
        ]
        monkeypatch.setattr("interaction_train.indices.exact.CELLS", 1)
        parts = [
            multi_order_interactions(v),
            shapley_values(v),
            block_shapley_values(v, [4, 1]),
        ]
        for a, b in zip(whole, parts, strict=True):
            close(a, b, scale=1)

    def test_float32_against_float64(self):
        v = random_values(4, 2**12) * 10 + 300
        exact, rounded = multi_order_interactions(v.float().double()), v.float()
        error = (multi_order_interactions(rounded).double() - exact).abs().max()
        assert error <= 1e-6 * v.abs().max()

    def test_sixteen_players_thirty_two_samples_are_quick(self):
        v = random_values(32, 2**16, dtype=torch.float32)
        start = time.process_time()
        got = multi_order_interactions(v)
        assert time.process_time() - start < 6  # 0.4 s on one idle core
        assert got.shape == (32, 15, 16, 16)
        curve = order_curve(v.double()).diff(n=2)
        close(got.double().sum((-2, -1)) / 240, curve, scale=1e5)


class TestStrengths:
    def test_definitions(self):
        orders = multi_order_interactions(random_values(3, 2, 32))
        off = ~torch.eye(5, dtype=torch.bool)
        expected = [float(orders[:, :, m][..., off].abs().mean()) for m in range(4)]
        close(order_strengths(orders), expected)
        close(interaction_spectrum(orders), [e / (sum(expected) / 4) for e in expected])

    def test_spectrum_is_a_ratio_of_global_means(self):
        # Not a mean of each sample's ratio: the second sample is 100 times as strong.
        orders = multi_order_interactions(random_values(2, 32) * torch.tensor([[1.0], [100.0]]))
        ratios = torch.stack([interaction_spectrum(o) for o in orders]).mean(0)
        assert (interaction_spectrum(orders) - ratios).abs().max() > 0.01
        close(interaction_spectrum(orders).mean(), 1.0)

    def test_spectrum_depends_on_the_orders_given(self):
        orders = multi_order_interactions(random_values(4, 64))
        part = interaction_spectrum(orders[:, [0, 2, 4]])
        assert part.shape == (3,)
        close(part.mean(), 1.0)
        whole = interaction_spectrum(orders)[[0, 2, 4]]
        close(part, whole / whole.mean())
        assert (part - whole).abs().max() > 1e-3

    def test_pure_pair_game_is_flat(self):
        members = all_coalitions(4).double()
        v = members[:, 0] * members[:, 2] * 3
        strengths = order_strengths(multi_order_interactions(v))
        close(strengths, [3 * 2 / 12] * 3)
        close(interaction_spectrum(multi_order_interactions(v)), [1.0] * 3)

    def test_additive_game_has_no_spectrum(self):
        v = all_coalitions(4).double().sum(-1)
        assert interaction_spectrum(multi_order_interactions(v)).isnan().all()

    @pytest.mark.parametrize("shape", [(4, 4), (2, 3, 4, 5), (3, 1, 1), (0, 3, 4, 4)])
    def test_refuses_shape(self, shape):
        with pytest.raises(InputError, match="multi_order"):
            order_strengths(torch.zeros(shape))


class TestRefusals:
    whole_games = (
        dividends,
        order_curve,
        shapley_values,
        multi_order_interactions,
        shapley_interactions,
        lambda v: shapley_interaction(v, [0]),
        lambda v: block_shapley_values(v, [0]),
        lambda v: multivariate_interaction(v, [0]),
        lambda v: multivariate_strength(v, [0]),
    )
    subset_functions = (
        shapley_interaction,
        block_shapley_values,
        multivariate_interaction,
        multivariate_strength,
    )

    @pytest.mark.parametrize("function", whole_games)
    @pytest.mark.parametrize("size", [0, 3, 12, 33])
    def test_no_power_of_two(self, function, size):
        with pytest.raises(InputError, match=rf"v: got torch.float32 of shape \(2, {size}\)"):
            function(torch.zeros(2, size))

    @pytest.mark.parametrize("function", whole_games)
    def test_scalars_and_integers(self, function):
        with pytest.raises(InputError, match="v: got"):
            function(torch.tensor(1.0))
        with pytest.raises(InputError, match="int64"):
            function(torch.zeros(8, dtype=torch.int64))

    def test_dividends_named_in_the_inverse(self):
        with pytest.raises(InputError, match="dividends: got"):
            values_from_dividends(torch.zeros(3))

    def test_too_few_players(self):
        with pytest.raises(InputError, match="n at least 1"):
            shapley_values(torch.zeros(1))
        with pytest.raises(InputError, match="n at least 2"):
            multi_order_interactions(torch.zeros(2))
        with pytest.raises(InputError, match="n at least 2"):
            shapley_interactions(torch.zeros(2))

    @pytest.mark.parametrize("function", subset_functions)
    @pytest.mark.parametrize("subset", [[], [0, 0], [3], [-1], [1, 2, 1]])
    def test_subset(self, function, subset):
        with pytest.raises(InputError, match=r"subset: got .* expected distinct players out of"):
            function(torch.zeros(8), subset)

    def test_strength_states_the_number_of_partitions(self):
        v = torch.zeros(2**13)
        with pytest.raises(InputError, match="13 players, which have 27644437 partitions"):
            multivariate_strength(v, range(13))
        with pytest.raises(InputError, match="4 players, which have 15 partitions"):
            multivariate_strength(v, range(4), max_size=3)
        assert multivariate_strength(v, range(12)) == 0


def network(dtype=torch.float64, classes=3):
    generator = torch.Generator().manual_seed(11)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(6 * 5 * 6, 8),
        nn.ReLU(),
        nn.Linear(8, classes),
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.3)
    return model.to(dtype)


class Oracle(nn.Module):
    """Logits with a number planted where pixel 1 of a row is 0."""

    def __init__(self, planted):
        super().__init__()
        self.planted = planted

    def forward(self, x):
        logits = x[:, :2].clone()
        logits[x[:, 1] == 0] = self.planted
        return logits


class TestExactValues:
    players = GridPlayers(2, 4)

    def game(self, dtype=torch.float64, batch=3, **kwargs):
        x = random_values(batch, 2, 5, 6, seed=2).to(dtype)
        options = {"labels": torch.arange(batch) % 3, "payoff": "log_odds", **kwargs}
        return MaskedGame(network(dtype), x, 0.25, self.players, **options)

    def slow_values(self, game):
        """One coalition of one sample at a time, masked pixel by pixel."""
        cells = self.players.cells((5, 6)).tolist()
        result = []
        for x, label in zip(game.present, game.labels, strict=True):
            row = []
            for index in range(2**game.n):
                masked = x.clone()
                for h, w in itertools.product(range(5), range(6)):
                    if not index >> cells[h][w] & 1:
                        masked[:, h, w] = 0.25
                with torch.no_grad():
                    p = game.model(masked[None])[0].double().softmax(-1)[label]
                row.append(math.log(float(p)) - math.log1p(-float(p)))
            result.append(row)
        return torch.tensor(result, dtype=torch.float64)

    def test_network_in_float64(self):
        game = self.game()
        slow, v = self.slow_values(game), exact_values(game)
        assert v.shape == (3, 256)
        assert v.dtype == torch.float64
        torch.testing.assert_close(v, slow, rtol=0, atol=1e-10)
        orders = multi_order_interactions(v)
        for b, (i, j), m in itertools.product(range(3), [(0, 1), (6, 2)], range(7)):
            expected = slow_multi_order(as_game(slow[b]), 8, m, i, j)
            assert abs(float(orders[b, m, i, j]) - expected) < 1e-10
        assert orders.abs().max() > 1e-3  # the network does have interactions

    def test_network_in_float32(self):
        game = self.game(torch.float32)
        v = exact_values(game)
        assert v.dtype == torch.float32
        exact = exact_values(self.game_with_values_of(game))
        scale = float(exact.abs().max())
        torch.testing.assert_close(v.double(), exact, rtol=0, atol=1e-6 * scale)
        got, expected = multi_order_interactions(v), multi_order_interactions(exact)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6 * scale)

    def game_with_values_of(self, game):
        """The same weights and pixels, evaluated in float64."""
        return MaskedGame(
            game.model.double(),
            game.present.double(),
            0.25,
            self.players,
            game.payoff,
            game.labels,
        )

    def test_all_logits(self):
        every = exact_values(self.game(payoff="all", labels=None))
        assert every.shape == (3, 3, 256)
        for c in range(3):
            single = exact_values(self.game(payoff="logit", labels=torch.full((3,), c)))
            torch.testing.assert_close(every[:, c], single, rtol=0, atol=1e-12)
        assert multi_order_interactions(every).shape == (3, 3, 7, 8, 8)

    @pytest.mark.parametrize("rows", [1, 7, 100, 10_000])
    def test_blocks_do_not_change_values(self, rows, monkeypatch):
        expected = exact_values(self.game())
        monkeypatch.setattr("interaction_train.indices.exact.ROWS", rows)
        torch.testing.assert_close(exact_values(self.game()), expected, rtol=0, atol=1e-12)

    def test_memory_beyond_the_result_is_flat(self, monkeypatch):
        largest = []
        call = MaskedGame.__call__

        def spy(game, coalitions, **kwargs):
            largest.append(len(game.present) * coalitions.shape[-2])
            return call(game, coalitions, **kwargs)

        monkeypatch.setattr(MaskedGame, "__call__", spy)
        monkeypatch.setattr("interaction_train.indices.exact.ROWS", 128)
        exact_values(self.game())
        assert max(largest) <= 128
        assert sum(largest) == 3 * 256

    def test_no_gradient_and_no_grads_left(self):
        game = self.game()
        assert not exact_values(game).requires_grad
        assert all(p.grad is None for p in game.model.parameters())

    def test_refuses_too_many_coalitions(self):
        with pytest.raises(InputError, match=r"8 players, which have 2\^8 = 256 coalitions"):
            exact_values(self.game(), max_coalitions=255)
        assert exact_values(self.game(), max_coalitions=256).shape == (3, 256)

    def test_refuses_a_thousand_pixels_before_any_forward(self):
        x = torch.zeros(2, 64, 80)
        game = MaskedGame(nn.Identity(), x, 0.0, UnitPlayers(), "all")
        with pytest.raises(InputError, match=r"5120 players, which have 2\^5120 coalitions"):
            exact_values(game)

    @pytest.mark.parametrize("planted", [math.nan, math.inf, -math.inf])
    def test_names_the_sample_of_a_broken_payoff(self, planted, monkeypatch):
        x = torch.ones(4, 3)
        x[2, 1] = 0  # sample 2 meets the planted number where player 1 is present
        labels = torch.zeros(4, dtype=torch.int64)
        game = MaskedGame(Oracle(planted), x, 2.0, UnitPlayers(), "logit", labels)
        for rows in (1000, 4):  # all coalitions in one block, and one by one
            monkeypatch.setattr("interaction_train.indices.exact.ROWS", rows)
            with pytest.raises(InputError, match=rf"payoff {planted} for sample 2 \(coalition 2\)"):
                exact_values(game)
