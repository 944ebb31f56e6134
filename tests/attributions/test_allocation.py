"""Allocations and principles, against Taylor effects and closed forms."""

import itertools
import sys

import pytest
import torch
from hypothesis import given
from torch import nn

import interaction_train as it
from interaction_train.attributions.allocation import allocation
from interaction_train.attributions.attribute import METHODS, attribute
from interaction_train.attributions.principles import check_principles
from interaction_train.errors import InputError
from tests.attributions.polynomials import SHEET, Polynomial, close, game_of, index, tensor
from tests.attributions.test_methods import (
    OWN,
    PATCHES,
    RULES,
    X,
    cnn,
    grid_game,
    options_of,
    polynomials,
    some,
)


@some
@given(polynomials())
def test_allocations_are_sums_of_taylor_effects(case):
    network, x, b = case
    effects, game = network.effects(x, b), game_of(network, x, b)
    scale = max(1.0, *(abs(value) for value in effects.values()))
    dividends = torch.zeros(1, 8, dtype=torch.float64)
    for kappa, value in effects.items():
        dividends[0, index(i for i in range(3) if kappa[i])] += value
    close(it.dividends(it.exact_values(game)), dividends, 1e-11 * scale)  # Theorem 1
    for method, weight in RULES.items():
        options = {"patches": PATCHES} if method == "occlusion_patch" else {}
        expected = torch.zeros(1, 3, 8, dtype=torch.float64)
        for (kappa, value), i in itertools.product(effects.items(), range(3)):
            expected[0, i, index(j for j in range(3) if kappa[j])] += weight(kappa, i) * value
        W = allocation(game, method, **options)  # noqa: N806
        close(W, expected, 1e-10 * scale)
        close(W.sum(-1), attribute(game, method, **options), 1e-10 * scale)


class TestNetworks:
    @pytest.mark.parametrize("method", OWN)
    def test_closed_forms_and_the_definition(self, method, monkeypatch):
        """A function under another name gets no closed form; blocks of any size give the same."""
        game = grid_game(cnn(nn.ReLU()), 2)
        options = options_of(method, game)
        options |= {"steps": 3, "check": False} if "gradients" in method else {}
        got = allocation(game, method, **options)
        assert got.shape == (2, 4, 16)

        def other(inner, **options):
            return METHODS[method](inner, **options)

        close(allocation(game, other, **options), got, 1e-12)
        close(allocation(grid_game(game.model, 2, chunk_size=3), other, **options), got, 1e-12)
        monkeypatch.setattr(sys.modules[allocation.__module__], "CELLS", 100)
        close(allocation(game, other, **options), got, 1e-12)
        if "absents" not in options:
            slow = torch.zeros(2, 4, 16, dtype=torch.float64)
            for S, T in itertools.product(range(16), repeat=2):  # noqa: N806
                if S & T == T:
                    slow[:, :, S] += (-1) ** (S ^ T).bit_count() * at(game, T, method, options)
            close(got, slow)

    @pytest.mark.parametrize("method", OWN)
    def test_sums_to_the_attribution(self, method):
        game = grid_game(cnn(nn.ReLU()))
        options = options_of(method, game)
        W = allocation(game, method, **options)  # noqa: N806
        close(W.sum(-1), attribute(game, method, **options), 1e-12)

    def test_segments_of_each_sample(self):
        maps = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(5))
        both = grid_game(cnn(nn.Softplus()), 2)
        players = it.SegmentPlayers(maps)
        game = it.MaskedGame(both.model, both.present, both.absent, players, labels=both.labels)
        W = allocation(game, "integrated_gradients")  # noqa: N806
        report = check_principles(W, it.dividends(it.exact_values(game)))
        close(report.unrelated, [0, 0])
        close(report.incomplete, [0, 0])

    def test_the_model_is_left_alone(self):
        model = cnn(nn.ReLU())
        allocation(grid_game(model), "integrated_gradients", steps=2)
        assert model.training
        assert all(p.grad is None for p in model.parameters())


