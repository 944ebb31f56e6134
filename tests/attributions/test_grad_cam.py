"""Grad-CAM: its definition, the layer it takes, and captum."""

import pytest
import torch
from torch import nn

from interaction_train.attributions.grad_cam import grad_cam
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers
from tests.attributions.networks import image_game, packaged, rand, unit_game


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def pooled_network():
    """A head with global average pooling, and nothing but it behind the last layer."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 2, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 3, bias=False)).double()


def test_with_average_pooling_it_is_activation_times_gradient():
    network = pooled_network()
    game = image_game(network, samples=2)
    a = network[:2](game.present).detach().requires_grad_()  # (2, 6, 4, 4)
    logits = network[2:](a)
    (gradient,) = torch.autograd.grad(logits[[0, 1], game.labels].sum(), a)
    cells = (a * gradient).sum(1)
    # Players are the quarters; bilinear weights reach over their borders, so the parts are compared
    # where the map is constant, and the sum everywhere.
    result = grad_cam(game)
    close(result.sum(1), cells.sum((1, 2)).detach())
    close(result.sum(1), logits[[0, 1], game.labels].detach())
    nearest = cells.reshape(2, 2, 2, 2, 2).sum((2, 4)).flatten(1).detach()
    assert (result - nearest).abs().max() < nearest.abs().max() / 4


def test_a_map_of_the_images_size_is_summed_as_it_is():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(3 * 16, 2)).double()
    x = rand(2, 2, 4, 4)
    game = MaskedGame(network, x, 0.0, GridPlayers(4, 4), labels=torch.tensor([0, 1]))
    a = network[:2](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network[2:](a)[[0, 1], [0, 1]].sum(), a)
    expected = (gradient.mean((2, 3), keepdim=True) * a).sum(1).flatten(1).detach()
    close(grad_cam(game), expected)  # the default is the ReLU, the last layer with positions
    assert (grad_cam(game, layer="0") - expected).abs().max() > 1e-6


def test_nothing_is_left_on_the_network():
    network, _ = packaged("DigitsNet")
    network.train()
    grad_cam(image_game(network))
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks for m in network.modules())


def test_it_works_without_gradients_around_it_and_compiled():
    network, _ = packaged("DigitsNet")
    expected = grad_cam(image_game(network))
    assert bool(expected.any())
    with torch.inference_mode():
        assert torch.equal(grad_cam(image_game(network)), expected)
    network.compile(backend="eager")
    network.eval()(image_game(network).present)  # the graph is there before the hook
    assert torch.equal(grad_cam(image_game(network)), expected)


def test_what_is_refused():
    network, _ = packaged("DigitsNet")
    game = image_game(network)
    with pytest.raises(InputError, match="classifier"):
        grad_cam(game, layer="classifier")
    with pytest.raises(InputError, match="featurs"):
        grad_cam(game, layer="featurs")
    with pytest.raises(InputError, match="game"):
        grad_cam(unit_game(nn.Linear(3, 2), torch.rand(2, 3)))
    with pytest.raises(InputError, match="payoff"):
        grad_cam(image_game(network, payoff="all"))
    with pytest.raises(InputError, match="layer"):
        grad_cam(image_game(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()))


def test_captum_agrees():
    captum = pytest.importorskip("captum.attr")
    network, _ = packaged("DigitsNet")
    game = image_game(network.eval())
    cam = captum.LayerGradCam(network, network.features)
    map_ = cam.attribute(game.present, target=game.labels).detach()  # (3, 1, 2, 2)
    wide = nn.functional.interpolate(map_, (8, 8), mode="bilinear") / 16
    expected = wide.reshape(3, 2, 4, 2, 4).sum((2, 4)).flatten(1)
    close(grad_cam(game, layer="features"), expected)
