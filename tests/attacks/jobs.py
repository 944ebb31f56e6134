"""A small crafting job, for one process or several, and its sudden end."""

import os
import signal
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks import AdversarialCrafter, IRAttack
from interaction_train.callbacks import AdversarialWriter
from interaction_train.models import DigitsNet, pretrained


class KillAtBatch(L.Callback):
    """Kills its own process, as a scheduler would, after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_predict_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        if batch_idx + 1 == self.batches:
            os.kill(os.getpid(), signal.SIGKILL)


def images(count: int = 21) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (count, 1, 8, 8), generator=generator)
    return x.float() / 255, torch.arange(count) % 10


def loader(count: int = 21, batch_size: int = 4) -> DataLoader:
    return DataLoader(TensorDataset(*images(count)), batch_size=batch_size)


def ir_attack(model: torch.nn.Module) -> IRAttack:
    return IRAttack(model, eps=0.1, alpha=0.04, steps=3, grid=4, draws=2, size=4, random_start=True)


def crafter(attack=ir_attack, **options) -> AdversarialCrafter:
    # In float64 no sum depends visibly on the other images of a batch.
    return AdversarialCrafter(Doubled(pretrained(DigitsNet(), "digits_cnn")), attack, **options)


class Doubled(torch.nn.Module):
    """A network that computes in float64."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.double())


def predict(folder: Path, module, data, devices: int = 1, callbacks=(), **writer) -> L.Trainer:
    options = {"strategy": "ddp_spawn"} if devices > 1 else {}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[AdversarialWriter("set", **writer), *callbacks],
        **options,
    )
    trainer.predict(module, data, return_predictions=False)
    return trainer
