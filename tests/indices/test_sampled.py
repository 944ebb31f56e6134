"""Sampled estimators against exact indices, closed forms and their promises."""

import tracemalloc
from math import comb

import pytest
import torch
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.indices import (
    REFERENCE_RATIOS,
    mean_interaction,
    player_interactions,
    resolve_orders,
    sample_multi_order,
    sample_multivariate,
    sample_order_curve,
    sample_shapley_pairs,
    sample_strength,
)
from interaction_train.indices.exact import (
    exact_values,
    multi_order_interactions,
    order_curve,
    shapley_interactions,
)
from interaction_train.indices.exact_sets import (
    block_shapley_values,
    multivariate_interaction,
    multivariate_strength,
)
from interaction_train.indices.readings import plug_in, product, split_sign
from interaction_train.sampling.pairs import AllPairs, GivenPairs, NeighbourPairs, RandomPairs

LABELS = torch.tensor([0, 1, 2])
CHOICES = {
    "all": AllPairs(),
    "random": RandomPairs(2, 4),
    "neighbours": NeighbourPairs(1),
    "spread": NeighbourPairs(1, 5),
    "given": GivenPairs([(0, 1), (5, 1), (3, 8), (2, 6)]),
}


def network(inputs=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.7)
    return net


def images(batch=3, side=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1, side, side, generator=generator, dtype=torch.float64) * 2


def game(batch=3, **changes):
    options = {"players": GridPlayers(3, 3), "payoff": "logit", "labels": LABELS[:batch]}
    return MaskedGame(network(), images(batch), 0.0, **{**options, **changes})


