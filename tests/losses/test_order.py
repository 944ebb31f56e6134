import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.layers import ForwardRecord, record
from interaction_train.losses import OrderLoss
from interaction_train.models import Normalize
from tests.losses.games import (
    Game,
    Kink,
    Spy,
    all_draws,
    grid,
    images,
    mean_interactions,
    mean_main_effect,
    values,
)

SETTINGS = [(0, 0.5), (0.3, 0.7), (0.7, 1), (0, 1), (0.2, 0.4)]


def order_loss(r1, r2, n, **arguments) -> OrderLoss:
    return OrderLoss(r1, r2, players=grid(n), baseline=0.25, **arguments)


def recorded(model: nn.Module, x: Tensor) -> ForwardRecord:
    with record(model, []) as forward:
        forward.logits = model(x)
    return forward


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize(("r1", "r2"), SETTINGS)
def test_mean_over_all_draws_equals_the_formula(r1, r2, n, monkeypatch):
    model, (x, _) = Game(n).double(), images(2, n)
    loss = order_loss(r1, r2, n)
    monkeypatch.setattr(loss, "_keys", lambda x, n, step: all_draws(n, len(x)))
    delta = loss.differences(model, x, recorded(model, x), step=0).mean(1)

    v = values(model, x, 0.25)
    orders = mean_interactions(v, n)
    s1, s2 = round(r1 * n), round(r2 * n)
    factor = s2 / s1 if s1 else 1
    tent = [max(0, s2 - 1 - m) - factor * max(0, s1 - 1 - m) for m in range(n - 1)]
    expected = sum(w * interaction for w, interaction in zip(tent, orders, strict=True))
    empty, main = v[frozenset()], mean_main_effect(v, n)
    expected = expected + ((1 - factor) * empty if s1 else s2 * main)
    torch.testing.assert_close(delta, expected, rtol=1e-12, atol=1e-12)

    weights = loss.order_weights(n)
    said = weights.empty * empty + weights.main * main
    said = said + sum(w * o for w, o in zip(weights.orders, orders, strict=True))
    torch.testing.assert_close(said, expected, rtol=1e-12, atol=1e-12)
    # The orders that take part are exactly 0 … s2−2, and none of them weakly by chance.
    assert torch.equal(weights.orders != 0, torch.arange(n - 1) <= s2 - 2)


@pytest.mark.parametrize("order", range(8))
def test_a_single_order_is_weighed_alike_in_every_single_draw(order):
    n = 10
    loss = OrderLoss(0.3, 0.7, players=grid(n), baseline=0.0, n_draws=50)
    delta = loss.differences(Kink(order), torch.ones(1, 1, 1, n), ForwardRecord(), step=0)
    weight = float(loss.order_weights(n).orders[order])
    torch.testing.assert_close(delta[..., 0], torch.full((1, 50), weight), rtol=1e-5, atol=1e-5)


def test_draws_are_nested_uniform_and_fresh():
    n, draws = 6, 600
    model, (x, _) = Spy(Game(n).double()), images(2, n)
    loss = order_loss(0.34, 0.67, n, n_draws=draws)
    seen = []
    for step in (0, 1):
        model.calls.clear()
        loss.differences(model, x, ForwardRecord(), step)
        present = (torch.cat(model.calls) != 0.25).view(len(x), 2, draws, n)
        small, large = present.unbind(1)
        assert (small.sum(-1) == 2).all()
        assert (large.sum(-1) == 4).all()
        assert (large | ~small).all()
        seen.append(present.clone())
    assert not torch.equal(*seen)
    assert not torch.equal(seen[0][0], seen[0][1])
    pairs = math.comb(6, 2) * math.comb(4, 2)
    word = torch.stack(seen, 1).transpose(1, 2).to(torch.int64)  # (B, 2, steps, draws, n)
    codes = (word * 2 ** torch.arange(n)).sum(-1)
    counts = (codes[:, 0] * 64 + codes[:, 1]).flatten().unique(return_counts=True)[1].double()
    assert len(counts) == pairs
    statistic = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    assert statistic < pairs - 1 + 5 * math.sqrt(2 * (pairs - 1))  # chi-square, five deviations


