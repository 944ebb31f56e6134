"""Orders and spectra, exact and sampled, and what a budget buys."""

import math

import pytest
import torch

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.explaining.explain import explain
from interaction_train.explaining.sampled import Sampler

from .networks import ImageNet, images, sine

X = torch.ones(2, 9, dtype=torch.float64)
X[1] = torch.linspace(-1, 1, 9)


def exact(**changes):
    return explain(sine, **{"x": X, "y": 0, "players": "features", "baseline": 0.0, **changes})


def listed(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def sampled(budget, **changes):
    return exact(budget=budget, **changes)


class TestExact:
    def test_orders(self):
        found = exact()
        expected = it.multi_order_interactions(found.values)
        for m in range(8):
            torch.testing.assert_close(found.order(m), expected[:, m])
            assert float(found.order_stderr(m).abs().max()) == 0
        torch.testing.assert_close(sum(found.order(m) for m in range(8)) / 8, found.pairs)
        assert found.evaluations == 512

    def test_rounding_is_no_interaction(self):
        """Float32 outputs of an additive network have no orders; sums are rounded."""

        def additive(x):
            z = x @ torch.linspace(0.1, 0.9, 9)
            return torch.stack([z, torch.zeros_like(z)], 1)

        found = explain(additive, X.float(), 0, "features", baseline=0.0)
        assert found.values.dtype == torch.float32
        assert max(float(found.order(m).abs().max()) for m in range(8)) == 0

    def test_spectrum(self):
        found = exact()
        spectrum = found.spectrum()
        multi_order = it.multi_order_interactions(found.values)
        assert spectrum["orders"] == list(range(8))
        assert spectrum["reading"] == "mean"
        strengths = it.indices.order_strengths(multi_order)
        torch.testing.assert_close(listed(spectrum["value"]), strengths)
        expected = it.indices.interaction_spectrum(multi_order)
        torch.testing.assert_close(listed(spectrum["J"]), expected)

    def test_errors_of_the_spectrum_are_those_of_resampled_images(self):
        """Against the jackknife, which knows nothing of the ratio's derivative."""
        found = explain(ImageNet(), images(12), players="grid:2x3")
        spectrum = found.spectrum()
        orders = it.multi_order_interactions(found.values)
        for key, function in (
            ("J_stderr", it.indices.interaction_spectrum),
            ("stderr", it.indices.order_strengths),
        ):
            left = [function(orders[torch.arange(12) != k]) for k in range(12)]
            jackknife = torch.stack(left).var(0, correction=0).mul(11).sqrt()
            torch.testing.assert_close(listed(spectrum[key]), jackknife, rtol=0.25, atol=0)

    def test_no_error_from_one_sample(self):
        spectrum = exact(x=X[1]).spectrum()
        assert all(math.isnan(error) for error in spectrum["stderr"] + spectrum["J_stderr"])
        assert not any(math.isnan(value) for value in spectrum["value"] + spectrum["J"])

    @pytest.mark.parametrize("m", [-1, 8])
    def test_orders_out_of_range(self, m):
        with pytest.raises(InputError, match="m: got"):
            exact().order(m)


class TestSampled:
    def test_values_and_pairs_hold_the_truth(self):
        truth, off, pairs_off = exact(), [], []
        upper = torch.triu_indices(9, 9, 1)
        for seed in range(40):
            found = sampled(511, seed=seed)
            assert not found.exact
            assert found.values is None
            off.append((found.shapley - truth.shapley).abs() <= 2 * found.shapley_stderr)
            near = (found.pairs - truth.pairs).abs() <= 2 * found.pairs_stderr
            pairs_off.append(near[:, upper[0], upper[1]])
        assert 0.88 <= float(torch.stack(off).double().mean()) <= 0.98
        assert 0.8 <= float(torch.stack(pairs_off).double().mean()) <= 0.98  # of 8 contexts
        assert torch.equal(found.pairs, found.pairs.mT)
        assert float(found.pairs.diagonal(dim1=1, dim2=2).abs().max()) == 0

    def test_efficiency(self):
        found = sampled(400)
        torch.testing.assert_close(found.shapley.sum(1), found.full - found.empty)
        torch.testing.assert_close(found.full, exact().full)
        torch.testing.assert_close(found.empty, exact().empty)

    def test_a_larger_budget_comes_closer(self):
        x = torch.linspace(-1, 1, 14, dtype=torch.float64)
        truth = exact(x=x)
        errors = []
        for budget in (1000, 16_000):
            found = sampled(budget, x=x)
            assert budget * 0.95 < found.evaluations <= budget
            errors.append(float((found.pairs - truth.pairs).square().mean().sqrt()))
        assert errors[1] < errors[0] / 2

    def test_orders(self):
        truth, found = exact(), sampled(500)
        spent = found.evaluations
        for m in (0, 7):  # the end orders are exact
            torch.testing.assert_close(found.order(m), truth.order(m))
            assert float(found.order_stderr(m).max()) == 0
        error, stderr = found.order(3) - truth.order(3), found.order_stderr(3)
        assert float(error.square().mean().sqrt()) < 3 * float(stderr.square().mean().sqrt())
        assert found.evaluations <= spent + 2 * 46 + 500
        spent = found.evaluations
        found.order(3)
        assert found.evaluations == spent  # what is known costs nothing

    def test_samples_do_not_depend_on_their_batch(self):
        whole, alone = sampled(400), sampled(400, x=X[1])
        torch.testing.assert_close(alone.shapley[0], whole.shapley[1])
        torch.testing.assert_close(alone.pairs[0], whole.pairs[1])
        torch.testing.assert_close(alone.order(2)[0], whole.order(2)[1])

    def test_spectrum(self):
        x = torch.rand(40, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found, truth = sampled(16_000, x=x), exact(x=x)
        spectrum = found.spectrum()
        assert spectrum["reading"] == "rms"
        orders = spectrum["orders"]
        assert orders == list(it.indices.resolve_orders(14))
        squares = [truth.order(m).square().sum((1, 2)).mean() / (14 * 13) for m in orders]
        expected = torch.stack(squares).sqrt()
        found_values = listed(spectrum["value"])
        torch.testing.assert_close(found_values, expected, rtol=0.05, atol=0.02)
        torch.testing.assert_close(listed(spectrum["J"]), found_values / found_values.mean())

    def test_fewer_orders_for_a_smaller_budget(self):
        assert sampled(500).spectrum()["orders"] == [0, 2, 4, 5, 7]
        assert sampled(300).spectrum()["orders"] == [0, 4, 7]
        with pytest.raises(InputError, match="budget: got 150"):
            sampled(150).spectrum()


def costs(n, budget):
    x = torch.linspace(-1, 1, n, dtype=torch.float64)[None]
    rows = []

    def count(values):
        rows.append(len(values))
        return sine(values)

    game = it.MaskedGame(count, x, 0.0, it.UnitPlayers(), labels=torch.tensor([0]), chunk_size=512)
    return Sampler(game, budget), rows


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 13, 30])
def test_no_job_costs_more_than_the_budget(n):
    """Down to the smallest budget, which the refusal names."""
    jobs = {"values_and_pairs": (), "spectrum": ()} | {f"order {m}": (m,) for m in range(n - 1)}
    for job, arguments in jobs.items():
        if (n < 6 and not arguments) or (n, job) == (4, "order 1"):
            continue  # all coalitions are fewer, and explain() takes them
        small, _ = costs(n, 1)
        with pytest.raises(InputError, match="budget: got 1, expected at least") as refused:
            getattr(small, job.split()[0])(*arguments)
        least = int(refused.value.expected.split()[2])
        for budget in (least, least + 1, 3 * least, 10 * least + 7):
            sampler, rows = costs(n, budget)
            getattr(sampler, job.split()[0])(*arguments)
            assert sum(rows) == sampler.evaluations <= budget, (job, budget)
        with pytest.raises(InputError, match="budget"):
            getattr(costs(n, least - 1)[0], job.split()[0])(*arguments)