def at(game, coalition, method, options):
    """The attribution of an input that is masked pixel by pixel."""
    cells = game.players.cells((4, 5))
    present = game.present.clone()
    for i in range(4):
        if not coalition >> i & 1:
            present[:, :, cells == i] = game.absent[:, :, cells == i]
    inner = it.MaskedGame(game.model, present, game.absent, game.players, game.payoff, game.labels)
    return attribute(inner, method, **options)


class TestPrinciples:
    def report(self, game, method, **options):
        dividends = it.dividends(it.exact_values(game))
        return check_principles(allocation(game, method, **options), dividends)

    @pytest.mark.parametrize("network", [cnn(nn.Tanh()), cnn(nn.Softplus())])
    def test_methods_that_keep_all(self, network):
        game = grid_game(network)
        for method in ("shapley", "integrated_gradients"):
            report = self.report(game, method)
            for share in (report.unrelated, report.incomplete, report.gap):
                close(share, torch.zeros(5))

    def test_shapley_of_a_relu_network(self):
        report = self.report(grid_game(cnn(nn.ReLU())), "shapley")
        close(torch.stack([report.unrelated, report.incomplete]), torch.zeros(2, 5))

    def test_of_the_sheet(self):
        """ψ1 = 10 and J(123) = 7.5, of which the occlusions and the gradient give more."""
        game = game_of(SHEET, X)
        for method, options, unrelated, incomplete, gap in (
            ("occlusion", {}, 0, 15 / 17.5, 15 / 17.5),
            ("occlusion_patch", {"patches": PATCHES}, 10 / 17.5, 25 / 17.5, 25 / 17.5),
            ("gradient_input", {}, 0, 50.5 / 17.5, 50.5 / 17.5),
        ):
            report = self.report(game, method, **options)
            close(report.unrelated, [unrelated])
            close(report.incomplete, [incomplete])
            close(report.gap, [gap])

    def test_signs_cancel_in_the_gap_alone(self):
        game = game_of(Polynomial({(1, 1, 0): 1.0, (0, 1, 1): -1.0}), [1.0, 1.0, 1.0])
        report = self.report(game, "occlusion")
        close(report.gap, [0])
        close(report.incomplete, [1])

    def test_unrelated_amounts_do_not_cancel(self):
        W = torch.zeros(1, 2, 4, dtype=torch.float64)  # noqa: N806
        W[0, 0, 2], W[0, 1, 1] = 3, -3  # of each other's own effects
        report = check_principles(W, tensor((0, 1, 1, 0)))
        assert (report.unrelated, report.incomplete, report.gap) == (3, 3, 1)

    def test_what_the_empty_set_gets_counts_in_the_gap_alone(self):
        W = torch.zeros(1, 2, 4, dtype=torch.float64)  # noqa: N806
        W[0, 0, 0], W[0, 0, 1] = 2, 1
        report = check_principles(W, tensor((5, 1, 0, 0)))
        assert (report.unrelated, report.incomplete, report.gap) == (0, 0, 2)

    def test_a_constant_game(self):
        report = check_principles(torch.zeros(1, 2, 4), torch.zeros(1, 4))
        assert report.unrelated.isnan()

    def test_refusals(self):
        with pytest.raises(InputError, match=r"W: got \(1, 2, 4\) for dividends \(1, 8\)"):
            check_principles(torch.zeros(1, 2, 4), torch.zeros(1, 8))
        with pytest.raises(InputError, match="dividends: got"):
            check_principles(torch.zeros(1, 2, 4), torch.zeros(1, 5))


class TestRefusals:
    def test_thirteen_players_before_any_forward(self):
        game = game_of(nn.Identity(), [0.0] * 13)
        with pytest.raises(InputError, match="game: got 13 players, expected at most 12"):
            allocation(game, "shapley")

    def test_methods_and_options(self):
        game = game_of(SHEET, X)
        with pytest.raises(InputError, match="method: got 'lime'"):
            allocation(game, "lime")
        with pytest.raises(InputError, match="options: got no patches"):
            allocation(game, "occlusion_patch")
