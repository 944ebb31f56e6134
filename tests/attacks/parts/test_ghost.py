"""Ghost networks: what they change, at which rates, and that each sample has its own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interaction_train.attacks import (
    Ensemble,
    GhostNetwork,
    InteractionObjective,
    LinearBackpropagation,
    Momentum,
    TransferAttack,
    VarianceTuning,
)
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses.reduction import GroupReduction
from interaction_train.models import CIFARThinResNet

from .checks import check_all, craft, images
from .test_backward import blocks
from .test_layers import built


class Watching(nn.Module):
    """Shows what comes out of an activation, and passes gradients on."""

    def __init__(self, activation):
        super().__init__()
        self.activation, self.seen = activation, []

    def forward(self, x):
        after = self.activation(x + 1)
        self.seen.append((x.detach() + 1, after.detach()))
        return after.flatten(1)[:, :5]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), F.silu, torch.relu, nn.ReLU6()])
def test_units_are_dropped_at_the_rate_and_the_others_enlarged(activation):
    net = Watching(activation)
    x, y = images((3, 16, 16), 64), torch.zeros(64, dtype=torch.int64)
    craft(net, x, y, parts=[GhostNetwork(0.2)], steps=2)
    dropped = []
    for before, after in net.seen:
        whole = activation(before)
        kept = after != 0
        torch.testing.assert_close(after[kept], whole[kept] / 0.8)
        dropped.append(~kept)
    share = torch.stack(dropped).float()
    assert share.mean() == pytest.approx(0.2, abs=0.01)
    assert share.mean((0, 1)).flatten().sub(0.2).abs().max() < 0.2  # every unit
    assert (dropped[0] != dropped[1]).any()  # another network in the next step
    flat = share[0].flatten(1)
    assert (flat[0] != flat[1]).any()
    assert len({tuple(row.tolist()) for row in flat}) == 64  # each sample its own
    pairs = (share[..., :-1] * share[..., 1:]).mean()
    assert pairs == pytest.approx(0.04, abs=0.01)  # pairs of units are independent


def test_masked_images_and_copies_of_a_sample_share_a_network():
    seen = []

    class Positive(nn.Module):
        def forward(self, x):
            after = F.relu(x + 1)
            seen.append((after == 0).detach())
            return after.flatten(1)[:, :5]

    groups = GroupReduction(GridPlayers(4, 4), draws=3, size=4)
    craft(
        Positive(), images(), torch.arange(4), steps=1,
        objective=InteractionObjective("cross_entropy", 0.5, reduction=groups),
        parts=[GhostNetwork(0.3)],
    )  # fmt: skip
    full, masks = seen
    masks = masks.unflatten(0, (4, 6))
    assert full.any()
    assert (masks == full.unsqueeze(1)).all()
    seen.clear()
    craft(Positive(), images(), torch.arange(4), steps=1, parts=[GhostNetwork(0.3, copies=2)])
    first, second = seen[0].unflatten(0, (4, 2)).unbind(1)
    assert (first != second).any()


def test_skip_connections_are_scaled():
    """Exactly λ·x + F(x), with λ in 1 ± Λ per sample and block."""
    net, x = blocks(), torch.rand(2, 4, 6, 6).double()
    values = {}
    for number in range(3):
        net[number].register_forward_hook(
            lambda _, args, out, n=number: values.update({n: (args[0], out)})
        )
    part = GhostNetwork(0, skip=0.3)
    seen = {}

    class Stop(Exception):
        pass

    def stop(number, adversarial):
        seen.update(values)
        raise Stop

    attack = TransferAttack(net, steps=1, parts=[part])
    attack.on_step = stop
    with pytest.raises(Stop):
        attack(x, torch.tensor([0, 1]))
    scales = []
    for number in range(2):
        before, after = seen[number][0], seen[number + 1][0]
        scale = (after - net[number].branch(before, torch.relu)) / before
        for b in range(2):
            own = scale[b][(after[b] > 0) & (before[b] > 1e-3)].detach()
            assert own.std() < 1e-9
            scales.append(float(own.mean()))
    assert all(abs(scale - 1) <= 0.3 for scale in scales)
    assert len(set(scales)) == 4


@pytest.mark.parametrize(
    ("make", "shape", "part"),
    [
        (built, (3, 8, 8), GhostNetwork(0.05, copies=2)),
        (lambda: CIFARThinResNet(8, width=4), (3, 8, 12), GhostNetwork(0.05, 0.2)),
        (lambda: built(shape=(1, 8, 8)), (1, 8, 8), GhostNetwork(0.05)),
    ],
)
def test_what_every_part_keeps(make, shape, part):
    torch.manual_seed(0)
    check_all(make(), images(shape), parts=[VarianceTuning(2), part, Momentum()])


def test_members_of_an_ensemble_have_ghosts_of_their_own():
    member = built()
    x, y = images(), torch.arange(4)
    twice = craft(Ensemble([member, member], "losses"), x, y, parts=[GhostNetwork(0.2)])
    once = craft(member, x, y, parts=[GhostNetwork(0.2)])
    assert not torch.equal(twice, once)


def test_it_composes_with_linear_backpropagation():
    """The gradient is 0 at dropped units alone, not at those that a ReLU shuts."""
    found = []

    class Shut(nn.Module):
        def forward(self, rows):
            rows.register_hook(found.append)
            return F.relu(rows - 0.5) @ torch.arange(36.0).view(12, 3).cos()

    x, y = torch.rand(100, 12), torch.arange(100) % 3
    craft(Shut(), x, y, steps=1, parts=[LinearBackpropagation(), GhostNetwork(0.4)])
    assert (found[0] == 0).float().mean() == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize(
    ("part", "net", "message"),
    [
        (GhostNetwork(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), "expected activations"),
        (GhostNetwork(0, 0.2), built(), "model: got Sequential, expected residual blocks"),
    ],
)
def test_networks_that_do_not_fit(part, net, message):
    with pytest.raises(InputError, match=message):
        craft(net, images(), torch.arange(4), parts=[part])


@pytest.mark.parametrize(
    "settings", [{"dropout": 1}, {"dropout": -0.1}, {"skip": 1}, {"dropout": 0}, {"copies": 0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        GhostNetwork(**settings)