@pytest.mark.parametrize("mode", ["encourage", "penalize"])
def test_classification_by_the_mean_difference(mode):
    n = 6
    model, (x, y) = Game(n).double(), images(4, n)
    loss = order_loss(0.3, 0.7, n, mode=mode, n_draws=5)
    delta = loss.differences(model, x, ForwardRecord(), step=7)
    assert delta.shape == (4, 5, 3)
    parts = []
    for one, label in zip(delta.mean(1), y, strict=True):
        if mode == "encourage":
            parts.append(F.cross_entropy(one, label))
        else:
            parts.append(-torch.distributions.Categorical(logits=one).entropy())
    torch.testing.assert_close(loss(model, x, y, step=7), torch.stack(parts).mean())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("setting", "plain", "norms"),
    [((0, 0.5), 6, 6), ((0.3, 0.7), 10, 10), ((0.7, 1), 5, 10), ((0, 1), 1, 6)],
)
def test_one_batched_call_of_no_more_rows_than_needed(setting, plain, norms, norm):
    n = 10
    network = Game(n, norm=norm)
    model, (x, y) = Spy(network), images(5, n, torch.float32)
    forward = recorded(model, x)
    model.calls.clear()
    order_loss(*setting, n)(model, x, y, forward=forward)
    assert [len(rows) for rows in model.calls] == [norms if norm else plain]
    # ∅ is one row, however many samples there are.
    empty = int((model.calls[0] == 0.25).all(-1).sum())
    assert empty == int(setting[0] == 0)


@pytest.mark.parametrize("draws", [1, 3])
def test_several_draws_evaluate_the_empty_coalition_once(draws):
    n = 10
    model, (x, y) = Spy(Game(n)), images(5, n, torch.float32)
    order_loss(0, 0.5, n, n_draws=draws)(model, x, y)
    assert sum(len(rows) for rows in model.calls) == 5 * draws + 1


def test_the_full_coalition_is_taken_from_one_regime_only():
    n = 10
    x, _ = images(8, n, torch.float32)
    for norm, training in itertools.product((False, True), repeat=2):
        model = Game(n, norm=norm).train(training)
        model(x)
        forward = recorded(model, x)
        expected = model.eval()(x)
        empty = model(torch.full_like(x[:1], 0.25))
        model.train(training)
        assert torch.allclose(forward.logits, expected) != (norm and training)
        loss = order_loss(0.7, 1, n)
        delta = loss.differences(model, x, forward, step=0)
        alone = loss.differences(model, x, ForwardRecord(), step=0)
        torch.testing.assert_close(delta, alone, rtol=1e-4, atol=1e-5)
        delta = order_loss(0, 1, n).differences(model, x, forward, step=0)[:, 0]
        torch.testing.assert_close(delta, expected - empty, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("r1", "r2"), SETTINGS)
def test_batchnorm_is_left_alone_and_parameters_move(r1, r2):
    n = 10
    model, (x, y) = Game(n, norm=True), images(6, n, torch.float32)
    frozen = model.rest[0]
    frozen.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    value = order_loss(r1, r2, n)(model, x, y)
    value.backward()
    assert modes == [module.training for module in model.modules()]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    model.rest[0].train()
    order_loss(r1, r2, n)(model, x, y)
    assert torch.equal(model.rest[0].running_mean, before["rest.0.running_mean"])
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = [
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    ]
    # A bias in front of the softmax cancels in v(S2) − v(∅), and nothing else may stay.
    left = {name for name, _ in model.named_parameters()} - set(moved)
    assert left == ({"rest.3.bias"} if r1 == 0 else set())


class Weights(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight).tanh().cumsum(1)


@pytest.mark.parametrize("mode", ["encourage", "penalize"])
@pytest.mark.parametrize(("r1", "r2"), [(0, 0.5), (0.3, 0.7), (0.7, 1)])
def test_gradcheck(r1, r2, mode):
    n = 5
    x, y = images(3, n)
    weight = torch.randn(n, 3, dtype=torch.float64, requires_grad=True)
    loss = order_loss(r1, r2, n, mode=mode, n_draws=2)

    def value(weight: Tensor) -> Tensor:
        model = Weights(weight)
        return loss(model, x, y, forward=recorded(model, x), step=3)

    assert torch.autograd.gradcheck(value, weight)


