"""Losses whose players are words of padded batches, or columns of tables."""

import pytest
import torch

from interaction_train.data import TableDataModule, TextDataModule
from interaction_train.game.tabular import FeaturePlayers
from interaction_train.game.tokens import TokenPlayers
from interaction_train.losses import BandLoss, InteractionLoss, OrderLoss
from interaction_train.models import TableMLP, TextTransformer

WORDS = {
    "interaction": InteractionLoss(players=TokenPlayers(), batch_fraction=1.0),
    "order": OrderLoss(r1=0.7, r2=1.0, mode="penalize", players=TokenPlayers()),
    "band": BandLoss(center=0.5, half_width=0.25, mode="encourage", players=TokenPlayers()),
    "late": InteractionLoss(layer="pool", batch_fraction=1.0),
}


def batch():
    data = TextDataModule("grammar", sentences=200, batch_size=16)
    return next(iter(data.train_dataloader()))


def small():
    torch.manual_seed(0)
    return TextTransformer(128, 2, width=16, heads=2, word_dropout=0.0)


@pytest.mark.parametrize("name", WORDS)
def test_a_loss_trains_on_words(name):
    x, y = batch()
    network = small()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        value = WORDS[name](network, x, y, step=0)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]


def test_padding_takes_no_part():
    """What is absent at padding is still padding: sums of words give no interaction with it."""
    network = small()
    network.layers = torch.nn.ModuleList()  # a function of the mean of the words
    x = torch.zeros(4, 8, dtype=torch.int64)
    x[:, 0] = torch.arange(4, 8)
    y = torch.tensor([0, 1, 0, 1])
    value = InteractionLoss(players=TokenPlayers(), batch_fraction=1.0)(network, x, y)
    assert float(value.detach()) == pytest.approx(0, abs=1e-10)


def test_a_loss_trains_on_columns():
    data = TableDataModule("wine")
    data.setup()
    x, y = next(iter(data.train_dataloader()))
    torch.manual_seed(0)
    network = TableMLP(13, 3, (32,), mean=data.feature_mean.tolist(), std=data.feature_std.tolist())
    loss = InteractionLoss(players=FeaturePlayers(data.groups), batch_fraction=1.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        value = loss(network, x, y, step=0)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.7 * values[0]
