"""FIA and NAA against their definitions, sample by sample."""

import pytest
import torch
from torch import nn

from interaction_train.attacks import (
    Ensemble,
    FeatureImportance,
    InputDiversity,
    Momentum,
    NeuronAttribution,
    ReversePerturbation,
    VarianceTuning,
)
from interaction_train.attacks.norms import step_and_project
from interaction_train.errors import InputError
from interaction_train.sampling.random import Draws, content_hash

from .parts.checks import BUDGET, check_all, craft, images
from .parts.test_layers import Twice, built


def descended(x, loss):
    """The loop on one sample: steps against the gradient of a loss."""
    point = x
    for _ in range(BUDGET["steps"]):
        leaf = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        point = step_and_project(point, -gradient, x, "Linf", BUDGET["eps"], BUDGET["alpha"])
    return point


def test_feature_importance_is_as_defined():
    net, x, y = built().double(), images().double(), torch.tensor([0, 1, 2, 3])
    found = craft(net, x, y, objective=FeatureImportance("2", draws=7, drop=0.4))
    kept = Draws(content_hash(x), 0, "attack", 1).uniform("importance", 7, x[0].numel()) >= 0.4
    assert kept.float().mean() == pytest.approx(0.6, abs=0.03)
    front, back = net[:3], net[3:]
    for b in range(4):
        weights = 0
        for k in range(7):
            features = front(x[b : b + 1] * kept[b, k].view(1, 3, 8, 8)).detach().requires_grad_()
            logit = back(features.clone())[0, y[b]]
            weights = weights + torch.autograd.grad(logit, features)[0]
        weights = weights / weights.norm()
        want = descended(x[b : b + 1], lambda leaf, w=weights: (front(leaf) * w).sum())
        assert (found[b : b + 1] - want).abs().max() < 1e-12


@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_neuron_attribution_is_as_defined(gamma):
    net, x, y = built().double(), images().double(), torch.tensor([0, 1, 2, 3])
    found = craft(net, x, y, objective=NeuronAttribution("2", points=6, gamma=gamma))
    front, back = net[:3], net[3:]
    for b in range(4):
        weights = 0
        for m in range(6):
            features = front(x[b : b + 1] * m / 6).detach().requires_grad_()
            share = back(features.clone()).softmax(1)[0, y[b]]
            weights = weights + torch.autograd.grad(share, features)[0]
        black = front(torch.zeros_like(x[:1])).detach()

        def loss(leaf, w=weights, black=black):
            attributions = (front(leaf) - black) * w
            return attributions.clamp(min=0).sum() - gamma * (-attributions).clamp(min=0).sum()

        want = descended(x[b : b + 1], loss)
        assert (found[b : b + 1] - want).abs().max() < 1e-12


@pytest.mark.parametrize("kind", [FeatureImportance, NeuronAttribution])
@pytest.mark.parametrize("parts", [[], [InputDiversity(0.7, 0.8), VarianceTuning(2), Momentum()]])
def test_what_every_objective_keeps(kind, parts):
    objective = kind("2")
    check_all(built(), images(), parts=parts, objective=objective)
    assert not objective._features
    assert not objective._weights


def test_layers_of_an_ensemble_count_together():
    members = [built(0), nn.Sequential(nn.Identity(), *built(1))]
    x, y = images(), torch.arange(4)
    both = [
        craft(Ensemble(members, average), x, y, objective=FeatureImportance(["2", "3"]))
        for average in ("logits", "losses")
    ]
    assert torch.equal(*both)
    first = craft(members[0], x, y, objective=FeatureImportance("2"))
    assert not torch.equal(both[0], first)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("shard", "layer: got 'shard', expected a submodule of the network, such as shared"),
        ("shared", "layer: got 'shared', called several times"),
        ("idle", "layer: got 'idle', which is never called"),
    ],
)
def test_layers_that_do_not_fit(layer, message):
    with pytest.raises(InputError, match=message):
        craft(Twice(), torch.rand(4, 12), torch.arange(4), objective=FeatureImportance(layer))


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureImportance("2", draws=0),
        lambda: FeatureImportance("2", drop=1.5),
        lambda: NeuronAttribution("2", points=0),
        lambda: NeuronAttribution("2", gamma=-1),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(InputError, match=r"draws|drop|points|gamma"):
        make()


def test_parts_that_look_ahead_by_the_loss_find_the_weights():
    rap, x, y = ReversePerturbation(late_start=0), images(), torch.tensor([0, 1, 2, 3])
    objective = FeatureImportance("2", draws=3)
    found = craft(built(), x, y, objective=objective, parts=[rap])
    assert not torch.equal(found, craft(built(), x, y, objective=objective))


def test_a_layer_with_rows_of_its_own_is_refused():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = built()

        def forward(self, x):
            halves = torch.cat(x.split(4, 2))
            return self.net(torch.cat([halves, halves], 2)).view(2, len(x), -1).sum(0)

    x, y = images(), torch.tensor([0, 1, 2, 3])
    for objective in (FeatureImportance("net.2", draws=2), NeuronAttribution("net.2", points=2)):
        with pytest.raises(InputError, match=r"layer: got .net.2., with 16 rows for 8 images"):
            craft(Split(), x, y, objective=objective)
