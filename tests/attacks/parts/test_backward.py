"""LinBP against gradients worked out by hand, layer by layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interaction_train.attacks import (
    Ensemble,
    GhostNetwork,
    LinearBackpropagation,
    Momentum,
    SkipGradient,
)
from interaction_train.errors import InputError
from interaction_train.models import CIFARThinResNet

from .checks import check_all, craft, images
from .test_layers import built


def linear(x, top=torch.inf):
    """A ReLU forwards, the identity backwards."""
    return x + (x.clamp(0, top) - x).detach()


def input_gradient(net, x, part=None):
    x = x.clone().requires_grad_()
    if part is None:
        logits = net(x)
        weights = torch.arange(1.0, 1 + logits.shape[1]).cos().to(logits)
        return logits, torch.autograd.grad((logits * weights).sum(), x)[0]
    with part.around(net):
        return input_gradient(net, x)


class Called(nn.Module):
    """ReLUs called in many ways."""

    def __init__(self, relu=None):
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(9))
        self.relu, self.relu6, self.inside = nn.ReLU(True), nn.ReLU6(), relu

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            x = 4 * layer(x)
            if self.inside:
                x = self.inside(x, 6 if number >= 7 else torch.inf)
                continue
            if number == 0:
                x = self.relu(x)
            elif number == 1:
                x = F.relu(x)
            elif number == 2:
                x = torch.relu(x)
            elif number == 3:
                x = x.relu()
            elif number == 4:
                x.relu_()
            elif number == 5:
                x = F.relu(input=x, inplace=True)
            elif number == 6:
                x = torch.relu_(x)
            elif number == 7:
                x = self.relu6(x)
            else:
                x = F.relu6(x, True)
        return x


def test_relus_are_found_however_they_are_called():
    x = torch.rand(3, 12).double()
    logits, found = input_gradient(Called().double(), x, LinearBackpropagation())
    expected_logits, expected = input_gradient(Called(linear).double(), x)
    torch.testing.assert_close(logits, expected_logits)
    torch.testing.assert_close(found, expected)
    _, plain = input_gradient(Called().double(), x)
    assert not torch.allclose(plain, found)


def test_from_a_layer_on():
    net, x = built().double(), images().double()

    class ByHand(nn.Module):
        def forward(self, x):
            x = net[0](x).clamp(min=0)
            return net[4:](linear(net[2](x)))

    logits, found = input_gradient(net, x, LinearBackpropagation("2"))
    assert torch.equal(logits, net(x))
    torch.testing.assert_close(found, input_gradient(ByHand(), x)[1])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def branch(self, x, relu):
        return self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))

    def forward(self, x):
        out = self.branch(x, self.relu)
        out += x
        return self.relu(out)


def blocks():
    torch.manual_seed(5)
    return nn.Sequential(Block(), Block(), Block(), nn.Flatten(), nn.Linear(144, 3)).double().eval()


@pytest.mark.parametrize("rescale", [True, False])
def test_branches_of_residual_blocks(rescale):
    """Backwards through each block: skip + branch, the latter with the real gradient's length."""
    net = blocks()
    x = torch.rand(2, 4, 6, 6).double()
    found = input_gradient(net, x, LinearBackpropagation("1", rescale))[1]
    ends = [x]
    for block in net[:3]:
        ends.append(block(ends[-1]).detach())
    leaf = ends[3].requires_grad_()
    gradient = torch.autograd.grad((net[3:](leaf) * torch.arange(1.0, 4).cos()).sum(), leaf)[0]
    for number in (2, 1, 0):
        gradient = gradient * (ends[number + 1] > 0)
        leaf = ends[number].detach().requires_grad_()
        block = net[number]
        real = torch.autograd.grad(block.branch(leaf, torch.relu), leaf, gradient)[0]
        straight = torch.autograd.grad(block.branch(leaf, linear), leaf, gradient)[0]
        if number == 0:  # before the layer
            straight = real
        elif rescale:
            sizes = [g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for g in (real, straight)]
            straight = straight * sizes[0] / sizes[1]
        gradient = gradient + straight
    torch.testing.assert_close(found, gradient)


def test_it_composes_with_the_skip_gradient():
    net, x = blocks(), torch.rand(2, 4, 6, 6).double()
    found = []
    for parts in ([0, 1], [1, 0]):
        both = [LinearBackpropagation("1"), SkipGradient(0.4)]
        with both[parts[0]].around(net), both[parts[1]].around(net):
            found.append(input_gradient(net, x)[1])
    torch.testing.assert_close(*found)
    assert not torch.allclose(found[0], input_gradient(net, x, LinearBackpropagation("1"))[1])


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (built, (3, 8, 8)),
        (lambda: CIFARThinResNet(8, width=4), (3, 12, 8)),
        (lambda: built(shape=(1, 8, 8)), (1, 8, 8)),
    ],
)
def test_what_every_part_keeps(make, shape):
    torch.manual_seed(0)
    check_all(make(), images(shape), parts=[LinearBackpropagation(), Momentum()])


def test_a_layer_of_every_member():
    x, y = images(), torch.arange(4)
    surrogate = Ensemble([built(0), built(1)], "losses")
    assert craft(surrogate, x, y, parts=[LinearBackpropagation(["1", "2"])]).isfinite().all()


def test_what_does_not_fit():
    x, y = images(), torch.arange(4)
    with pytest.raises(InputError, match="model: got Sequential, expected ReLUs from '4' on"):
        craft(built(), x, y, parts=[LinearBackpropagation("4")])
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 4))
    with pytest.raises(InputError, match="model: got Sequential, expected ReLUs, for LinBP"):
        craft(smooth, x, y, parts=[LinearBackpropagation()])
    with pytest.raises(InputError, match="layer: got 'first'"):
        craft(built(), x, y, parts=[LinearBackpropagation("first")])
    with pytest.raises(InputError, match="parts: got LinearBackpropagation after GhostNetwork"):
        craft(built(), x, y, parts=[GhostNetwork(), LinearBackpropagation()])
    assert craft(built(), x, y, parts=[LinearBackpropagation(), GhostNetwork()]).shape == x.shape


class InPlace(Block):
    def forward(self, x):
        x += 1
        return super().forward(x)


def test_a_block_that_changes_its_input():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), InPlace(), nn.Flatten(), nn.LazyLinear(4)).eval()
    net(images())
    with pytest.raises(InputError, match="model: got '1', which changes its input in place"):
        craft(net, images(), torch.arange(4), parts=[LinearBackpropagation()])
    parts = [LinearBackpropagation(rescale=False)]
    assert craft(net, images(), torch.arange(4), parts=parts).isfinite().all()
