import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.layers import ForwardRecord
from interaction_train.losses import BandLoss, OrderLoss
from interaction_train.sampling import coalitions
from tests.losses.games import (
    Game,
    Kink,
    Spy,
    all_draws,
    curve,
    grid,
    images,
    mean_interactions,
    values,
)
from tests.losses.test_order import Weights, recorded

SETTINGS = [(0.5, 0.2), (0.5, 0.5), (0.3, 0.3), (0.7, 0.3), (0.6, 0.1)]
# c and h for n players, by hand
SIZES = {6: [(3, 1), (3, 3), (2, 2), (4, 2), (4, 1)], 7: [(4, 1), (4, 3), (2, 2), (5, 2), (4, 1)]}


def band_loss(center, half_width, n, **arguments) -> BandLoss:
    return BandLoss(center, half_width, players=grid(n), baseline=0.25, **arguments)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize(("center", "half_width"), SETTINGS)
def test_mean_over_all_draws_equals_the_formula(center, half_width, n, groups, monkeypatch):
    loss = band_loss(center, half_width, n, groups=groups, n_draws=math.factorial(n))
    c, h = SIZES[n][SETTINGS.index((center, half_width))]
    if c + (groups - 1) * h > n:
        with pytest.raises(InputError, match="groups"):
            loss.sizes(n)
        return
    model, (x, _) = Game(n).double(), images(2, n)
    monkeypatch.setattr(loss, "_keys", lambda x, n, step: all_draws(n, len(x)))
    delta = loss.differences(model, x, recorded(model, x), step=0).mean(1)

    v = values(model, x, 0.25)
    f = curve(v, n)
    torch.testing.assert_close(delta, f[c + h] - 2 * f[c] + f[c - h], rtol=1e-12, atol=1e-12)
    triangle = [max(0, h - abs(m - (c - 1))) for m in range(n - 1)]
    expected = sum(w * o for w, o in zip(triangle, mean_interactions(v, n), strict=True))
    torch.testing.assert_close(delta, expected, rtol=1e-12, atol=1e-12)
    weights = loss.order_weights(n)
    assert weights.orders.tolist() == triangle
    assert (weights.main, weights.empty) == (0, 0)


@pytest.mark.filterwarnings("ignore:.*payoff is additive")
@pytest.mark.parametrize("order", range(9))
def test_no_order_outside_the_band_takes_part_in_any_draw(order):
    n = 10
    x = torch.ones(1, 1, 1, n)
    loss = BandLoss(0.5, 0.2, players=grid(n), baseline=0.0, n_draws=50)
    delta = loss.differences(Kink(order), x, ForwardRecord(), step=0)[..., 0]
    triangle = {3: 1.0, 4: 2.0, 5: 1.0}
    assert torch.equal(delta, torch.full((1, 50), triangle.get(order, 0.0)))
    low = OrderLoss(0.3, 0.7, players=grid(n), baseline=0.0)
    others = low.differences(Kink(order), x, ForwardRecord(), step=0)[..., 0]
    assert (others.abs() > 0.1).all() == (order <= 5)  # Δu keeps all low orders


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize(("center", "half_width"), [(0.4, 0.2), (0.2, 0.2), (0.6, 0.1)])
def test_zero_in_every_draw_of_an_additive_network(center, half_width, groups):
    torch.manual_seed(0)
    n = 10
    model = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(n, 3)).double()
    x, y = images(4, n)
    loss = band_loss(center, half_width, n, groups=groups, n_draws=20)
    with pytest.warns(UserWarning, match="additive over the players of the input"):
        delta = loss.differences(model, x, recorded(model, x), step=0)
    assert delta.shape == (4, 20 * groups * (groups - 1) // 2, 3)
    assert delta.abs().max() < 1e-14
    torch.testing.assert_close(loss(model, x, y), torch.tensor(3, dtype=torch.float64).log())
    # The same draws with the weights that Δu gives them do keep main effects.
    assert OrderLoss(0.4, 0.8, players=grid(n), baseline=0.25).differences(
        model, x, ForwardRecord(), step=0
    ).abs().amin() > 1e-6  # fmt: skip


@pytest.mark.parametrize("groups", [2, 3, 4])
@pytest.mark.parametrize("mode", ["encourage", "penalize"])
def test_each_draw_equals_a_loop_over_the_rows_that_were_evaluated(groups, mode):
    n, draws = 12, 5
    model, (x, y) = Spy(Game(n).double()), images(3, n)
    loss = band_loss(0.4, 0.15, n, groups=groups, n_draws=draws, mode=mode)
    result = loss(model, x, y, step=2)
    rows = torch.cat(model.calls)
    count = 1 + groups + groups * (groups - 1) // 2
    logits = model.network(rows).unflatten(0, (len(x), draws, count))
    present = (rows != 0.25).view(len(x), draws, count, n)
    parts = []
    for b, k in itertools.product(range(len(x)), range(draws)):
        context, singles, both = (
            present[b, k, 0],
            present[b, k, 1 : 1 + groups],
            present[b, k, 1 + groups :],
        )
        assert context.sum() == 3
        assert ((singles & ~context).sum(-1) == 2).all()
        assert (singles & ~context).sum(0).max() == 1
        v = logits[b, k]
        for d, (i, j) in enumerate(itertools.combinations(range(groups), 2)):
            assert torch.equal(both[d], singles[i] | singles[j])
            parts.append(v[1 + groups + d] - v[1 + i] - v[1 + j] + v[0])
    delta = torch.stack(parts).unflatten(0, (len(x), -1))
    torch.testing.assert_close(loss.differences(model, x, ForwardRecord(), step=2), delta)
    mean = delta.mean(1)
    if mode == "encourage":
        expected = F.cross_entropy(mean, y)
    else:
        expected = -torch.distributions.Categorical(logits=mean).entropy().mean()
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("setting", "plain", "norms"),
    [
        ((0.5, 0.2), [20], [20]),
        ((0.7, 0.3), [15], [20]),
        ((0.3, 0.3), [15, 1], [15, 1]),
        ((0.5, 0.5), [10, 1], [15, 1]),
    ],
)
def test_no_more_rows_than_needed(setting, plain, norms, norm):
    n = 10
    model, (x, y) = Spy(Game(n, norm=norm)), images(5, n, torch.float32)
    forward = recorded(model, x)
    model.calls.clear()
    band_loss(*setting, n)(model, x, y, forward=forward)
    assert [len(rows) for rows in model.calls] == (norms if norm else plain)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("center", "half_width"), SETTINGS)
