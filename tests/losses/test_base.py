"""What all loss terms share: modules without weights, and clear errors."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses import BandLoss, InteractionLoss, OrderLoss
from interaction_train.losses.base import PlayerTerm
from tests.losses.games import Game, grid, images

N = 10
TERMS = {
    "interaction": InteractionLoss(players=grid(N), baseline=0.25, group_fraction=0.2),
    "interaction at a layer": InteractionLoss("first", group_fraction=0.2),
    "order": OrderLoss(0.3, 0.7, players=grid(N), baseline=0.25),
    "penalize": OrderLoss(0, 0.5, "penalize", grid(N), baseline=0.25),
    "band": BandLoss(0.5, 0.2, players=grid(N), baseline=0.25, n_draws=2),
}


@pytest.mark.parametrize("kind", [InteractionLoss, OrderLoss, BandLoss])
def test_every_setting_is_in_the_signature(kind):
    shown = inspect.signature(kind).parameters
    assert set(inspect.signature(PlayerTerm).parameters) <= set(shown)
    assert not [p for p in shown.values() if p.kind is p.VAR_KEYWORD]


def test_repr_shows_the_settings():
    term = OrderLoss(0.3, 0.7, "penalize", GridPlayers(4, 4), n_draws=3, baseline=[0.5])
    assert repr(term) == (
        "OrderLoss(r1=0.3, r2=0.7, mode='penalize', players=GridPlayers(4, 4), n_draws=3, "
        "baseline=[0.5])"
    )
    term = InteractionLoss("features.2", suffix=nn.Linear(2, 2), payoff="margin", name="mine")
    for part in ("layer='features.2'", "suffix=Linear", "payoff='margin'", "name='mine'"):
        assert part in repr(term)


def test_the_networks_weights_are_not_the_terms():
    suffix = nn.Linear(4, 3)
    term = InteractionLoss("prefix", suffix=suffix)
    assert isinstance(term, nn.Module)
    assert not term.state_dict()
    assert not list(term.parameters())
    assert list(term.modules()) == [term]
    assert term.suffix is suffix
    again = pickle.loads(pickle.dumps(copy.deepcopy(term)))
    assert torch.equal(again.suffix.weight, suffix.weight)


@pytest.mark.parametrize("name", TERMS)
def test_certain_soft_labels_are_the_hard_ones(name):
    model, (x, y) = Game(N).double(), images(4, N)
    soft = nn.functional.one_hot(y, 3).float()
    term = TERMS[name]
    torch.testing.assert_close(term(model, x, soft, step=0), term(model, x, y, step=0))


@pytest.mark.parametrize("name", ["order", "band"])
def test_soft_labels_mix_the_cross_entropies(name):
    model, (x, y) = Game(N).double(), images(4, N)
    first, second = (nn.functional.one_hot((y + k) % 3, 3).double() for k in (0, 1))
    parts = [TERMS[name](model, x, (y + k) % 3, step=0) for k in (0, 1)]
    mixed = TERMS[name](model, x, 0.3 * first + 0.7 * second, step=0)
    torch.testing.assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1])


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.numpy(), y), "x: got ndarray, expected a tensor"),
        (lambda x, y: (x.tolist(), y), "x: got list, expected a tensor"),
        (lambda x, y: (x, y.numpy()), r"y: got int64 \(4,\)|y: got ndarray"),
        (lambda x, y: (x, y.tolist()), "y: got list"),
        (lambda x, y: (x, y.int()), r"y: got torch.int32 \(4,\), expected int64 \(4,\)"),
        (lambda x, y: (x, nn.functional.one_hot(y, 3)), r"y: got torch.int64 \(4, 3\)"),
        (lambda x, y: (x, y[:3]), r"y: got torch.int64 \(3,\)"),
        (lambda x, y: (x, y.double()), r"y: got torch.float64 \(4,\)"),
    ],
)
def test_what_is_no_batch(name, change, message):
    model, (x, y) = Game(N).double(), images(4, N)
    with pytest.raises(InputError, match=message):
        TERMS[name](model, *change(x, y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": nn.Linear(2, 2)}, "layer: got Linear, expected the layer's dotted name"),
        ({"players": (4, 4)}, r"players: got \(4, 4\), expected such as GridPlayers"),
        ({"players": np.ones(3)}, "players: got"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        InteractionLoss(**arguments)


class NoDouble(TorchDispatchMode):
    """A device without float64, as Apple's."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            assert getattr(value, "dtype", value) is not torch.float64, func
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TERMS)
def test_devices_without_float64_and_half_precision(name, dtype):
    model, (x, y) = Game(N), images(4, N, torch.float32)
    exact = TERMS[name](model, x.to(dtype).float(), y, step=0)
    with NoDouble():
        value = TERMS[name](model.to(dtype), x.to(dtype), y, step=0)
        value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=0.2, atol=0.05)
