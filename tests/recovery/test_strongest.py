"""The strongest sets of games that are made of known ones."""

import pytest
import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.recovery import fit_rows, fit_walsh, strongest
from interaction_train.recovery.candidates import grow


class Known:
    """A game of n players made of known ANDs and ORs."""

    def __init__(self, n: int, ands: dict, ors: dict | None = None) -> None:
        self.n, self.ands, self.ors = n, ands, ors or {}

    def __call__(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=torch.float64)
        for players, value in self.ands.items():
            total = total + value * x[:, list(players)].all(1)
        for players, value in self.ors.items():
            total = total + value * x[:, list(players)].any(1)
        return total


def random_game(seed: int, n: int = 100) -> Known:
    """15 dividends of orders 1 to 4 on 16 of n players."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.randperm(n, generator=generator)[:16]
    ands: dict = {}
    for k in range(15):
        chosen = active[torch.randperm(16, generator=generator)[: 1 + k % 4]]
        value = float(torch.randn((), generator=generator))
        key = tuple(sorted(chosen.tolist()))
        ands[key] = ands.get(key, 0.0) + value
    return Known(n, ands)


def found(surrogate, sample: int = 0) -> dict:
    own = surrogate[sample]
    return {
        (tuple(players.nonzero()[:, 0].tolist()), bool(is_or)): float(value)
        for players, is_or, value in zip(own.members[0], own.is_or[0], own.value[0], strict=True)
    }


def finds_all(seed: int) -> tuple[bool, float]:
    """Whether every dividend above .3 of the largest is among 20 sets, and R²."""
    game = random_game(seed)
    model = fit_walsh(game, 1000, players=game.n, rho="learned")
    recovered = strongest(model, 20)
    largest = max(map(abs, game.ands.values()))
    wanted = {key for key, value in game.ands.items() if abs(value) > 0.3 * largest}
    got = {players for players, is_or in found(recovered.surrogate) if not is_or}
    return wanted <= got, float(recovered.r2)


@pytest.mark.slow
def test_known_dividends_of_a_hundred_players_are_found():
    results = [finds_all(seed) for seed in range(10)]
    assert sum(complete for complete, _ in results) >= 9
    assert min(r2 for _, r2 in results) >= 0.95


def test_known_dividends_of_a_hundred_players_are_found_once():
    complete, r2 = finds_all(1)
    assert complete
    assert r2 >= 0.95


def test_ands_and_ors_are_told_apart():
    ands = {(0,): 2.0, (1, 2): -1.5, (3, 4, 5): 1.0}
    model = fit_walsh(Known(24, ands, {(6, 7, 8): 2.5}), 300, players=24, rho="learned")
    recovered = strongest(model, 8)
    expected = {(players, False): value for players, value in ands.items()}
    expected[(6, 7, 8), True] = 2.5
    assert found(recovered.surrogate) == pytest.approx(expected, abs=1e-6)
    assert next(iter(found(recovered.surrogate))) == ((6, 7, 8), True)  # the strongest first
    torch.testing.assert_close(recovered.r2, torch.ones(1, dtype=torch.float64))
    assert float(recovered.surrogate.max_error) < 1e-6
    fitted = recovered.surrogate(model.fresh_coalitions)
    torch.testing.assert_close(fitted, model.fresh_values)


def test_samples_are_searched_as_if_alone():
    games = [random_game(3, 30), Known(30, {(0, 1): 1.0}, {(4, 5, 6): -2.0})]
    model = fit_walsh(lambda x: torch.stack([g(x) for g in games]), 200, players=30)
    both = strongest(model, 6)
    assert len(both.surrogate) == 2
    for at in range(2):
        alone = strongest(model[at], 6)
        assert found(both.surrogate, at) == pytest.approx(found(alone.surrogate), abs=1e-9)
    assert found(both.surrogate, 1).keys() == {((0, 1), False), ((4, 5, 6), True)}


def test_growth_lists_every_set_once():
    sets = grow(fit_walsh(random_game(2, 16), 200, players=16), 30, 4)[0]
    sets = sets[sets.any(-1)]
    assert len(sets.unique(dim=0)) == len(sets)
    assert sets.sum(-1).bincount().tolist() == [0, 16, 30, 30, 30]


def test_small_games_have_fewer_sets_than_asked_for():
    game = Known(3, {(0,): 1.0, (1, 2): -2.0})
    model = fit_walsh(game, 8, players=3)
    recovered = strongest(model, 50, max_order=3)  # no fresh rows: R² over all coalitions
    assert found(recovered.surrogate) == pytest.approx({((0,), False): 1, ((1, 2), False): -2})
    assert float(recovered.r2) == pytest.approx(1)
    assert "R² 1.000 on the fit's own coalitions" in recovered.summary()


def test_a_game_that_few_interactions_do_not_explain_says_so():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 20, generator=generator) < 0.5
    clear, noise = Known(20, {(0, 1): 1.0})(x), torch.randn(200, generator=generator)
    values = torch.stack([clear, noise.double()])
    model = fit_rows(x[:150], values[:, :150], fresh=(x[150:], values[:, 150:]))
    with pytest.warns(UserWarning, match=r"sample 1: R² below 0\.5"):
        recovered = strongest(model, 5)
    assert recovered.explained.tolist() == [True, False]
    names = [f"cell {i}" for i in range(20)]
    text = recovered.summary(names)
    first, rest = text.split("sample 1")
    assert "+1  cell 0 AND cell 1" in first
    assert "R² 1.000 on 50 fresh coalitions" in first
    assert "not explained" not in first
    assert "this game is not explained by a few interactions" in rest
    assert f"R² {float(recovered.r2[1]):.3f}" in rest
    with pytest.raises(InputError, match="names"):
        recovered.summary(names[:3])


@pytest.mark.parametrize("n", [12, 100])
def test_a_game_of_no_interactions_has_none(n):
    """No few columns that happen to fit, and rounding is no spectrum."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(400, n, generator=generator) < 0.5
    rows = torch.stack([rows, ~rows], 1).flatten(0, 1)
    parity = (1 - 2 * (rows[:, :12].sum(-1) % 2)).double()
    values = torch.stack([parity, torch.randn(800, generator=generator).double()])
    model = fit_rows(rows[:400], values[:, :400], fresh=(rows[400:], values[:, 400:]))
    with pytest.warns(UserWarning, match="samples 0, 1"):
        recovered = strongest(model, 12)
    assert recovered.surrogate.count.tolist() == [0, 0]
    assert (recovered.r2.abs() < 0.05).all()


def test_many_sets_are_chosen_of_dependent_ones():
    game = Known(40, {(0,): 1.0, (1, 2): -2.0, (3, 4, 5): 3.0})
    recovered = strongest(fit_walsh(game, 200, players=40, rho="learned"), 100)
    assert found(recovered.surrogate).keys() == {(players, False) for players in game.ands}


def test_two_players_make_no_set_of_five():
    recovered = strongest(fit_walsh(Known(2, {(0, 1): 1.0}), 4, players=2), 3)
    assert found(recovered.surrogate) == pytest.approx({((0, 1), False): 1})


@pytest.mark.parametrize(
    ("count", "max_order"), [(0, 2), (3, 0), (3, 21), (1001, 2), (1.5, 2), ("3", 2), (3, 2.5)]
)
def test_arguments_out_of_range_are_refused(count, max_order):
    model = fit_walsh(random_game(0, 20), 60, players=20)
    with pytest.raises(InputError):
        strongest(model, count, max_order)
