"""The variants of the interaction loss that the study of its settings tries."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.sampling.random import Draws, content_hash

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))

from loss_variants import SCHEDULES, Variant


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = it.models.DigitsNet()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.net(x)


def value(model: nn.Module, kind: type = Variant, **settings) -> torch.Tensor:
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with it.record(model, ["net.features.2"]) as forward:
        forward.logits = model(x)
    loss = kind("net.features.2", **{"payoff": "logit", **settings})
    return loss(model, x, torch.arange(8), forward=forward, step=3)


def test_without_settings_it_is_the_packages():
    model = Scaled()
    assert value(model) == value(model, it.InteractionLoss) > 0


@pytest.mark.parametrize("relative", ["logits", "values"])
def test_over_its_scale_the_logits_scale_changes_nothing(relative):
    model = Scaled()
    slopes = {}
    for detached in (False, True):
        found = value(model, relative=relative, detached=detached)
        (slopes[detached],) = torch.autograd.grad(found, model.scale)
    assert slopes[False].abs() < 1e-4 * found
    torch.testing.assert_close(slopes[True], found.detach())  # of a scale of 2, squared


def test_keep_rates_stay_in_their_range():
    draws = Draws(content_hash(torch.rand(200, 4)))
    loss = Variant("layer", keep=(0.5, 1.0), group_fraction=0.05)
    context = loss.draw(draws, 400)[:, 0, 0]  # without the groups, a tenth of the players
    rates = context.double().mean(1) / 0.9
    assert 0.4 < rates.min() < 0.6
    assert 0.9 < rates.max() <= 1


def test_schedules():
    shares = {name: [course(p) for p in (0, 0.25, 0.5, 1)] for name, course in SCHEDULES.items()}
    assert shares.pop("constant") == [1, 1, 1, 1]
    assert shares.pop("rising") == [0, 0.25, 0.5, 1]
    assert shares.pop("falling linearly") == [1, 0.75, 0.5, 0]
    assert shares.pop("falling") == [1, 0.5625, 0.25, 0]
    assert shares.pop("first half") == [1, 1, 0, 0]
    assert shares.pop("second half") == [0, 0, 1, 1]
    assert not shares