def test_the_shortcuts_at_the_ends_change_nothing(center, half_width, norm):
    n = 10
    model, (x, _) = Game(n, norm=norm).double(), images(6, n)
    forward = recorded(model, x)
    loss = band_loss(center, half_width, n, n_draws=3)
    delta = loss.differences(model, x, forward, step=5)
    c, h = loss.sizes(n)
    sizes = [h, h, c - h] if c > h else [h, h]
    group = coalitions.disjoint_groups(loss._keys(x, n, step=5), sizes)
    model.eval()
    for k in range(3):
        v = []
        for members in ((), (0,), (1,), (0, 1)):
            mask = (group[:, k] == 2) & (c > h)  # the context
            for i in members:
                mask |= group[:, k] == i
            v.append(model(torch.where(mask.view_as(x), x, 0.25)))
        assert [int(m) for m in mask.sum(-1)] == [c + h] * len(x)
        torch.testing.assert_close(delta[:, k], v[3] - v[1] - v[2] + v[0])


@pytest.mark.parametrize(("center", "half_width"), SETTINGS)
def test_batchnorm_is_left_alone_and_parameters_move(center, half_width):
    n = 10
    model, (x, y) = Game(n, norm=True), images(6, n, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    band_loss(center, half_width, n)(model, x, y).backward()
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for name, value in model.named_parameters():
        if name != "rest.3.bias":  # it cancels, as all that is additive does
            assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("mode", ["encourage", "penalize"])
@pytest.mark.parametrize(("center", "half_width"), [(0.5, 0.25), (0.5, 0.5), (0.7, 0.3)])
def test_gradcheck(center, half_width, mode):
    n = 5
    x, y = images(3, n)
    weight = torch.randn(n, 3, dtype=torch.float64, requires_grad=True)
    loss = band_loss(center, half_width, n, mode=mode, n_draws=2)

    def value(weight: torch.Tensor) -> torch.Tensor:
        model = Weights(weight)
        return loss(model, x, y, forward=recorded(model, x), step=3)

    assert torch.autograd.gradcheck(value, weight)


def test_units_of_a_layer():
    n = 10
    model, (x, _) = Game(n).double(), images(4, n)
    loss = BandLoss(0.5, 0.25, layer="first", n_draws=500)
    delta = loss.differences(model, x, ForwardRecord(), step=0)
    mean, error = delta.mean(1), delta.std(1) / 500**0.5
    with torch.no_grad():
        units = model.first(x).view(4, 1, 1, 8)
        f = curve(values(nn.Sequential(nn.Flatten(), model.rest), units, 0.0), 8)
    assert ((mean - (f[6] - 2 * f[4] + f[2])).abs() < 4.5 * error).all()
    assert (delta.abs().mean(1) > 2 * error).all()


def test_rounding_keeps_the_band_inside():
    for n in range(4, 60):
        for center, half_width in SETTINGS:
            c, h = band_loss(center, half_width, n).sizes(n)
            assert h >= 1
            assert h <= c <= n - h
            assert abs(c - center * n) <= 1
            assert abs(h - max(1, half_width * n)) <= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"center": 0.0}, "center"),
        ({"center": 1.0}, "center"),
        ({"half_width": 0.0}, "half_width"),
        ({"half_width": 0.41}, "half_width"),
        ({"groups": 1}, "groups"),
        ({"mode": "both"}, "mode"),
        ({"n_draws": 0}, "n_draws"),
        ({"players": None}, "layer"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(InputError) as caught:
        BandLoss(**{"center": 0.4, "half_width": 0.1, "players": grid(4), **arguments})
    assert caught.value.argument == named


def test_too_few_players():
    with pytest.raises(InputError, match="players"):
        band_loss(0.5, 0.5, 1).sizes(1)
