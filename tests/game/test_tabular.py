"""Columns of a table as players, alone and in groups; and the names of all players."""

import numpy as np
import pytest
import torch

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, Players, UnitPlayers
from interaction_train.game.tabular import FeaturePlayers
from interaction_train.indices import dividends, exact_values


def weighted(x):
    """z = x0 + 10 x1 x2 + 100 x3, and 0."""
    z = x[:, 0] + 10 * x[:, 1] * x[:, 2] + 100 * x[:, 3]
    return torch.stack([z, torch.zeros_like(z)], 1)


def dividends_of(players):
    game = MaskedGame(weighted, torch.ones(1, 4), 0.0, players, labels=torch.tensor([0]))
    return dividends(exact_values(game))[0].tolist()


class TestFeaturePlayers:
    def test_every_column(self):
        found = dividends_of(FeaturePlayers())
        expected = dict.fromkeys(range(16), 0.0) | {0b0001: 1.0, 0b0110: 10.0, 0b1000: 100.0}
        assert found == list(expected.values())

    def test_groups(self):
        # Player 0 is x1 and x2, whose product now is its own; player 1 is x3 and x0.
        assert dividends_of(FeaturePlayers([[1, 2], [3, 0]])) == [0, 10, 101, 0]
        assert dividends_of(FeaturePlayers([[1, 0], [3, 2]])) == [0, 1, 100, 10]
        assert dividends_of(FeaturePlayers({"a": (1, 0), "b": np.array([3, 2])})) == [0, 1, 100, 10]

    def test_names(self):
        assert FeaturePlayers().names((3,)) == ("x0", "x1", "x2")
        assert FeaturePlayers([[2], [0, 1]]).names((3,)) == ("x2", "x0+x1")
        assert FeaturePlayers(names=["age", "sex"]).names((2,)) == ("age", "sex")
        grouped = FeaturePlayers([[1], [0, 2]], names=["age", "sex", "bmi"])
        assert grouped.names((3,)) == ("sex", "age+bmi")
        assert FeaturePlayers({"one": [1], "rest": [0, 2]}).names((3,)) == ("one", "rest")

    @pytest.mark.parametrize(
        ("groups", "match"),
        [
            ([[0, 1], [1, 2]], "groups: got column 1 2 times"),
            ([[0], []], "groups: got"),
            ([], "groups: got"),
            ([[-1], [0]], "groups: got"),
            ([[0.5], [1]], "groups: got"),
            ([0, 1], "groups: got"),
            ("ab", "groups: got"),
            (2, "groups: got"),
        ],
    )
    def test_bad_groups(self, groups, match):
        with pytest.raises(InputError, match=match):
            FeaturePlayers(groups)

    def test_groups_that_do_not_fit_the_sample(self):
        with pytest.raises(InputError, match="groups: got column 2 in no group"):
            FeaturePlayers([[0], [1]]).count((3,))
        with pytest.raises(InputError, match="groups: got column 3, expected"):
            FeaturePlayers([[0, 1], [2, 3]]).count((3,))

    def test_other_bad_input(self):
        with pytest.raises(InputError, match="names: got 2 names"):
            FeaturePlayers(names=["a", "b"]).count((3,))
        with pytest.raises(InputError, match=r"players: got a sample of shape \(1, 8, 8\)"):
            FeaturePlayers().count((1, 8, 8))


class Halves(Players):
    """As a user may write them: without names, cells or parts."""

    def count(self, shape):
        return 2

    def mask(self, coalitions, shape):
        return coalitions.repeat_interleave(shape[0] // 2, -1)


def test_names_of_other_players():
    assert GridPlayers(2, 2).names((1, 4, 4)) == ("r0c0", "r0c1", "r1c0", "r1c1")
    assert UnitPlayers().names((3,)) == ("unit 0", "unit 1", "unit 2")
    assert UnitPlayers("channel").names((2, 8, 8)) == ("channel 0", "channel 1")
    assert Halves().names((4,)) == ("player 0", "player 1")
    assert Halves().cells((4,)) is None
    assert dividends_of(Halves()) == [0, 1, 100, 10]
    with pytest.raises(InputError, match="players"):
        GridPlayers(5, 5).names((1, 4, 4))
