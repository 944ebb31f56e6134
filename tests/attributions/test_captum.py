"""The methods against captum's, where it is installed and right."""

import pytest
import torch
from torch import nn

from interaction_train.attributions import attribute
from tests.attributions.polynomials import close
from tests.attributions.test_methods import cnn, grid_game

peers = pytest.importorskip("captum.attr")


def by_cell(elements, cells):
    """Numbers that all pixels of a cell share."""
    return torch.stack([elements[:, 0][:, cells == i][:, 0] for i in range(4)], 1).detach()


@pytest.mark.parametrize("act", [nn.ReLU(), nn.Softplus()])
class TestCaptum:
    def game(self, act):
        return grid_game(cnn(act).eval(), payoff="logit")

    def test_integrated_gradients(self, act):
        game = self.game(act)
        found = peers.IntegratedGradients(game.model).attribute(
            game.present, game.absent, target=game.labels, n_steps=40, method="gausslegendre"
        )
        cells = game.players.cells((4, 5))
        expected = [found[:, :, cells == i].sum((1, 2)).detach() for i in range(4)]
        got = attribute(game, "integrated_gradients", steps=40)
        close(got, torch.stack(expected, 1), 1e-8)  # its nodes are in float32

    @pytest.mark.parametrize(
        ("method", "peer", "tolerance"),
        [
            ("occlusion", peers.FeatureAblation, 1e-10),
            ("shapley", peers.ShapleyValues, 1e-5),  # summed in float32
        ],
    )
    def test_perturbations(self, act, method, peer, tolerance):
        game = self.game(act)
        cells = game.players.cells((4, 5))
        found = peer(game.model).attribute(
            game.present,
            game.absent,
            target=game.labels,
            feature_mask=cells.expand(1, 2, 4, 5).contiguous(),
        )
        close(attribute(game, method), by_cell(found.double(), cells), tolerance)
