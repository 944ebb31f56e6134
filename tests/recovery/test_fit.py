"""Rows, budgets and choices of a fit, and what it refuses."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import UnitPlayers
from interaction_train.recovery import budget_curve, fit_rows, fit_walsh


def pair(x):
    """An AND of two players and a third, of however many."""
    return (x[:, 3] & x[:, 5]).double() + 2 * x[:, 8]


def network(n: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n, 16), nn.Tanh(), nn.Linear(16, 3))


def masked(n: int = 12, samples: int = 3, **settings) -> MaskedGame:
    x = torch.rand(samples, n, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(samples) % 3
    return MaskedGame(network(n), x, 0.0, UnitPlayers(), labels=labels, **settings)


def test_rows_come_with_their_complements_and_fresh_ones_are_others():
    for n in (12, 40):
        model = fit_walsh(pair, 300, players=n)
        assert model.coalitions.shape == (300, n)
        assert torch.equal(model.coalitions[1::2], ~model.coalitions[::2])
        assert model.fresh_coalitions.shape == (64, n)
        every = torch.cat([model.coalitions, model.fresh_coalitions])
        assert len(every.unique(dim=0)) == 364
    assert len(fit_walsh(pair, 450, players=9).fresh_coalitions) == 62  # all that are left
    assert 0.45 < model.coalitions[::2].double().mean() < 0.55


def test_coalitions_depend_on_seed_players_and_budget_alone():
    torch.manual_seed(5)
    first = fit_walsh(pair, 100, players=20)
    state = torch.random.get_rng_state()
    again = fit_walsh(lambda x: pair(~x), 100, players=20)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.coalitions, again.coalitions)
    longer = fit_walsh(pair, 140, players=20)
    assert torch.equal(longer.coalitions[:100], first.coalitions)
    assert not torch.equal(fit_walsh(pair, 100, players=20, seed=1).coalitions, first.coalitions)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_batches_and_chunks_change_nothing(chunk_size):
    together = fit_walsh(masked(), 100)
    game = masked(chunk_size=chunk_size)
    for at in range(3):
        one = MaskedGame(
            game.model, game.present[at : at + 1], 0.0, UnitPlayers(),
            labels=game.labels[at : at + 1], chunk_size=chunk_size,
        )  # fmt: skip
        alone = fit_walsh(one, 100)
        torch.testing.assert_close(alone.values[0], together.values[at], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.shapley()[0], together.shapley()[at], rtol=0, atol=1e-5)


def test_a_game_of_samples_equals_a_function_of_its_values():
    game = masked()
    by_function = fit_walsh(lambda x: game(x), 100, players=12)
    torch.testing.assert_close(fit_walsh(game, 100).shapley(), by_function.shapley())


@pytest.mark.parametrize("rho", ["loo", "learned"])
def test_choices_depend_on_no_scale_and_no_shift(rho):
    model = fit_walsh(masked(), 100, rho=rho)
    other = fit_rows(model.coalitions, 1e6 + 1e3 * model.values, rho=rho)
    torch.testing.assert_close(other.rho, model.rho, rtol=1e-4, atol=0)
    torch.testing.assert_close(other.noise, model.noise)
    torch.testing.assert_close(other.shapley(), 1e3 * model.shapley(), rtol=1e-4, atol=1e-3)


def test_rows_left_out_choose_the_better_of_two_fits():
    model = fit_walsh(masked(), 200, fresh=1000)
    assert (model.r2_loo > 0.9).all()
    for rho in (0.003, 0.3):
        given = fit_rows(model.coalitions, model.values, rho=rho)
        assert torch.equal(given.rho, torch.full((3, 12), rho, dtype=torch.float64))
        assert (model.r2_loo >= given.r2_loo - 1e-9).all()
    # What rows left out say holds on fresh ones.
    assert (model.r2_holdout - model.r2_loo).abs().max() < 0.1


def test_one_rho_per_player_finds_the_players_that_matter():
    single = fit_walsh(pair, 160, players=60)
    learned = fit_walsh(pair, 160, players=60, rho="learned")
    assert single.r2_holdout < 0.97 < 0.999 < learned.r2_holdout
    assert sorted(learned.rho[0].topk(3).indices.tolist()) == [3, 5, 8]


def test_noise_teaches_no_players():
    """Where nothing can be learned, rows held back keep the single ρ from being left."""
    values = torch.randn(4, 160, generator=torch.Generator().manual_seed(0))
    x = fit_walsh(pair, 160, players=40).coalitions
    fresh = fit_walsh(pair, 160, players=40, seed=1).coalitions, torch.randn(4, 160)
    model = fit_rows(x, values, rho="learned", fresh=fresh)
    assert (model.r2_holdout > -0.3).all()


def test_the_curve_is_of_nested_rows():
    model = fit_walsh(pair, 400, players=40)
    curve = budget_curve(model, [80, 200, 400])
    assert curve.shape == (1, 3)
    first = fit_rows(
        model.coalitions[:80],
        model.values[:, :80],
        fresh=(model.fresh_coalitions, model.fresh_values),
    )
    assert torch.equal(curve[:, 0], first.r2_holdout)
    assert torch.equal(curve[:, 2], model.r2_holdout)
    assert curve[0, 0] < curve[0, 1] < curve[0, 2]
    for budgets in ([79], [401], [], 100, [100.5]):
        with pytest.raises(InputError, match="budgets"):
            budget_curve(model, budgets)
    with pytest.raises(InputError, match="fresh"):
        budget_curve(fit_walsh(pair, 400, players=40, fresh=0), [80])


def test_networks_are_left_as_they_were():
    game = masked()
    game.model.train()
    fit_walsh(game, 100)
    assert game.model.training
    assert all(p.grad is None for p in game.model.parameters())


def constant(x):
    return torch.stack([pair(x), torch.full((len(x),), 3.0).double()])


def infinite(x):
    values = torch.stack([pair(x), pair(x)])
    values[1, 7] = torch.inf
    return values


@pytest.mark.parametrize(
    ("game", "settings", "named"),
    [
        (pair, {"budget": 39}, "at least 40"),
        (pair, {"players": None}, "players"),
        (pair, {"rho": 1.0}, "rho"),
        (pair, {"rho": 0.0}, "rho"),
        (pair, {"rho": "best"}, "rho"),
        (pair, {"rho": None}, "rho"),
        (pair, {"fresh": -1}, "fresh"),
        (pair, {"fresh": 1.5}, "fresh"),
        (pair, {"budget": 100.5}, "budget"),
        (pair, {"budget": "100"}, "budget"),
        (pair, {"players": 2.5}, "players"),
        (lambda x: pair(x) * 1j, {}, "values"),
        (lambda x: pair(x)[None, :][:0], {}, "values"),
        (3, {}, "game"),
        (constant, {}, "sample 1"),
        (infinite, {}, "sample 1"),
        (lambda x: x.double(), {}, "game"),
        (lambda x: pair(x)[None, None], {}, "game"),
    ],
)
def test_what_does_not_fit_is_named(game, settings, named):
    with pytest.raises(InputError, match=named):
        fit_walsh(game, **{"budget": 100, "players": 20, **settings})


def test_a_game_has_its_own_players():
    with pytest.raises(InputError, match="players"):
        fit_walsh(masked(), 100, players=12)
    with pytest.raises(InputError, match="game"):
        fit_walsh(it.MaskedGame(network(12), torch.rand(1, 12), 0.0, UnitPlayers(), "all"), 100)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"coalitions": torch.zeros(40, 9)}, "coalitions"),
        ({"values": torch.zeros(40)}, "values"),
        ({"values": torch.zeros(1, 39)}, "values"),
        ({"noise": -1.0}, "noise"),
        ({"fresh": (torch.zeros(5, 8, dtype=torch.bool), torch.zeros(1, 5))}, "fresh"),
        ({"fresh": (torch.zeros(5, 9, dtype=torch.bool), torch.zeros(1, 4))}, "fresh"),
    ],
)
def test_rows_that_do_not_fit_are_named(change, named):
    model = fit_walsh(pair, 40, players=9)
    with pytest.raises(InputError, match=named):
        fit_rows(**{"coalitions": model.coalitions, "values": model.values, **change})
