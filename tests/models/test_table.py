import copy
import pickle

import pytest
import torch
from lightning import Trainer

from interaction_train.data import TableDataModule
from interaction_train.game.absence import default_baseline
from interaction_train.models import Standardize, TableMLP
from interaction_train.training.module import InteractionClassifier
from tests.data.files import raises


def fit(module, data, folder, **arguments):
    trainer = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, max_epochs=1,
    )  # fmt: skip
    trainer.fit(module, data, **arguments)
    return trainer


def test_standardize_is_the_formula_and_its_mean_the_default_baseline():
    layer = Standardize(2, [1.0, 2.0], [2.0, 4.0])
    assert layer(torch.tensor([[3.0, -2.0]])).tolist() == [[1.0, -1.0]]
    network = TableMLP(2, mean=[1.0, 2.0], std=[2.0, 4.0])
    assert default_baseline(network).tolist() == [1.0, 2.0]
    assert network(torch.rand(5, 2)).shape == (5, 2)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert again(torch.ones(1, 2)).tolist() == [[0.0, -0.25]]


def test_an_unfilled_one_says_what_it_lacks_until_a_state_dict_fills_it():
    layer = Standardize(2)
    with raises("Standardize", "no mean and std", "TableDataModule"):
        layer(torch.ones(1, 2))
    layer.load_state_dict(Standardize(2).state_dict())
    with raises("Standardize", "no mean"):
        layer(torch.ones(1, 2))
    layer.load_state_dict(Standardize(2, [1.0, 2.0], [2.0, 4.0]).state_dict())
    assert layer(torch.ones(1, 2)).tolist() == [[0.0, -0.25]]
    with raises("std", "(0.0, 1.0)", "positive"):
        layer.fill([0.0, 0.0], [0.0, 1.0])
    with raises("x", "(1, 3)", "(B, 2)"):
        layer(torch.ones(1, 3))
    with raises("mean", "3 numbers", "2"):
        Standardize(2, [0.0] * 3, [1.0] * 3)


def test_a_fit_fills_it_once_and_a_resumed_one_keeps_it(tmp_path):
    data = TableDataModule("wine")
    module = InteractionClassifier(TableMLP(13, 3), 3)
    fit(module, data, tmp_path).save_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(module.model.standardize.mean, data.feature_mean)
    less = TableDataModule("wine", train_fraction=0.3)
    again = InteractionClassifier(TableMLP(13, 3), 3)
    fit(again, less, tmp_path, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert not torch.equal(less.feature_mean, data.feature_mean)
    assert torch.equal(again.model.standardize.mean, data.feature_mean)
    given = InteractionClassifier(TableMLP(13, 3, mean=[0.0] * 13, std=[1.0] * 13), 3)
    fit(given, data, tmp_path)
    assert given.model.standardize.mean.tolist() == [0.0] * 13


def test_a_network_for_other_columns_is_refused(tmp_path):
    with raises("features", "12", "13", "alcohol"):
        fit(InteractionClassifier(TableMLP(12, 3), 3), TableDataModule("wine"), tmp_path)


@pytest.mark.parametrize(("name", "value"), [("features", 0), ("hidden", ()), ("dropout", 1.0)])
def test_bad_arguments_are_named(name, value):
    with raises(name, str(value)):
        TableMLP(**{"features": 3, name: value})