@pytest.mark.parametrize(("r1", "r2"), SETTINGS)
def test_same_for_any_chunk_and_any_split_of_the_batch(r1, r2):
    n = 6
    model, (x, y) = Game(n).double(), images(6, n)
    whole = order_loss(r1, r2, n, n_draws=2)(model, x, y, step=4)
    chunked = order_loss(r1, r2, n, n_draws=2, chunk_size=4)(model, x, y, step=4)
    halves = [
        order_loss(r1, r2, n, n_draws=2)(model, *part, step=4)
        for part in ((x[:2], y[:2]), (x[2:], y[2:]))
    ]
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close((halves[0] * 2 + halves[1] * 4) / 6, whole)
    gradients = [torch.autograd.grad(part, model.parameters(), allow_unused=True)
                 for part in (whole, chunked)]  # fmt: skip
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_units_of_a_layer():
    n = 10
    model, (x, _) = Game(n).double(), images(4, n)
    loss = OrderLoss(0, 0.5, layer="first")
    with record(model, loss.layers) as forward:
        forward.logits = model(x)
    delta = loss.differences(model, x, forward, step=0)
    units = model.first(x)
    matches = []
    for members in itertools.combinations(range(8), 4):
        mask = torch.zeros(8, dtype=torch.float64)
        mask[list(members)] = 1
        expected = model.rest(units * mask) - model.rest(units * 0)
        matches.append((delta[:, 0] - expected).abs().amax(1) < 1e-12)
    assert (torch.stack(matches).sum(0) == 1).all()
    torch.testing.assert_close(delta, loss.differences(model, x, ForwardRecord(), step=0))


def test_default_baseline_is_the_training_mean():
    n = 6
    plain = Game(n, classes=3)
    model = nn.Sequential(Normalize([0.25], [1.0]), nn.Identity(), plain)
    x, _ = images(4, n, torch.float32)
    shifted = order_loss(0.3, 0.7, n).differences(model, x, ForwardRecord(), step=0)
    default = OrderLoss(0.3, 0.7, players=grid(n)).differences(model, x, ForwardRecord(), step=0)
    torch.testing.assert_close(default, shifted)
    with pytest.raises(InputError, match=r"baseline.*Normalize"):
        OrderLoss(0.3, 0.7, players=grid(n))(plain, x, torch.zeros(4, dtype=torch.int64))


def test_batch_fraction_looks_at_the_first_rows():
    n = 6
    model, (x, y) = Game(n).double(), images(5, n)
    for setting in ((0, 0.5), (0.7, 1)):
        part = order_loss(*setting, n, batch_fraction=0.5)
        whole = order_loss(*setting, n)(model, x[:3], y[:3], step=0)
        torch.testing.assert_close(part(model, x, y, forward=recorded(model, x), step=0), whole)


def test_autocast():
    n = 10
    model, (x, y) = Game(n), images(64, n, torch.float32)
    for setting in SETTINGS:
        exact = order_loss(*setting, n)(model, x, y, step=0)
        with torch.autocast("cpu", torch.bfloat16):
            value = order_loss(*setting, n)(model, x, y, forward=recorded(model, x), step=0)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"r1": 0.5, "r2": 0.5}, "r1, r2"),
        ({"r1": -0.1, "r2": 0.5}, "r1, r2"),
        ({"r1": 0.5, "r2": 1.1}, "r1, r2"),
        ({"mode": "discourage"}, "mode"),
        ({"n_draws": 0}, "n_draws"),
        ({"batch_fraction": 0.0}, "batch_fraction"),
        ({"players": None}, "layer"),
        ({"layer": "first"}, "baseline"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(InputError) as caught:
        OrderLoss(**{"r1": 0.3, "r2": 0.7, "players": grid(4), "baseline": 0.0, **arguments})
    assert caught.value.argument == named


def test_sizes_that_coincide():
    with pytest.raises(InputError, match="4 players"):
        order_loss(0.3, 0.35, 4).sizes(4)
    assert order_loss(0.01, 0.5, 4).sizes(4) == (1, 2)
