"""Back-propagated secants: sums, exact values, principles, and captum where it is right."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interaction_train.attributions.deeplift import (
    deep_shap,
    deeplift_rescale,
    deeplift_reveal_cancel,
)
from interaction_train.errors import InputError
from interaction_train.game.layers import LayerSuffix, features
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.indices.exact import all_coalitions, dividends, shapley_values
from tests.attributions.networks import (
    PACKAGED,
    Awkward,
    Cubic,
    ReusedMLP,
    change,
    image_game,
    packaged,
    rand,
    randomized,
    unit_game,
)

COMPLETE = [deeplift_rescale, deeplift_reveal_cancel, deep_shap]
ACTIVATIONS = [nn.Sigmoid(), nn.Softplus(), nn.ReLU(inplace=True), nn.GELU(), nn.Hardswish()]


BRANCHES = pytest.mark.filterwarnings("ignore:the activation .* follows no module")


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (deeplift_rescale, [10, 5, -5]),
        (deeplift_reveal_cancel, [14, 7, -11]),
        (deep_shap, [12, 7, -9]),
    ],
)
def test_values_of_one_module(method, expected):
    game = unit_game(Cubic().double(), torch.ones(1, 3).double())
    close(method(game), torch.tensor([expected]).double())


def test_a_module_written_as_a_sum_or_a_matrix_product():
    weights = torch.tensor([2.0, 1.0, -1.0]).double()

    def summed(x):
        t = (weights * x).sum(1, keepdim=True)
        return torch.cat([t + t.pow(3), 0 * t], 1)

    def multiplied(x):
        t = x @ weights[:, None] + 0.0
        return torch.cat([t + t.pow(3), 0 * t], 1)

    for network in (summed, multiplied):
        game = unit_game(network, torch.ones(1, 3).double())
        close(deeplift_reveal_cancel(game), torch.tensor([[14.0, 7, -11]]).double())
        close(deep_shap(game), torch.tensor([[12.0, 7, -9]]).double())


@BRANCHES
@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.parametrize("method", [deeplift_rescale, deeplift_reveal_cancel])
def test_sums_on_packaged_networks(name, method):
    network, (channels, side) = packaged(name)
    game = image_game(network, channels, side, samples=2)
    close(method(game).sum(1), change(game))


@BRANCHES
@pytest.mark.parametrize("method", [deeplift_rescale, deeplift_reveal_cancel])
def test_sums_however_a_network_is_written(method):
    torch.manual_seed(0)
    game = image_game(randomized(Awkward()))
    assert change(game).abs().min() > 1e-3
    close(method(game).sum(1), change(game))


@pytest.mark.parametrize("method", [deeplift_reveal_cancel, deep_shap])
def test_an_activation_that_follows_no_module_is_named(method):
    torch.manual_seed(0)
    linear = nn.Linear(4, 4).double()
    game = unit_game(lambda x: torch.sigmoid(linear(x) + x), rand(2, 4))
    with pytest.warns(UserWarning, match="'sigmoid' follows no module"):
        found = method(game)
    close(found, deeplift_rescale(game))


def test_what_follows_an_activation_written_in_place_sees_it():
    torch.manual_seed(0)
    linear, head = nn.Linear(4, 5).double(), nn.Linear(5, 2).double()

    def network(x):
        z = linear(x)
        z[:, 1:].relu_()  # a view, whose result is dropped
        return head(z)

    def written(x):
        z = linear(x)
        return head(torch.cat([z[:, :1], z[:, 1:].relu()], 1))

    x, b = rand(3, 4) * 4 - 2, rand(4, seed=4) - 0.5
    game = unit_game(network, x, b)
    close(deeplift_rescale(game), deeplift_rescale(unit_game(written, x, b)))
    close(deeplift_rescale(game).sum(1), change(game))


@pytest.mark.parametrize(("shift", "slope"), [(0.5, 1.0), (0.0, 0.0), (-0.5, 0.0)])
def test_relu_where_input_and_baseline_agree(shift, slope):
    # z = x₀ − x₁ + shift is the same at both ends.
    def network(x):
        z = (x[:, :1] - x[:, 1:2] + shift).relu()
        return torch.cat([z, 0 * z], 1)

    found = deeplift_rescale(unit_game(network, torch.ones(1, 2).double()))
    close(found, torch.tensor([[slope, -slope]]).double())


def test_float32_networks_pass_the_check_of_the_sum():
    torch.manual_seed(0)
    network = randomized(Awkward()).float()
    game = image_game(network)
    game = MaskedGame(
        network, game.present.float(), game.absent.float(), game.players, labels=game.labels
    )
    result = deeplift_rescale(game)
    assert result.dtype == torch.float32
    close(result.sum(1), change(game), 1e-5)


def test_half_precision_gives_float32():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).bfloat16()
    game = unit_game(network, rand(2, 4).bfloat16())
    for method in COMPLETE:
        result = method(game)
        assert result.dtype == torch.float32
        close(result.sum(1), change(game), 0.02)


def test_max_pooling_shares_as_the_straight_path_does():
    # max(x) from b = (0, 1, 0) to x = (3, 0, 1): the path's gradient is that of the second element
    # for t < 1/4, where 3t = 1 - t, and of the first afterwards.
    def network(x):
        top = F.max_pool1d(x.unsqueeze(1), 3).flatten(1)
        return torch.cat([top, 0 * top], 1)

    x, b = torch.tensor([[3.0, 0, 1]]).double(), torch.tensor([0.0, 1, 0]).double()
    close(deeplift_rescale(unit_game(network, x, b)), torch.tensor([[3 * 0.75, -0.25, 0]]).double())


def test_a_product_shares_by_halves():
    def network(x):
        z = x[:, :1] * x[:, 1:2].exp()
        return torch.cat([z, 0 * z], 1)

    x, e = torch.tensor([[2.0, 1.0]]).double(), torch.tensor(1.0).double().exp()
    # Δ(uv) of u: 0 to 2 and v = exp: 1 to e.
    expected = torch.stack([(1 + e) / 2 * 2, (e - 1) * 1])
    close(deeplift_rescale(unit_game(network, x)), expected[None])


@pytest.mark.parametrize("act", ACTIVATIONS, ids=lambda act: type(act).__name__)
@pytest.mark.parametrize("method", COMPLETE)
def test_principles_on_two_hidden_layers(method, act):
    torch.manual_seed(1)
    n, network = 4, ReusedMLP(act).double()
    x, b = rand(1, n) * 4 - 2, rand(n, seed=3) - 0.5
    coalitions = all_coalitions(n)
    shown = torch.where(coalitions, x, b)
    a = method(unit_game(network, shown, b))
    w = dividends(a.T)  # (n, 2^n), over the coalitions that are shown
    v = unit_game(network, x, b)(coalitions)
    j = dividends(v)[0]
    size = j[1:].abs().sum()
    unrelated = sum(w[i, ~coalitions[:, i]].abs().sum() for i in range(n)) / size
    incomplete = (w.sum(0) - j)[1:].abs().sum() / size
    assert size > 1e-2
    assert unrelated <= 1e-10
    assert incomplete <= 1e-10


def rescale_shares(z, s, act):
    """(38), as contributions to the change of one neuron, of products z and the sum s at b."""
    return z / z.sum() * (act(s + z.sum()) - act(s))


def reveal_shares(z, s, act):
    """(40)."""
    up, down = z[z > 0].sum(), z[z <= 0].sum()
    rise = (act(s + up) - act(s) + act(s + up + down) - act(s + down)) / 2
    fall = (act(s + down) - act(s) + act(s + up + down) - act(s + up)) / 2
    return torch.where(z > 0, z / up * rise, z / down * fall)


def shapley_shares(z, s, act):
    """The gain of each input in (43), mean over all orders of arrival."""
    orders = list(itertools.permutations(range(len(z))))
    shares = torch.zeros_like(z)
    for order in orders:
        for k, i in enumerate(order):
            before = s + z[list(order[:k])].sum()
            shares[i] += (act(before + z[i]) - act(before)) / len(orders)
    return shares


SHARES = {
    deeplift_rescale: rescale_shares,
    deeplift_reveal_cancel: reveal_shares,
    deep_shap: shapley_shares,
}


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("act", [torch.sigmoid, F.leaky_relu])
def test_the_papers_recursion_word_for_word(method, act):
    torch.manual_seed(0)
    network = ReusedMLP(act, (4, 5, 3)).double()
    x, b = rand(4) * 6 - 3, rand(4, seed=5) - 0.5
    game = unit_game(network, x[None], b)
    layers, inputs = [network.a, network.b], [(x, b)]
    for layer in layers:
        inputs.append(tuple(act(layer(h)).detach() for h in inputs[-1]))
    high, low = inputs.pop()
    a = network.c.weight[0].detach() * (high - low)  # of the last hidden layer
    for layer in reversed(layers):
        (x, b), below = inputs.pop(), 0
        for j, (weights, bias) in enumerate(zip(layer.weight, layer.bias, strict=True)):
            shares = SHARES[method](
                (weights * (x - b)).detach(), (weights @ b + bias).detach(), act
            )
            below = below + shares / shares.sum() * a[j]
        a = below
    close(method(game)[0], a)


def test_deep_shap_is_the_shapley_value_of_one_module():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    game = unit_game(network, rand(4, 6) * 3, rand(6, seed=2))
    close(deep_shap(game), shapley_values(game(all_coalitions(6))))


def test_deep_shap_of_a_convolution_is_its_shapley_value():
    # One filter over the whole image: the module's inputs are the pixels.
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(2, 2)]
    network = nn.Sequential(*layers).double()
    x = rand(2, 1, 3, 3) * 4
    game = MaskedGame(network, x, 0.5, UnitPlayers(), labels=torch.tensor([0, 1]))
    close(deep_shap(game), shapley_values(game(all_coalitions(9))))


def test_batch_norm_belongs_to_the_module():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data = torch.tensor([1.5, -2.0, 0.5])
    network = nn.Sequential(nn.Linear(4, 3), norm, nn.Sigmoid(), nn.Linear(3, 2)).double().eval()
    game = unit_game(network, rand(3, 4) * 12 - 4)
    close(deep_shap(game), shapley_values(game(all_coalitions(4))))
    folded = copy.deepcopy(network)
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded[0].weight.data *= factor[:, None]
    folded[0].bias.data = (folded[0].bias - norm.running_mean) * factor + norm.bias
    folded[1] = nn.Identity()
    plain = unit_game(folded, game.present)
    close(deeplift_reveal_cancel(game), deeplift_reveal_cancel(plain))
    assert (deeplift_reveal_cancel(game) - deeplift_rescale(game)).abs().max() > 1e-3


def test_reveal_cancel_is_rescale_for_quadratic_activations():
    torch.manual_seed(0)

    def network(x):
        z = x @ weights
        return z.square() - z

    weights = torch.randn(5, 2).double()
    game = unit_game(network, rand(3, 5), rand(5, seed=2))
    close(deeplift_reveal_cancel(game), deeplift_rescale(game))


@BRANCHES
def test_samples_chunks_and_training_modes_do_not_matter():
    torch.manual_seed(0)
    network = randomized(Awkward()).train()
    network.norm.eval()
    state = copy.deepcopy(network.state_dict())
    random = torch.get_rng_state()
    game = image_game(network, samples=70)
    for method in (deeplift_rescale, deeplift_reveal_cancel):
        result = method(game)
        alone = MaskedGame(
            network, game.present[65:66], game.absent[:1], game.players, labels=game.labels[65:66]
        )
        close(method(alone), result[65:66])
        assert not result.requires_grad
    assert torch.equal(random, torch.get_rng_state())
    assert network.training
    assert not network.norm.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients_around_it(mode):
    network = Cubic().double()
    with mode():
        game = unit_game(network, torch.ones(1, 3).double())
        close(deeplift_rescale(game), torch.tensor([[10.0, 5, -5]]).double())


def test_a_missed_sum_is_told_whatever_other_samples_have():
    """Logits of one sample up to 1e9, which are linear, and those of the next with a constant."""

    def network(x):
        z = x[:, :1] * 1e9 + (1 + x[:, 1:2]) * x[:, 1:2].detach()
        return torch.cat([z, 0 * z], 1)

    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    deeplift_rescale(unit_game(network, x[:1]))
    for batch in (x[1:], x):
        with pytest.raises(InputError, match=r"miss f\(x\) - f\(b\) by 1 of their size"):
            deeplift_rescale(unit_game(network, batch))


def test_games_at_a_hidden_layer():
    network, _ = packaged("DigitsNet")
    images = image_game(network)
    h, b = (features(network, "features.2", x).detach() for x in (images.present, images.absent))
    suffix = LayerSuffix(network, "features.2", images.present)
    game = MaskedGame(suffix, h, b, GridPlayers(2, 2), labels=images.labels)
    for method in (deeplift_rescale, deeplift_reveal_cancel):
        close(method(game).sum(1), change(images))


def test_a_module_whose_input_changes_before_its_activation():
    def network(x):
        h = x * 1
        z = h @ torch.ones(4, 2, dtype=x.dtype)
        h += 1
        return z.exp()

    game = unit_game(network, rand(2, 4))
    close(deeplift_rescale(game).sum(1), change(game))
    with pytest.raises(InputError, match="in place"):
        deeplift_reveal_cancel(game)


@pytest.mark.parametrize("method", COMPLETE)
def test_what_is_refused(method):
    x = torch.rand(2, 4)
    with pytest.raises(InputError, match="softmax"):
        method(unit_game(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), x))
    with pytest.raises(InputError, match="payoff"):
        method(unit_game(nn.Linear(4, 3), x, payoff="log_odds"))
    with pytest.raises(InputError, match="miss"):  # the comparison hides a jump from the secants
        method(unit_game(lambda x: torch.where(x[:, :2] > 0.1, x[:, :2] + 1, x[:, :2]), x + 1))
    with pytest.raises(InputError, match="batch_norm"):
        method(unit_game(lambda x: F.batch_norm(x, None, None, training=True), x))


def test_deep_shap_refuses_large_modules_that_an_activation_follows():
    wide = nn.Sequential(nn.Linear(17, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InputError, match="17 inputs"):
        deep_shap(unit_game(wide, torch.rand(2, 17)))
    game = unit_game(nn.Linear(17, 2).double(), rand(2, 17))
    close(deep_shap(game), deeplift_rescale(game))


def test_captum_agrees_on_a_plain_network():
    captum = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Sigmoid(), nn.Linear(7, 3)]
    network = nn.Sequential(*layers).double()
    x, b = rand(4, 6) * 2 - 1, rand(1, 6, seed=5)
    labels = torch.tensor([0, 1, 2, 1])
    game = MaskedGame(network, x, b, UnitPlayers(), labels=labels)
    expected = captum.DeepLift(network).attribute(x, b, target=labels)
    close(deeplift_rescale(game), expected.detach())
