"""Runs that are stopped and resumed, anywhere: the same weights as uninterrupted ones."""

import warnings

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from interaction_train.data import DigitsDataModule, KeyedSampler


class Linear(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.seen = []

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, index, float(batch[0].sum())))
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


class Saver(Callback):
    """Saves where checkpoints may come from: the ends of batches, validations and epochs."""

    def __init__(self, folder):
        self.folder = folder

    def save(self, trainer, name):
        trainer.save_checkpoint(self.folder / f"{name}-{trainer.global_step}.ckpt")

    def on_train_batch_end(self, trainer, *args):
        self.save(trainer, "batch")

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer, "epoch")


def run(folder, workers=0, resume=None, callbacks=None, **trainer):
    saver = [Saver(folder)] if resume is None else []
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=saver if callbacks is None else callbacks,
        **trainer,
    )
    module = Linear()
    data = DigitsDataModule(
        batch_size=60, train_fraction=0.18, augment=True, num_workers=workers, seed=3
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="You're resuming from a checkpoint that ended")
        trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return module


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "trainer",
    [
        {"max_epochs": 2},
        {"max_epochs": 2, "val_check_interval": 2},
        {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 0},
        {"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1},
        {"max_steps": 10},
    ],
    ids=str,
)
def test_a_run_resumed_anywhere_equals_the_uninterrupted_one(tmp_path, trainer, workers):
    straight = run(tmp_path, **trainer)
    sums = [total for *_, total in straight.seen]
    assert len(set(sums)) == len(sums)
    checkpoints = list(tmp_path.glob("*.ckpt"))
    assert {path.name.split("-")[0] for path in checkpoints} >= {"batch", "epoch"}
    for checkpoint in checkpoints[:: 1 + workers]:
        resumed = run(tmp_path, workers, checkpoint, **trainer)
        steps = int(checkpoint.stem.split("-")[1])
        assert resumed.seen == straight.seen[steps:], checkpoint.name
        for name, weight in straight.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), (checkpoint.name, name)


class Stop(Callback):
    """Fails before a step, where the newest batch has been fetched but not trained on."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")

    def on_exception(self, trainer, module, exception):
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_run_that_failed_goes_on_with_the_batch_that_it_had_fetched(tmp_path, step):
    straight = run(tmp_path / "a", max_epochs=2)
    failed = tmp_path / "failed.ckpt"
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path, callbacks=[Stop(step, failed)], max_epochs=2)
    resumed = run(tmp_path, 2, failed, max_epochs=2)
    assert resumed.seen == straight.seen[step:]
    assert torch.equal(resumed.model[1].weight, straight.model[1].weight)


def test_two_ranks_go_on_where_both_were():
    orders = []
    for rank in (0, 1):
        for skip in (0, 4):
            sampler = KeyedSampler(range(20), seed=1, num_replicas=2, rank=rank)
            sampler.skip = skip
            orders.append(list(sampler))
            sampler.set_epoch(0)  # as Lightning does for the resumed epoch too
            assert list(sampler) == orders[-1]
            sampler.set_epoch(1)
            assert len(list(sampler)) == 10
    assert orders[1] == orders[0][4:]
    assert orders[3] == orders[2][4:]
