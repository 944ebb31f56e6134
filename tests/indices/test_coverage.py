"""Standard errors of every public estimator: how often ±2 of them hold the truth."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.indices.blocks import block_interaction
from interaction_train.indices.readings import product, split_sign

SEEDS, CONTEXTS = 100, 10


class Product(nn.Module):
    """One logit more: 1 where the first four of eight units are all there."""

    def forward(self, x):
        value = x[:, :4].prod(-1)
        return torch.stack([value, torch.zeros_like(value)], 1)


class Mixed(nn.Module):
    """Pairs and triples of units with weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.pairs = torch.randn(8, 8, generator=generator, dtype=torch.float64)
        self.triples = torch.randn(8, 8, 8, generator=generator, dtype=torch.float64)

    def forward(self, x):
        second = torch.einsum("bi,bj,ij->b", x, x, self.pairs)
        third = torch.einsum("bi,bj,bk,ijk->b", x, x, x, self.triples)
        value = second + third + (second * third).sin()
        return torch.stack([value, torch.zeros_like(value)], 1)


def game(network: nn.Module, samples: int) -> it.MaskedGame:
    """The same sample many times would be drawn for alike: each differs in a unit of no worth."""
    x = torch.ones(samples, 9, dtype=torch.float64)
    x[:, 8] = torch.arange(samples) + 1
    labels = torch.zeros(samples, dtype=torch.int64)
    return it.MaskedGame(Padded(network), x, 0.0, it.UnitPlayers(), labels=labels)


class Padded(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x[:, :8])


GIVEN = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
SAMPLERS = {
    "given": it.GivenPairs(GIVEN),
    "all": it.AllPairs(),
    "random": it.RandomPairs(1, 4),
    "single": it.RandomPairs(3, 2),
}


def covered(errors: torch.Tensor, stderr: torch.Tensor) -> float:
    return float((errors.abs() <= 2 * stderr + 1e-9).double().mean())


