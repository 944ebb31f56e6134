"""Devices without float64, such as Apple's: every index and estimate, nearly as elsewhere."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import interaction_train as it
from interaction_train.game.precision import wide, wide_dtype
from interaction_train.indices import exact, exact_sets
from interaction_train.indices.readings import plug_in, product, split_sign
from interaction_train.metrics.perturbation import perturbation_interaction

GRID = it.GridPlayers(3, 3)
LABELS = torch.tensor([0, 1, 2])
PAIRS = {
    "all": it.AllPairs(),
    "random": it.RandomPairs(2, 4),
    "given": it.GivenPairs([(0, 1), (5, 3)]),
    "neighbours": it.NeighbourPairs(1, 3),
}


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if getattr(value, "dtype", None) is torch.float64:
                raise TypeError(f"{func} with float64")
        return result


def network():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return net


def images():
    return torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def game(**changes):
    options = {"payoff": "logit", "labels": LABELS, "chunk_size": 64}
    return it.MaskedGame(network(), images(), 0.3, GRID, **{**options, **changes})


def values(n=9, shape=(3,)):
    return torch.randn(*shape, 2**n, generator=torch.Generator().manual_seed(2)) + 1


def plain(result):
    """Every tensor of a result."""
    if hasattr(result, "__dataclass_fields__"):
        result = vars(result)
    return [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]


def close(one, other, rtol=2e-4, atol=2e-4):
    one, other = plain(one), plain(other)
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a.dtype in (b.dtype, torch.float32)
        torch.testing.assert_close(a, b.to(a.dtype), rtol=rtol, atol=atol, equal_nan=True)


CALLS = {
    **{
        name: lambda name=name: getattr(exact, name)(values())
        for name in (
            "dividends",
            "values_from_dividends",
            "order_curve",
            "shapley_values",
            "multi_order_interactions",
            "shapley_interactions",
        )
    },
    **{
        name: lambda name=name: getattr(exact_sets, name)(values(), [4, 0, 7])
        for name in (
            "shapley_interaction",
            "block_shapley_values",
            "multivariate_interaction",
            "multivariate_strength",
        )
    },
    "order_strengths": lambda: exact.order_strengths(values(4).view(3, 1, 4, 4)),
    "interaction_spectrum": lambda: exact.interaction_spectrum(values(6).view(3, 4, 4, 4)),
    "exact_values": lambda: it.exact_values(game()),
    "player_interactions": lambda: it.player_interactions(game()),
    "mean_interaction": lambda: it.mean_interaction(game()),
    "order_curve_sampled": lambda: it.sample_order_curve(game(), 300),
    "multivariate": lambda: it.sample_multivariate(game(), [0, 4, 8], 300),
    "strength": lambda: it.sample_strength(game(), [0, 4, 8, 2], 50),
    "strength_searched": lambda: it.sample_strength(
        game(), [0, 4, 8, 2], 50, enumerate_up_to=0, candidates=16, rounds=3
    ),
    "perturbation": lambda: perturbation_interaction(
        network(), images(), images() * 0.9, LABELS, GRID
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_indices(name):
    whole = CALLS[name]()
    with NoFloat64():
        found = CALLS[name]()
    close(found, whole)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    def estimates():
        multi = it.sample_multi_order(game(), PAIRS[name], 20, orders=[0, 3, 7])
        apart = it.sample_multi_order(game(), PAIRS[name], 5, orders=[0, 3], share=False)
        shapley = it.sample_shapley_pairs(game(), PAIRS[name], 40)
        readings = [f(e) for e in (multi, shapley) for f in (plug_in, split_sign, product)]
        return [plain(e) for e in (multi, apart, shapley)], readings

    # Plans are remembered: what one device made must serve the other.
    whole = estimates()
    with NoFloat64():
        found = estimates()
    close(found, whole)
    close(estimates(), whole, 0, 0)
    assert plain(whole)[1].dtype == torch.float64
    assert plain(found)[1].dtype == torch.float32


METRICS = {
    it.InteractionSpectrum: {"ratios": [0, 0.5, 1], "baseline": 0.3, "only_correct": False},
    it.Disentanglement: {"ratios": [0, 0.5, 1], "baseline": 0.3, "only_correct": False},
    it.InteractionStrength: {"baseline": 0.3, "only_correct": False},
    it.PerturbationInteraction: {},
}


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.filterwarnings("ignore:.*has no sample to measure", "ignore:The ``compute`` method")
def test_metrics(kind):
    def measure():
        metric, empty = (kind(GRID, contexts=12, **METRICS[kind]) for _ in range(2))
        x = images()
        given = (x, x * 0.9) if kind is it.PerturbationInteraction else (x,)
        for part in (slice(0, 2), slice(1, 3)):
            metric.update(network(), *(image[part] for image in given), LABELS[part])
        return metric.compute(), empty.compute()

    whole = measure()
    with NoFloat64():
        found = measure()
    close(found, whole)


def test_an_additive_game_has_no_interactions():
    """Rounding noise is not taken for a spectrum in float32 sums either."""
    for n in (3, 6, 10, 14):
        v = torch.rand(20, n) @ exact.all_coalitions(n).float().T + 1
        with NoFloat64():
            assert (it.multi_order_interactions(v) == 0).all()


def test_the_dtype_of_sums():
    assert wide_dtype("cpu") is torch.float64
    with NoFloat64():
        assert wide_dtype("cpu") is torch.float32
        assert wide(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert wide_dtype("cpu") is torch.float64
