"""Networks written in all the ways that libraries trip over, and games on them."""

import torch
import torch.nn.functional as F
from torch import nn

import interaction_train as it
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers


class Cubic(nn.Module):
    """The module t + t³ of t = 2 x₁ + x₂ − x₃, whose second logit is 0."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1, bias=False)
        self.linear.weight.data[:] = torch.tensor([[2.0, 1.0, -1.0]])

    def forward(self, x):
        t = self.linear(x)
        return torch.cat([t + t**3, torch.zeros_like(t)], 1)


class Awkward(nn.Module):
    """Functional, reused and in-place activations, norms, a gate, branches, overlapping pools."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.squeeze = nn.Linear(6, 6)
        self.relu = nn.ReLU(inplace=True)
        self.slope = nn.PReLU(6)
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x):
        h = self.relu(self.norm(self.first(x)))
        h = F.max_pool2d(h, 3, 2, 1)
        gate = torch.sigmoid(self.squeeze(F.adaptive_avg_pool2d(h, 1).flatten(1)))
        branch = F.silu(self.second(h))
        branch *= gate[:, :, None, None]
        branch += h
        h = self.slope(self.relu(branch) - 0.1)
        h = F.max_pool2d(h, 2, 1)
        h = torch.maximum(h, h.flip(1)) / (1 + h.square())
        h = F.layer_norm(h, h.shape[1:])
        return self.head(F.softplus(torch.cat([h[:, :3], h[:, 3:].tanh_()], 1)).view(len(x), -1))


class ReusedMLP(nn.Module):
    """Two hidden layers, with one activation module that is used twice."""

    def __init__(self, act, sizes=(4, 6, 5)):
        super().__init__()
        inputs, first, second = sizes
        self.a, self.b = nn.Linear(inputs, first), nn.Linear(first, second)
        self.c, self.act = nn.Linear(second, 2), act

    def forward(self, x):
        return self.c(self.act(self.b(self.act(self.a(x)))))


def randomized(network, seed=0):
    """The network in float64, with random BatchNorm statistics and biases."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
        if getattr(module, "bias", None) is not None:
            module.bias.data.normal_(0, 0.3, generator=generator)
    return network


def rand(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image_game(network, channels=1, side=8, samples=3, baseline=None, **options):
    """A game on random images and, unless one is given, a random baseline."""
    x = rand(samples, channels, side, side)
    baseline = rand(channels, side, side, seed=2) if baseline is None else baseline
    labels = torch.arange(samples) % 2
    return MaskedGame(network, x, baseline, GridPlayers(2, 2), labels=labels, **options)


def unit_game(network, x, baseline=0.0, **options):
    labels = torch.zeros(len(x), dtype=torch.int64)
    return MaskedGame(network, x, baseline, UnitPlayers(), labels=labels, **options)


def change(game):
    """f(x) − f(b), by masking."""
    ends = torch.stack([torch.zeros(game.n), torch.ones(game.n)]).bool()
    values = game(ends)
    return values[:, 1] - values[:, 0]


PACKAGED = {
    "DigitsNet": lambda: it.models.DigitsNet(),
    "DigitsMLP": lambda: it.models.DigitsMLP(),
    "CIFARVGG": lambda: it.models.CIFARVGG(7, batch_norm=True),
    "CIFARAlexNet": lambda: it.models.CIFARAlexNet(hidden=64),
    "CIFARResNet": lambda: it.models.CIFARResNet(),
    "CIFARThinResNet": lambda: it.models.CIFARThinResNet(8),
}


def packaged(name):
    """A packaged network, untrained, and the shape of its images."""
    torch.manual_seed(0)
    network = randomized(PACKAGED[name]())
    return network, (1, 8) if name.startswith("Digits") else (3, 32)