def test_concepts_are_those_of_the_values():
    found = exact()
    concepts = found.concepts(noise=0.1)
    expected = it.sparse_concepts(found.values, noise=0.1)
    torch.testing.assert_close(concepts.and_, expected.and_)
    assert found.concepts(noise=0.1) is concepts
    assert found.concepts() is not concepts
    with pytest.raises(InputError, match=r"explanation: got one sampled.*a budget of 2\^9"):
        sampled(300).concepts()


def test_the_graph_is_that_of_the_strongest_concepts():
    found = exact()
    graph = found.graph(1, count=6, noise=0)
    chosen = it.select_concepts(found.concepts(noise=0), found.values, 6)
    nodes = graph.layer("concept")
    assert [node.value for node in nodes] == pytest.approx(chosen.value[1].tolist())
    assert graph.names == found.names
    assert graph.r2 == pytest.approx(float(chosen.r2[1]))
    assert found.graph(-1, count=6, noise=0) == graph
    with pytest.raises(InputError, match="sample: got 2"):
        found.graph(2)
    with pytest.raises(InputError, match="explanation: got one sampled"):
        sampled(300).graph()


def test_the_graph_of_two_players():
    found = explain(sine, torch.ones(1, 2).double(), 0, "features", baseline=0.0)
    graph = found.graph(noise=0)
    assert 0 < len(graph.layer("concept")) <= 8
    assert graph.r2 == pytest.approx(1)
    with pytest.raises(InputError, match="count: got 0"):
        found.graph(count=0)


