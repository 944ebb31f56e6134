import pytest
import torch
from lightning import Trainer

import interaction_train as it
from interaction_train.baselines import LearnedBaseline
from interaction_train.data import TableDataModule
from interaction_train.errors import InputError
from interaction_train.game.tabular import FeaturePlayers
from interaction_train.models import TableMLP, pretrained
from interaction_train.training.baseline import BaselineLearning

PLAYERS = [[k, k + 10, k + 20] for k in range(10)]


def learning(**options):
    network = pretrained(TableMLP(30, hidden=(32, 32)), "table_cancer")
    return BaselineLearning(
        network, FeaturePlayers(PLAYERS), contexts=2, start="median", samples=4, **options
    )


def fit(module, folder, batch_size=32, **options):
    trainer = Trainer(
        default_root_dir=folder, max_epochs=1, limit_train_batches=2, limit_val_batches=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=TableDataModule("breast_cancer", batch_size=batch_size))
    return LearnedBaseline.load(folder / "results_0" / "baseline.safetensors")


def test_two_processes_learn_what_one_does(tmp_path):
    module = learning()
    one = fit(module, tmp_path / "one")
    two = fit(learning(), tmp_path / "two", 16, strategy="ddp_spawn", devices=2)
    assert not torch.allclose(one.value, module.shared.start, rtol=1e-3)
    torch.testing.assert_close(two.value, one.value, rtol=1e-4, atol=1e-6)
    assert vars(two.before) == pytest.approx(vars(one.before), rel=1e-5)
    torch.testing.assert_close(two.history, one.history, rtol=1e-4, atol=1e-5)
    assert all(p.requires_grad for p in module.model.parameters())
    fresh = pretrained(TableMLP(30, hidden=(32, 32)), "table_cancer")
    assert it.models.weights_tag(module.model) == it.models.weights_tag(fresh)


def test_what_is_refused():
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=1)
    with pytest.raises(InputError, match="datamodule"):
        trainer.fit(learning(), torch.utils.data.DataLoader([(torch.rand(30), 0)]))
