"""Relevance propagation: exact values, gradient × input, conservation, and zennit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interaction_train.attributions.gradients import player_sums
from interaction_train.attributions.lrp import deep_taylor, lrp_alpha_beta, lrp_epsilon
from interaction_train.errors import InputError
from interaction_train.game.normalize import Normalize, normalized
from tests.attributions.networks import (
    PACKAGED,
    Awkward,
    Cubic,
    image_game,
    packaged,
    rand,
    unit_game,
)

METHODS = [lrp_epsilon, lrp_alpha_beta, deep_taylor]


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (lrp_epsilon, [10, 5, -5]),
        (lrp_alpha_beta, [40 / 3, 20 / 3, -10]),
        (deep_taylor, [20 / 3, 10 / 3, 0]),
    ],
)
def test_values_of_one_module(method, expected):
    x = torch.ones(1, 3).double()
    close(method(unit_game(Cubic().double(), x)), torch.tensor([expected], dtype=torch.float64))

    def summed(x):
        t = (torch.tensor([2.0, 1.0, -1.0]).double() * x).sum(1, keepdim=True)
        return torch.cat([t + t**3, torch.zeros_like(t)], 1)

    close(method(unit_game(summed, x)), torch.tensor([expected], dtype=torch.float64))


def test_other_shares_and_epsilons():
    x, network = torch.ones(1, 3).double(), Cubic().double()
    result = lrp_alpha_beta(unit_game(network, x), alpha=3, beta=-2)
    close(result, torch.tensor([[20.0, 10, -20]]).double())
    # (31): t = 2 and f = 10, with ε in the denominator of the linear layer and of the sum t + t³.
    result = lrp_epsilon(unit_game(lambda x: network.linear(x) * torch.tensor([[1, 0]]), x), 0.5)
    first = 2 * 2 / 2.5  # of the factor 1
    close(result, first / 2.5 * torch.tensor([[2.0, 1, -1]]).double())


def gradient_input(game, network):
    """(z ∂f/∂z) per player, of the normalised input z."""
    z = network.normalize(game.present).detach().requires_grad_()
    tail = copy.deepcopy(network).eval()
    tail.normalize = nn.Identity()
    logits = tail(z)[torch.arange(len(z)), game.labels]
    return player_sums(game, (z * torch.autograd.grad(logits.sum(), z)[0]).detach())


@pytest.mark.parametrize("name", PACKAGED)
def test_epsilon_is_gradient_times_input_on_relu_networks(name):
    network, (channels, side) = packaged(name)
    game = image_game(network, channels, side, samples=2, baseline=network.normalize.mean)
    close(lrp_epsilon(game), gradient_input(game, network))


def test_epsilon_is_not_gradient_times_input_for_other_activations():
    torch.manual_seed(0)
    layers = [nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2)]
    game = unit_game(nn.Sequential(*layers).double(), rand(2, 3))
    x = game.present.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(game.model(x)[:, 0].sum(), x)
    assert (lrp_epsilon(game) - x * gradient).abs().max() > 0.01


def test_normalize_may_be_a_hook_of_the_network():
    torch.manual_seed(0)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 3)

        def forward(self, x):
            return self.head(F.relu(self.conv(x)).view(len(x), -1))

    network = normalized(Plain(), [0.3], [0.4]).double()
    baseline = network.normalize.mean
    game = image_game(network, baseline=baseline)
    inner = Plain().double()
    inner.load_state_dict({k: v for k, v in network.state_dict().items() if "normalize" not in k})
    other = image_game(inner, baseline=0.0)
    other.present = network.normalize(game.present)
    for method in METHODS:
        close(method(game), method(other))


def test_deep_taylor_keeps_the_sum_of_positive_networks():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)]
    network = nn.Sequential(*layers).double()
    for p in network.parameters():
        p.data.abs_()
    game = image_game(network, baseline=0.0)
    full = game(torch.ones(1, game.n, dtype=torch.bool))[:, 0]
    result = deep_taylor(game)
    close(result.sum(1), full)
    assert bool((result >= 0).all())


@pytest.mark.parametrize("method", METHODS)
def test_it_works_without_gradients_around_it(method):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    expected = method(unit_game(network, rand(2, 4)))
    assert bool(expected.any())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(method(unit_game(network, rand(2, 4))), expected)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_refused(method):
    network, _ = packaged("DigitsMLP")
    with pytest.raises(InputError, match="absent"):
        method(image_game(network, baseline=0.0))
    with pytest.raises(InputError, match="absent"):
        method(unit_game(nn.Linear(3, 2), torch.rand(2, 3), 0.5))
    with pytest.raises(InputError, match="mul"):
        method(unit_game(lambda x: x[:, :2] * x.sigmoid()[:, 1:], torch.rand(2, 3)))
    with pytest.raises(InputError, match="no rule"):
        method(image_game(Awkward().double(), baseline=0.0))
    with pytest.raises(InputError, match="payoff"):
        method(unit_game(nn.Linear(3, 2), torch.rand(2, 3), payoff="margin"))
    layer = Normalize([0.0], [1.0])
    twice = nn.Sequential(layer, layer, nn.Flatten(), nn.Linear(64, 2)).double()
    with pytest.raises(InputError, match="2 times"):
        method(image_game(twice, baseline=0.0))


def test_numbers_that_are_refused():
    game = unit_game(nn.Linear(3, 2), torch.rand(2, 3))
    with pytest.raises(InputError, match="epsilon"):
        lrp_epsilon(game, 0.0)
    with pytest.raises(InputError, match="beta"):
        lrp_alpha_beta(game, 2, 1)


def zennit_relevance(network, game, rules):
    """Relevances of zennit, which takes a rule for every layer with weights."""
    composites = pytest.importorskip("zennit.composites")
    types = pytest.importorskip("zennit.types")
    basic = pytest.importorskip("zennit.rules")
    layers = [(types.Activation, basic.Pass()), (types.Linear, rules(basic))]
    x = game.present.clone().requires_grad_()
    with composites.LayerMapComposite(layers).context(network) as modified:
        output = modified(x)
        start = torch.zeros_like(output)
        rows = torch.arange(len(x))
        start[rows, game.labels] = output.detach()[rows, game.labels]
        (relevance,) = torch.autograd.grad(output, x, start)
    return player_sums(game, relevance.detach())


ZENNIT = {
    lrp_alpha_beta: lambda basic: basic.AlphaBeta(2, 1, stabilizer=1e-12, zero_params="bias"),
    deep_taylor: lambda basic: basic.AlphaBeta(1, 0, stabilizer=1e-12, zero_params="bias"),
    lrp_epsilon: lambda basic: basic.Epsilon(1e-9),
}


@pytest.mark.parametrize("method", ZENNIT)
@pytest.mark.parametrize("act", [nn.ReLU, nn.Sigmoid])
def test_zennit_agrees(method, act):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, padding=1), act(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), act()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(20, 7), act(), nn.Linear(7, 3))
    game = image_game(network.double(), baseline=0.0)
    expected = zennit_relevance(network, game, ZENNIT[method])
    assert expected.abs().max() > 1e-3
    options = {"epsilon": 1e-9} if method is lrp_epsilon else {}
    torch.testing.assert_close(method(game, **options), expected, rtol=1e-7, atol=1e-9)