class TestStrongest:
    """The few interactions of many players, where not all coalitions can be had."""

    @staticmethod
    def network(x):
        """Logits 2 x3 x7 + x11 and 0, of 24 columns."""
        z = 2 * x[:, 3] * x[:, 7] + x[:, 11]
        return torch.stack([z, torch.zeros_like(z)], 1)

    def explanation(self, budget=900, network=network):
        x = torch.ones(2, 24, dtype=torch.float64)
        x[1, 11] = -1
        return explain(network, x, 0, "features", baseline=0.0, payoff="logit", budget=budget)

    def test_known_interactions(self):
        explanation = self.explanation()
        before = explanation.evaluations
        found = explanation.strongest()
        assert explanation.evaluations == before + 900
        assert found.fresh == 100
        assert found.r2.tolist() == pytest.approx([1, 1], abs=1e-9)
        for sample, sign in ((0, 1), (1, -1)):
            told = found.interactions(sample, explanation.names)
            assert [str(one) for one in told] == ["x3 AND x7", "x11"]
            assert [one.value for one in told] == pytest.approx([2, sign])
        assert explanation.strongest(1).surrogate.count.tolist() == [1, 1]
        assert explanation.evaluations == before + 900

    def test_large_budgets_do_not_cost_more(self):
        explanation = self.explanation(4000)
        before = explanation.evaluations
        explanation.strongest()
        assert explanation.evaluations == before + 2048

    def test_a_game_that_few_do_not_explain(self):
        def parity(x):
            z = (1 - 2 * x).prod(1)
            return torch.stack([z, torch.zeros_like(z)], 1)

        explanation = self.explanation(network=parity)
        with pytest.warns(UserWarning, match="not explained by a few interactions"):
            found = explanation.strongest()
        assert not found.explained.any()
        assert "not explained by a few" in found.summary(explanation.names)

    def test_refused(self):
        with pytest.raises(InputError, match="explanation: got an exact one"):
            exact().strongest()
        explanation = self.explanation()
        explanation.sampler.budget = 50
        with pytest.raises(InputError, match="at least 54 evaluations, for interactions of 24"):
            explanation.strongest()
