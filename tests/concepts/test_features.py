"""Dividends of features, against the definition coordinate by coordinate."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.concepts import feature_dividends, feature_strengths, features as module
from interaction_train.errors import InputError
from interaction_train.game.layers import LayerPrefix


def network(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 5), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(5, 2)).to(dtype)


def images(batch=2, dtype=torch.float64):
    return torch.rand(batch, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=dtype)


def game(layer="3", x=None, model=None, **options):
    x = images() if x is None else x
    prefix = LayerPrefix(model or network(x.dtype), layer)
    return it.MaskedGame(prefix, x, 0.3, it.GridPlayers(2, 2), "all", **options)


@pytest.mark.parametrize("layer", ["1", "3"])
def test_each_coordinate_has_its_alternating_sums(layer, monkeypatch):
    one = game(layer)
    found, coalitions = feature_dividends(one), it.all_coalitions(4)
    values = one(coalitions)
    for index, members in enumerate(coalitions.tolist()):
        inside = ~(coalitions & ~torch.tensor(members)).any(1)
        signs = (-1.0) ** (sum(members) - coalitions[inside].sum(1))
        expected = (signs[:, None] * values[:, inside]).sum(1)
        assert torch.allclose(found[:, index], expected, atol=1e-12)
    assert torch.allclose(found.sum(1), one.model(one.present), atol=1e-12)
    strengths = found.square().sum(-1).sqrt()
    for cells in (module.CELLS, 7 << 4):  # all coordinates at once, and seven at a time
        monkeypatch.setattr(module, "CELLS", cells)
        for grad in (False, True):
            assert torch.allclose(feature_strengths(one, grad=grad), strengths, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_gradient_is_that_of_finite_differences(chunk_size):
    model = network()

    def objective(x):
        strengths = feature_strengths(game("3", x, model, chunk_size=chunk_size), grad=True)
        return strengths @ torch.linspace(-1, 1, 16, dtype=x.dtype)

    x = images().requires_grad_()
    assert torch.autograd.gradcheck(objective, x)
    assert all(p.grad is None for p in model.parameters())


def test_dead_coordinates_have_a_gradient_of_zero():
    """ReLUs that are off make norms of exact zeros, whose derivative must not be NaN."""
    model = network()
    nn.init.constant_(model[3].bias, -100.0)
    x = images().requires_grad_()
    strengths = feature_strengths(game("4", x, model), grad=True)
    (gradient,) = torch.autograd.grad(strengths.sum(), x)
    assert not strengths.any()
    assert not gradient.any()


def test_refusals():
    one = it.MaskedGame(
        network(), images(), 0.0, it.GridPlayers(2, 2), "logit", torch.tensor([0, 1])
    )
    with pytest.raises(InputError, match="game: got the payoff logit"):
        feature_dividends(one)
    large = it.MaskedGame(network(), images(), 0.0, it.GridPlayers(3, 6), "all")
    with pytest.raises(InputError, match="game: got 18 players"):
        feature_strengths(large, grad=True)
    with pytest.raises(InputError, match="finite"):
        feature_strengths(game(x=images() / 0))
