"""Which networks are known to compute the same in training and in eval."""

import random

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.ops import StochasticDepth

from interaction_train.game.determinism import forward_agrees
from interaction_train.losses import BandLoss, OrderLoss
from interaction_train.models import CIFARAlexNet, DigitsNet
from tests.losses.games import grid, images
from tests.losses.test_order import recorded

N = 10


def noisy(x):
    return x + torch.randn_like(x)


class Body(nn.Module):
    """A linear network, whose subclasses differ in training."""

    def __init__(self, *modules):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), *modules, nn.Linear(N, 3))

    def forward(self, x):
        return self.body(x)


class Functional(Body):
    def forward(self, x):
        return self.body(F.dropout(x, 0.5, self.training))


class Inherited(Functional):
    def forward(self, x):
        return super().forward(x)


class Method(Body):
    def _change(self, x):
        return 2 * x if self.training else x

    def forward(self, x):
        return self._change(self.body(x))


class Property(Body):
    @property
    def scale(self):
        return 2 if self.training else 1

    def forward(self, x):
        return self.scale * self.body(x)


class ByName(Body):
    def forward(self, x):
        return self.body(x) * (2 if getattr(self, "training") else 1)  # noqa: B009


class Skipping(Body):
    def forward(self, x):
        return self.body(x if random.random() < 0.5 else 0 * x)


class Helper(Body):
    def forward(self, x):
        return self.body(noisy(x))


class Stored(Body):
    def __init__(self):
        super().__init__()
        self.act = lambda x: F.dropout(x, 0.5)

    def forward(self, x):
        return self.body(self.act(x))


class OfTheChild(Body):
    def __init__(self):
        super().__init__()
        self.child = Method()

    def forward(self, x):
        return self.child._change(self.body(x))


UNKNOWN = [Functional, Inherited, Method, Property, ByName, Skipping, Helper, Stored, OfTheChild]
CHANGING = {
    "stochastic depth": lambda: Body(StochasticDepth(0.5, "row")),
    "dropout": lambda: Body(nn.Dropout(0.5)),
    "batch norm": lambda: Body(nn.BatchNorm1d(N)),
    "rrelu": lambda: Body(nn.RReLU()),
    "instance norm": lambda: Body(
        nn.Unflatten(1, (1, N)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten()
    ),
    "spectral norm": lambda: Body(nn.utils.parametrizations.spectral_norm(nn.Linear(N, N))),
    "old spectral norm": lambda: Body(nn.utils.spectral_norm(nn.Linear(N, N))),
    **{kind.__name__: kind for kind in UNKNOWN},
}


@pytest.mark.parametrize("name", CHANGING)
def test_unknown(name):
    model = CHANGING[name]()
    assert not forward_agrees(model)
    assert not forward_agrees(nn.Sequential(nn.Identity(), model))


@pytest.mark.parametrize("kind", ["hook", "pre-hook", "patched"])
def test_code_that_was_added_to_an_instance(kind):
    model = Body()

    def change(module, *values):
        return F.dropout(values[-1] if kind == "hook" else values[0][0], 0.5)

    if kind == "patched":
        model.body[1].forward = lambda x: F.dropout(x, 0.5)
    elif kind == "hook":
        model.body[1].register_forward_hook(change)
    else:
        model.body[1].register_forward_pre_hook(change)
    assert not forward_agrees(model)


@pytest.mark.parametrize(
    "build",
    [
        Body,
        lambda: Body(nn.Linear(N, N), nn.GELU(), nn.LayerNorm(N), nn.Dropout(0.0)),
        DigitsNet,
        lambda: torchvision.models.resnet18(norm_layer=nn.Identity),
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64),
        lambda: CIFARAlexNet(),
        lambda: Body(nn.BatchNorm1d(N), nn.Dropout(0.5)).eval(),
        lambda: Method().eval(),
    ],
)
def test_known(build):
    assert forward_agrees(build())


def test_settings_may_change():
    model = Body(nn.Dropout(0.0))
    assert forward_agrees(model)
    model.body[1].p = 0.5
    assert not forward_agrees(model)


@pytest.mark.filterwarnings("ignore:.*payoff is additive")  # as it should be
@pytest.mark.parametrize("name", CHANGING)
def test_v_of_all_players_has_a_pass_of_its_own(name):
    """Δ of linear networks is 0, which logits of another regime would spoil."""
    if name in ("rrelu", "instance norm", "Skipping", "Helper", "Stored"):
        pytest.skip("no linear network, or random in eval too")
    model, (x, _) = CHANGING[name](), images(6, N, torch.float32)
    if name == "batch norm":
        model(x)
    torch.manual_seed(3)
    forward = recorded(model, x)
    arguments = {"players": grid(N), "baseline": 0.25}
    band = BandLoss(0.7, 0.3, **arguments).differences(model, x, forward, step=0)
    assert band.abs().max() < 1e-5
    order = OrderLoss(0.7, 1, **arguments)
    own = order.differences(model, x, type(forward)(), step=0)
    torch.testing.assert_close(order.differences(model, x, forward, step=0), own)