def exact_pairs(values: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """``(n, n)`` → ``(B, P)``."""
    return values[pairs[..., 0], pairs[..., 1]]


@pytest.mark.parametrize("choice", SAMPLERS)
@pytest.mark.parametrize("order", [None, 3])
def test_pairs(choice, order):
    """The mean over pairs, per sample; many samples stand for many seeds."""
    played = game(Mixed(), 400)
    values = it.exact_values(game(Mixed(), 1))
    if order is None:
        truth = it.shapley_interactions(values)[0]
        found = it.sample_shapley_pairs(played, SAMPLERS[choice], CONTEXTS)
    else:
        truth = it.multi_order_interactions(values)[0, order]
        found = it.sample_multi_order(played, SAMPLERS[choice], CONTEXTS, orders=[order])
    errors = found.mean[:, 0] - exact_pairs(truth, found.pairs).mean(-1)
    assert 0.9 <= covered(errors, found.mean_stderr[:, 0]) <= 0.98


@pytest.mark.parametrize("choice", SAMPLERS)
def test_few_contexts_are_all_taken(choice):
    """No error, where all of a pair's contexts are no more than would be drawn."""
    truth = it.multi_order_interactions(it.exact_values(game(Mixed(), 1)))[0]
    orders = [6, 2, 1]  # of 7, 21 and 7 contexts
    found = it.sample_multi_order(game(Mixed(), 20), SAMPLERS[choice], CONTEXTS, orders=orders)
    exact = torch.stack([exact_pairs(truth[m], found.pairs) for m in orders], 1)
    assert (found.mean_stderr == 0).tolist() == [[True, False, True]] * 20
    for k in (0, 2):
        assert (found.count[:, k] == 7).all()
        assert (found.stderr[:, k] == 0).all()
        for value in (found.value, found.part_sum[0], found.part_sum[-1]):
            torch.testing.assert_close(value[:, k], exact[:, k], rtol=0, atol=1e-10)
        torch.testing.assert_close(found.mean[:, k], exact[:, k].mean(-1), rtol=0, atol=1e-10)
        lower, square = split_sign(found)[:, k], product(found)[:, k]
        torch.testing.assert_close(lower, exact[:, k].abs(), rtol=0, atol=1e-10)
        torch.testing.assert_close(square, exact[:, k].square(), rtol=0, atol=1e-10)


def test_samples_are_independent_where_pairs_are_given():
    """The error of the mean over samples is what independent samples have."""
    played = game(Product(), 12)
    truth = it.multi_order_interactions(it.exact_values(game(Product(), 1)))[0, 5]
    scores = []
    for seed in range(60):
        found = it.sample_multi_order(played, it.GivenPairs(GIVEN), 4, orders=[5], seed=seed)
        mean = found.mean[:, 0]
        error = mean.mean() - exact_pairs(truth, found.pairs).mean()
        scores.append(float(error / (mean.std() / len(mean) ** 0.5)))
    assert 0.7 < float(torch.tensor(scores).std()) < 1.35


@pytest.mark.parametrize("pairs", [it.GivenPairs(GIVEN), it.RandomPairs(1, 4)])
def test_no_bias_at_few_contexts(pairs):
    played = game(Product(), 600)
    truth = it.multi_order_interactions(it.exact_values(game(Product(), 1)))[0, 5]
    runs = [it.sample_multi_order(played, pairs, 2, orders=[5], seed=seed) for seed in range(20)]
    errors = torch.cat([r.mean[:, 0] - exact_pairs(truth, r.pairs).mean(-1) for r in runs])
    per_run = errors.unflatten(0, (20, -1)).mean(1)
    assert abs(float(per_run.mean())) < 4 * float(per_run.std()) / 20**0.5
    if isinstance(pairs, it.GivenPairs):  # 2 and 3 are among the 5 of 7: C(5, 3)/C(7, 5)
        assert float(torch.cat([r.mean for r in runs]).mean()) == pytest.approx(10 / 21, abs=0.01)


def test_curve_and_sets():
    played = game(Mixed(), 400)
    values = it.exact_values(game(Mixed(), 1))
    curve = it.sample_order_curve(played, CONTEXTS)
    exact, drawn = it.order_curve(values)[0], slice(1, -1)
    errors = (curve.curve - exact)[:, drawn]
    assert 0.9 <= covered(errors, curve.curve_stderr[:, drawn]) <= 0.98
    assert 0.9 <= covered(curve.orders - exact.diff(n=2), curve.orders_stderr) <= 0.98
    shapley = it.sample_shapley_values(played, CONTEXTS)
    errors = (shapley.value - it.shapley_values(values)[0])[:, :8]  # the ninth has no worth
    assert 0.9 <= covered(errors, shapley.stderr[:, :8]) <= 0.98
    found = it.sample_multivariate(played, [0, 2, 5], CONTEXTS)
    truth = it.multivariate_interaction(values, [0, 2, 5])[0]
    assert 0.9 <= covered(found.value - truth, found.stderr) <= 0.98


@pytest.mark.parametrize("blocks", [([0], [3]), ([1], [2]), ([0, 1], [4])])
@pytest.mark.parametrize("contexts", [CONTEXTS, 20])
def test_blocks(blocks, contexts):
    found = it.sample_between(game(Mixed(), 600), *blocks, contexts)
    truth = block_interaction(it.exact_values(game(Mixed(), 1)), *blocks)[0]
    assert 0.9 <= covered(found.value - truth, found.stderr) <= 0.98


def test_stratified_errors_are_neither_too_wide_nor_too_narrow():
    """At many contexts, where strata matter most."""
    played = game(Mixed(), 300)
    found = it.sample_shapley_pairs(played, it.GivenPairs(GIVEN), 60)
    truth = exact_pairs(it.shapley_interactions(it.exact_values(game(Mixed(), 1)))[0], found.pairs)
    ratio = (found.value[:, 0] - truth).std() / found.stderr.square().mean().sqrt()
    assert 0.85 < float(ratio) < 1.1
    sets = it.sample_multivariate(played, [0, 2, 5], 60)
    ratio = sets.value.std() / sets.stderr.square().mean().sqrt()
    assert 0.85 < float(ratio) < 1.1
