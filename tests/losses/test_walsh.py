"""The penalty against exact Fourier coefficients, and the gradient that it gives."""

import pytest
import torch
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.layers import ForwardRecord
from interaction_train.game.masked import MaskedGame
from interaction_train.indices import all_coalitions
from interaction_train.losses import WalshPenalty
from tests.losses.games import Game, grid, images

N = 6


def penalty(orders, mode="penalize", **settings) -> WalshPenalty:
    settings = {"budget": 64, "noise": 1e-9, "rho": 0.5, "batch_fraction": 1.0, **settings}
    return WalshPenalty(orders, mode, players=grid(N), baseline=0.25, **settings)


def exact(model, x, y) -> torch.Tensor:
    """Σ_{|S|=d} c_S² of every sample and order 1 … n, from all coalitions."""
    game = MaskedGame(model, x, 0.25, grid(N), "log_odds", y)
    sets = all_coalitions(N)
    overlap = sets.double() @ sets.double().T
    squares = (game(sets, grad=True).double() @ (1 - 2 * (overlap % 2)) / 64).square()
    return torch.stack([squares[:, sets.sum(-1) == d].sum(-1) for d in range(1, N + 1)], -1)


def test_all_coalitions_give_the_exact_variance_of_every_order():
    model, (x, y) = Game(N).double(), images(3, N)
    truth = exact(model, x, y)
    term = penalty(1)
    close = {"rtol": 1e-5, "atol": 1e-12}
    torch.testing.assert_close(term.variances(model, x, y, ForwardRecord(), 0)[0], truth, **close)
    value = penalty([2, 4])(model, x, y).detach()
    torch.testing.assert_close(value, truth[:, [1, 3]].sum(1).mean().float(), **close)
    assert torch.equal(penalty([2, 4], "encourage")(model, x, y), -value)
    share = penalty(2, form="share")(model, x, y)
    torch.testing.assert_close(share, (truth[:, 1] / truth.sum(1)).mean().float(), **close)


def test_the_gradient_is_that_of_the_exact_variance():
    model, (x, y) = Game(N).double(), images(2, N)
    penalty(2)(model, x, y).backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    exact(model, x, y)[:, 1].mean().backward()
    for one, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-9)


def test_few_coalitions_are_drawn_anew_at_every_step_and_shared():
    model, (x, y) = Game(N).double(), images(3, N)
    term = penalty(2, budget=20, noise=0.01)
    first, again, later = (term(model, x, y, step=step).item() for step in (0, 0, 1))
    assert first == again != later
    alone = [term(model, x[k : k + 1], y[k : k + 1], step=0) for k in range(3)]
    assert torch.stack(alone).mean().item() == pytest.approx(first)


def test_training_by_it_alone_lowers_the_share_of_pairs():
    model, (x, y) = Game(N), images(8, N, torch.float32)
    before = exact(model, x, y).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    term = penalty(2, form="share", budget=24, noise=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        term(model, x, y).backward()
        optimizer.step()
    after = exact(model, x, y).detach()
    assert (after[:, 1] / after.sum(1)).mean() < 0.5 * (before[:, 1] / before.sum(1)).mean()


def test_units_of_a_layer_are_players_too():
    model, (x, y) = Game(N), images(4, N, torch.float32)
    value = WalshPenalty(2, layer="first", batch_fraction=0.5)(model, x, y)
    value.backward()
    assert value > 0
    assert all(p.grad is not None for p in model.rest.parameters())
    assert WalshPenalty(2, layer="first").rows(8) == 2 * 64


def test_an_additive_network_has_no_pairs():
    model = nn.Sequential(nn.Flatten(), nn.Linear(N, 2)).double()  # log-odds of two classes
    x, y = images(2, N)
    assert penalty(2)(model, x, y % 2).item() < 1e-12
    assert penalty(1)(model, x, y % 2).item() > 1e-6


def test_rounding_has_no_share_and_no_gradient():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1.3, 0.7]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias + 0 * x.flatten(1).sum(-1, keepdim=True)

    model, (x, y) = Constant(), images(2, N, torch.float32)
    value = penalty(2, form="share")(model, x, y % 2)
    value.backward()
    assert value.item() == 0
    assert not model.bias.grad.any()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"orders": 0}, "orders"),
        ({"orders": []}, "orders"),
        ({"orders": [2, 2]}, "orders"),
        ({"orders": 1.5}, "orders"),
        ({"orders": "2"}, "orders"),
        ({"noise": float("inf")}, "noise"),
        ({"rho": "loo"}, "rho"),
        ({"mode": "less"}, "mode"),
        ({"rho": 1.0}, "rho"),
        ({"noise": 0.0}, "noise"),
        ({"form": "mean"}, "form"),
    ],
)
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(InputError, match=named):
        penalty(**{"orders": 2, **settings})


def test_what_the_players_do_not_allow_is_refused():
    model, (x, y) = Game(N).double(), images(2, N)
    with pytest.raises(InputError, match="at most 6"):
        penalty(7)(model, x, y)
    with pytest.raises(InputError, match="at least 12"):
        penalty(2, budget=11)(model, x, y)
    assert "of 1, 3 players" in penalty([1, 3]).told_orders(N)
