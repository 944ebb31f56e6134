"""A module that measures with a metric of its own, for one process or several."""

from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.game.players import GridPlayers
from interaction_train.metrics import InteractionSpectrum
from interaction_train.models import DigitsNet
from interaction_train.sampling.pairs import RandomPairs
from interaction_train.training.module import InteractionClassifier

RATIOS = (0.0, 0.5, 1.0)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DigitsNet(width=4)


def images(count=9):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 1, 8, 8, generator=generator)
    return x, torch.arange(count) % 10


def loader(count=9, batch_size=4):
    return DataLoader(TensorDataset(*images(count)), batch_size=batch_size)


def metric(**changes):
    options = {"pairs": RandomPairs(1, 5), "contexts": 6, "ratios": RATIOS, "only_correct": False}
    return InteractionSpectrum(GridPlayers(4, 4), **{**options, **changes})


class Watch(InteractionClassifier):
    """Measures every validation sample and saves the result."""

    def __init__(self, path: Path) -> None:
        super().__init__(network())
        self.path, self.metric = path, metric()

    def validation_step(self, batch, batch_idx) -> None:
        super().validation_step(batch, batch_idx)
        self.metric.update(self.model, *batch)

    def on_validation_epoch_end(self) -> None:
        result = self.metric.compute()
        self.metric.reset()
        if self.global_rank == 0:
            torch.save(result, self.path)


def trainer(folder: Path, **changes) -> L.Trainer:
    options = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return L.Trainer(**{**options, **changes})