class Set(nn.Module):
    """A game of the inputs given as a formula; two logits, the second one 0."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, x):
        value = self.formula(x)
        return torch.stack([value, torch.zeros_like(value)], 1)


def polynomial(formula, n, batch=2, **options):
    x = torch.ones(batch, n, dtype=torch.float64)
    x += torch.arange(batch)[:, None] * 1e-9  # the samples differ, the values do not
    labels = torch.zeros(batch, dtype=torch.int64)
    return MaskedGame(Set(formula), x, 0.0, UnitPlayers(), "logit", labels, **options)


def at_pairs(exact, estimates):
    """Exact ``(B, M, n, n)`` at the pairs of the estimates, ``(B, M, P)``."""
    first, second = estimates.pairs.unbind(-1)
    return torch.stack([e[:, i, j] for e, i, j in zip(exact, first, second, strict=True)])


class TestMultiOrder:
    @pytest.mark.parametrize("share", [True, False])
    @pytest.mark.parametrize("choice", CHOICES)
    def test_unbiased_for_every_order(self, choice, share):
        # All contexts, but of the orders 3 and 4, which have 35.
        estimates = sample_multi_order(game(), CHOICES[choice], 34, orders=range(8), share=share)
        exact = at_pairs(multi_order_interactions(exact_values(game())), estimates)
        seen = estimates.count > 0
        assert torch.equal(seen, ~estimates.value.isnan())
        assert seen.any(-1).all()
        assert seen.all() if choice != "spread" else seen[:, 1:-1, :5].all()
        exact = exact.where(seen, torch.nan)
        for m in (0, 1, 2, 5, 6, 7):
            torch.testing.assert_close(estimates.value[:, m], exact[:, m], equal_nan=True)
            assert (estimates.stderr[:, m].nan_to_num() == 0).all()
            assert (estimates.count[:, m][seen[:, m]] == comb(7, m)).all()
        drawn = [
            sample_multi_order(game(), CHOICES[choice], 34, orders=[3, 4], share=share, seed=seed)
            for seed in range(8)
        ]
        exact = multi_order_interactions(exact_values(game()))[:, 3:5]
        errors = torch.stack([one.value - at_pairs(exact, one) for one in drawn])
        z = errors / torch.stack([one.stderr for one in drawn])
        assert z.abs().max() < 6
        assert 0.7 < z.square().mean() < 1.4
        per_order = z.mean((0, 1, 3)) * (z.numel() / 2) ** 0.5
        assert per_order.abs().max() < 4.5
        mean = errors.mean(-1) / torch.stack([one.mean_stderr for one in drawn])
        assert mean.abs().max() < 4.5
        assert 0.5 < mean.square().mean() < 2

    def test_standard_errors_are_those_of_repetitions(self):
        runs = [
            sample_multi_order(game(1), RandomPairs(1, 4), 20, orders=[3], seed=seed)
            for seed in range(200)
        ]
        # Pairs differ between seeds, so the errors are compared, not the values.
        exact = multi_order_interactions(exact_values(game(1)))[:, 3:4]
        errors = torch.stack([run.value - at_pairs(exact, run) for run in runs])
        claimed = torch.stack([run.stderr for run in runs])
        assert float(errors.square().mean() / claimed.square().mean()) == pytest.approx(1, abs=0.2)
        mean_errors = torch.stack([run.mean - run.over_pairs(at_pairs(exact, run)) for run in runs])
        ratio = (
            mean_errors.square().mean()
            / torch.stack([run.mean_stderr.square() for run in runs]).mean()
        )
        assert 0.6 < float(ratio) < 1.4

    def test_a_product_has_one_order_curve(self):
        # v = x0·x1·x2: I^(m)(0,1) is the chance that 2 is in the context, m/(n−2).
        estimates = sample_multi_order(
            polynomial(lambda x: x[:, :3].prod(-1), 12),
            GivenPairs([(0, 1), (0, 5)]),
            120,  # those of order 3, so that it is exact
            orders=[0, 3, 10],
        )
        torch.testing.assert_close(estimates.value[0, :, 0], torch.tensor([0, 0.3, 1.0]).double())
        assert estimates.value[:, :, 1].abs().max() < 1e-6

    @pytest.mark.parametrize("choice", CHOICES)
    def test_same_for_any_batch_chunk_and_set_of_orders(self, choice):
        pairs = CHOICES[choice]
        whole = sample_multi_order(game(), pairs, 20, orders=[0, 2, 5])
        other = sample_multi_order(game(chunk_size=7), pairs, 20, orders=[5, 2, 4])
        for b in range(3):
            single = MaskedGame(
                network(), images()[[b]], 0.0, GridPlayers(3, 3), "logit", LABELS[[b]]
            )
            alone = sample_multi_order(single, pairs, 20, orders=[0, 2, 5])
            for name in ("value", "stderr", "count", "size", "contexts", "mean", "mean_stderr"):
                one, all_ = getattr(alone, name)[0], getattr(whole, name)[b]
                torch.testing.assert_close(one, all_, rtol=1e-9, atol=1e-9, equal_nan=True)
            for here, there in ((2, 0), (1, 1)):
                one, two = whole.value[b, here], other.value[b, there]
                torch.testing.assert_close(one[~one.isnan()], two[~two.isnan()])

    def test_end_orders_take_more_pairs_where_that_costs_nothing_more(self):
        # 20 pairs of neighbours on the grid; 2 of them in 3 contexts make 6 at the ends.
        for contexts, at_ends in ((3, 6), (4, 20)):
            estimates = sample_multi_order(game(), NeighbourPairs(1, 2), contexts, orders=[7, 3, 0])
            assert estimates.orders == (7, 3, 0)
            exact = at_pairs(multi_order_interactions(exact_values(game())), estimates)
            inner, ends = slice(0, 2), slice(2, 2 + at_ends)
            assert estimates.pairs.shape == (3, 2 + at_ends, 2)
            assert (estimates.count[:, 1, inner] == contexts).all()
            assert (estimates.count[:, 1, ends] == 0).all()
            assert estimates.value[:, 1, ends].isnan().all()
            torch.testing.assert_close(estimates.value[:, [0, 2], ends], exact[:, [7, 0], ends])
            assert estimates.contexts.tolist() == [[1, contexts, 1]] * 3
            torch.testing.assert_close(estimates.mean[:, [0, 2]], exact[:, [7, 0], ends].mean(-1))
            for reading in (plug_in, split_sign):
                found = estimates.over_pairs(reading(estimates))[:, [0, 2]]
                torch.testing.assert_close(found, exact[:, [7, 0], ends].abs().mean(-1))

    def test_another_seed_draws_differently(self):
        one, two = (sample_multi_order(game(), AllPairs(), 9, orders=[3], seed=s) for s in (0, 1))
        assert (one.value != two.value).all()

    @pytest.mark.parametrize(("size", "wanted"), [(16, 0.75), (32, 0.85)])
    def test_evaluations_are_shared(self, size, wanted):
        calls = []

        def formula(x):
            calls.append(len(x))
            return x.sum(-1)

        estimates = sample_multi_order(
            polynomial(formula, 256, 1, chunk_size=4096), RandomPairs(1, size), 30
        )
        assert sum(calls) == estimates.evaluations
        assert int(estimates.count.sum()) == estimates.differences
        assert estimates.differences / estimates.evaluations > wanted
        counts = estimates.count[0, 1:-1].double()
        assert counts.mean(-1).min() > 28  # as many contexts per pair as were asked for

    def test_memory_is_flat_in_the_contexts(self):
        peaks = []
        for contexts in (200, 2000):
            stub = polynomial(lambda x: x[:, 0] * x[:, 1], 64, 1, chunk_size=512)
            tracemalloc.start()
            sample_multi_order(stub, RandomPairs(1, 8), contexts, orders=[20])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.5 * peaks[0] + 1e6

    def test_orders(self):
        assert resolve_orders(256)[:4] == (0, 13, 25, 51)
        assert len(resolve_orders(256)) == len(REFERENCE_RATIOS)
        assert resolve_orders(12, ratios=[0, 0.5, 1]) == (0, 5, 10)
        assert resolve_orders(12, orders=[7, 3]) == (7, 3)
        assert resolve_orders(2) == (0,)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"orders": [8]}, r"orders: got 8, expected 0 … n − 2 = 7"),
            ({"orders": [-1]}, "orders: got -1"),
            ({"orders": [2, 2]}, r"orders: got an order twice, \(2, 2\)"),
            ({"orders": []}, "orders: got none"),
            ({"ratios": [1.1]}, "ratios: got 1.1"),
            ({"ratios": [0.5, 0.51]}, "ratios: got ratios that are the same order of 9 players"),
            ({"orders": [1], "ratios": [0.5]}, "orders, ratios: got both"),
            ({"contexts": 0}, "contexts: got 0"),
            ({"contexts": 1}, "contexts: got 1"),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(InputError, match=message):
            sample_multi_order(game(), AllPairs(), **options)

    def test_a_payoff_of_all_logits(self):
        with pytest.raises(InputError, match="payoff: got one value per class"):
            sample_multi_order(game(payoff="all"), AllPairs())

    def test_nan_names_the_sample(self):
        x = images()
        x[1, 0, 1, 1] = torch.nan
        broken = MaskedGame(network(), x, 0.0, GridPlayers(3, 3), "logit", LABELS)
        for estimate in (
            lambda: sample_multi_order(broken, AllPairs(), 4),
            lambda: sample_shapley_pairs(broken, AllPairs(), 4),
            lambda: sample_order_curve(broken, 4),
            lambda: mean_interaction(broken),
            lambda: sample_multivariate(broken, [0, 4], 4),
        ):
            with pytest.raises(InputError, match=r"game: got a payoff .* for sample 1"):
                estimate()


class TestAbsolute:
    def test_floor_of_the_plug_in_where_there_is_no_interaction(self):
        x = torch.randn(400, 20, generator=torch.Generator().manual_seed(0)).double()
        # Δ of the pair (0, 1) is 1/2 where 2 is in the context and -1/2 elsewhere: I = 0 at the
        # middle order, as if there were noise alone.
        net = Set(lambda z: (z[:, 0] != 0).double() * (z[:, 1] != 0) * ((z[:, 2] != 0) + (-0.5)))
        labels = torch.zeros(400, dtype=torch.int64)
        stub = MaskedGame(net, x, 0.0, UnitPlayers(), "logit", labels)
        contexts = 64
        estimates = sample_multi_order(stub, GivenPairs([(0, 1)]), contexts, orders=[9])
        sigma = 0.5
        floor = sigma / contexts**0.5
        error = floor / 400**0.5
        upper, lower = plug_in(estimates).mean(), split_sign(estimates).mean()
        assert float(upper) == pytest.approx(0.798 * floor, abs=4 * error)
        assert abs(float(lower)) < 6 * error
        assert abs(float(product(estimates).mean())) < 10 * error * floor
        assert abs(float(estimates.value.mean())) < 4 * error

    def test_additive_games_have_none(self):
        estimates = sample_multi_order(
            polynomial(lambda x: x @ torch.arange(9.0).double(), 9), AllPairs(), 8
        )
        assert plug_in(estimates).max() < 1e-12

    def test_more_parts_tell_the_sign_better(self):
        # One context per part: Δ = 1/2 + noise of ±1, so that |I| is a standard error of K = 4.
        x = torch.randn(3000, 20, generator=torch.Generator().manual_seed(0)).double()
        net = Set(lambda z: (z[:, 0] != 0).double() * (z[:, 1] != 0) * (2.0 * (z[:, 2] != 0) - 0.5))
        labels = torch.zeros(3000, dtype=torch.int64)
        stub = MaskedGame(net, x, 0.0, UnitPlayers(), "logit", labels)
        estimates = sample_multi_order(stub, GivenPairs([(0, 1)]), 4, orders=[9], share=False)
        assert len(estimates.part_sum) == 4
        # The sign of three of Δ = 1.5 or −0.5 (equally likely) is that of the sum in 7 of 8 cases;
        # with two parts of two it is in 3 of 4.
        lower = split_sign(estimates).flatten()
        error = float(lower.std()) / 3000**0.5
        assert float(lower.mean()) == pytest.approx(0.5 * (2 * 7 / 8 - 1), abs=4 * error)
        assert float(lower.mean()) > 0.25 + 4 * error

    def test_readings_bracket_the_truth(self):
        estimates = sample_multi_order(game(), AllPairs(), 12, orders=[3, 4])
        truth = at_pairs(multi_order_interactions(exact_values(game()))[:, 3:5], estimates).abs()
        assert split_sign(estimates).nanmean() < truth.mean() < plug_in(estimates).nanmean()
        square = truth.square().mean()
        assert float(product(estimates).nanmean()) == pytest.approx(float(square), rel=0.25)

    def test_end_orders_are_exact_in_every_reading(self):
        estimates = sample_multi_order(game(), AllPairs(), 2, orders=[0, 7])
        truth = at_pairs(multi_order_interactions(exact_values(game()))[:, [0, 7]], estimates)
        torch.testing.assert_close(plug_in(estimates), truth.abs())
        torch.testing.assert_close(split_sign(estimates), truth.abs())
        torch.testing.assert_close(product(estimates), truth.square())


@pytest.mark.parametrize("choice", CHOICES)
def test_shapley_pairs(choice):
    estimates = sample_shapley_pairs(game(), CHOICES[choice], 300)
    exact = at_pairs(shapley_interactions(exact_values(game())).unsqueeze(1), estimates)
    z = (estimates.value - exact) / estimates.stderr
    assert z.abs().max() < 4.5  # keep rates are stratified: the errors are on the safe side
    assert 0.2 < z.square().mean() < 1.3
    assert (estimates.count == 300).all()
    assert estimates.differences == 300 * estimates.pairs.shape[1]


def test_closed_forms():
    exact = shapley_interactions(exact_values(game()))
    torch.testing.assert_close(player_interactions(game()), exact.sum(-1))
    torch.testing.assert_close(mean_interaction(game()), exact.sum((1, 2)) / 72)


def test_order_curve():
    v = exact_values(game())
    curve = sample_order_curve(game(), 400)
    exact = order_curve(v)
    torch.testing.assert_close(curve.curve[:, [0, -1]], exact[:, [0, -1]])
    assert (curve.curve_stderr[:, [0, -1]] == 0).all()
    z = ((curve.curve - exact) / curve.curve_stderr)[:, 1:-1]
    assert z.abs().max() < 4.5
    orders = multi_order_interactions(v).sum((-1, -2)) / 72
    z = (curve.orders - orders) / curve.orders_stderr
    assert z.abs().max() < 4.5
    assert 0.4 < z.square().mean() < 2
    assert curve.evaluations == 400 * 8 + 2
    chunked = sample_order_curve(game(chunk_size=5), 400)
    torch.testing.assert_close(chunked.curve, curve.curve)


@pytest.mark.parametrize("subset", [[4], [0, 4], [8, 0, 5, 2]])
def test_multivariate(subset):
    exact = multivariate_interaction(exact_values(game()), subset)
    estimate = sample_multivariate(game(), subset, 500)
    assert ((estimate.value - exact).abs() <= 4.5 * estimate.stderr + 1e-12).all()
    together = block_shapley_values(exact_values(game()), subset)[:, -1]
    assert ((estimate.shapley - together).abs() <= 4.5 * estimate.shapley_stderr).all()
    assert (estimate.shapley_stderr < 0.1).all()
    assert estimate.evaluations == 500 * (len(subset) + 2)


@pytest.mark.parametrize("enumerate_up_to", [8, 0])
def test_multivariate_strength(enumerate_up_to):
    subset = [0, 4, 5, 8, 2]
    v = exact_values(game())
    exact = multivariate_strength(v, subset)
    result = sample_strength(game(), subset, 60, enumerate_up_to=enumerate_up_to)
    assert result.exhaustive == (enumerate_up_to == 8)
    # The confirmed value is that of two partitions, so it cannot exceed T by more than noise.
    assert (result.lower <= exact + 4.5 * result.lower_stderr).all()
    assert (result.lower >= 0.9 * exact).all()
    phi = block_shapley_values(v, subset)
    for b in range(3):
        values = []
        for labels in (result.highest[b], result.lowest[b]):
            masks = [sum(1 << k for k in range(5) if labels[k] == c) for c in range(5)]
            values.append(sum(float(phi[b, m]) for m in masks if m))
        truth = values[0] - values[1]
        assert abs(float(result.lower[b]) - truth) < 4.5 * float(result.lower_stderr[b])


def test_strength_of_a_large_set_is_searched():
    # Pairs (0,1), (2,3), … gain 1 together and (1,2), (3,4), … lose 1: T is 5 + 4 with 10 players.
    def formula(x):
        gains = (x[:, 0:10:2] * x[:, 1:10:2]).sum(-1)
        return gains - (x[:, 1:9:2] * x[:, 2:10:2]).sum(-1)

    stub = polynomial(formula, 12, 1)
    result = sample_strength(stub, range(10), 2, candidates=200, rounds=15)
    assert not result.exhaustive
    assert 7 <= float(result.lower) <= 9 + 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_multivariate(game(), [1, 1]), r"subset: got \(1, 1\)"),
        (lambda: sample_multivariate(game(), [9]), r"subset: got \(9,\)"),
        (lambda: sample_multivariate(game(), [1], 1), "contexts: got 1"),
        (lambda: sample_order_curve(game(), 1), "chains: got 1"),
        (lambda: sample_strength(game(), [1], candidates=2), "candidates: got 2"),
        (lambda: sample_strength(game(), [1], enumerate_up_to=20), "enumerate_up_to: got 20"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_nothing_of_the_global_state_changes():
    given = game()
    before = torch.get_rng_state()
    sample_multi_order(given, RandomPairs(1, 4), 4)
    sample_strength(given, [0, 1, 2], 2)
    sample_order_curve(given, 2)
    assert torch.equal(torch.get_rng_state(), before)
