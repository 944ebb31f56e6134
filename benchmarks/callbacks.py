"""Cost of all measuring callbacks together, over an epoch of the packaged CIFAR-10 network.

AlexNet is trained with a plain loss in batches of 128 as in ``cifar10_alexnet_interaction.yaml``,
on real images where the data folder is (else on synthetic ones). Then every callback, with its
default budget, measures once inside ``fit``; training goes on. An epoch is 45000 images at the
median time of a training step. ``epoch_overhead`` is Σ (seconds of a measurement / its default
period) / seconds of an epoch; figures and logging are part of a measurement. ``--quick`` trains
less and measures a quarter of the samples, at four times the weight; its standard error is then
twice that of the default budget, and is halved. All samples count, also those that the network gets
wrong, since after so few epochs that is most of them.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
import torchattacks
from common import data_folder, parse_arguments, report, synchronize
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.callbacks import (
    AdversarialRobustness,
    DisentanglementMonitor,
    GeneralizationGap,
    SpectrumMonitor,
)
from interaction_train.callbacks.monitor import Monitor
from interaction_train.models import CIFARAlexNet
from interaction_train.training.module import InteractionClassifier

EPOCH, BATCH = 45000, 128


def images(count: int) -> tuple[Tensor, Tensor]:
    """Real images and labels where they are, else smooth noise."""
    folder = data_folder()
    if folder is not None and (folder / "cifar10_5k.npz").is_file():
        with np.load(folder / "cifar10_5k.npz") as file:
            x, y = (torch.from_numpy(file[f"{name}_train"][:count]) for name in "xy")
        return x.movedim(-1, 1).float().div(255), y.flatten().long()
    generator = torch.Generator().manual_seed(0)
    x = F.interpolate(torch.rand(count, 3, 8, 8, generator=generator), size=32, mode="bilinear")
    return x, torch.arange(count) % 10


def monitors(quick: bool) -> dict[str, Monitor]:
    part = 4 if quick else 1
    made: dict[str, Monitor] = {
        "spectrum": SpectrumMonitor(n_samples=240 // part, only_correct=False),
        "disentanglement": DisentanglementMonitor(n_samples=8 // part, only_correct=False),
        "gap": GeneralizationGap(512 // part, strength_samples=16 // part),
        "robustness": AdversarialRobustness({"pgd": torchattacks.PGD}, n_samples=128 // part),
    }
    return made


class Clock(L.Callback):
    """Seconds of every training step, and of every monitor."""

    def __init__(self, watched: dict[str, Monitor], device: str) -> None:
        self.device, self.steps, self.start = device, [], 0.0
        self.seconds = dict.fromkeys(watched, 0.0)
        for name, monitor in watched.items():
            for hook in ("on_validation_batch_end", "on_validation_epoch_end"):
                setattr(monitor, hook, self._timed(name, getattr(monitor, hook)))

    def _timed(self, name: str, hook: Any) -> Any:
        def timed(*args: Any, **more: Any) -> None:
            synchronize(self.device)
            start = time.perf_counter()
            hook(*args, **more)
            synchronize(self.device)
            self.seconds[name] += time.perf_counter() - start

        return timed

    def on_train_batch_start(self, *_: Any) -> None:
        synchronize(self.device)
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        synchronize(self.device)
        self.steps.append(time.perf_counter() - self.start)


def measure(quick: bool, device: str) -> dict[str, float]:
    x, y = images(640 if quick else 4000)
    validation = min(512, len(x) // 4)
    train, val = (
        TensorDataset(x[validation:], y[validation:]),
        TensorDataset(x[:validation], y[:validation]),
    )
    watched = monitors(quick)
    clock, epochs = Clock(watched, device), 4 if quick else 10
    module = InteractionClassifier(
        CIFARAlexNet(), optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)
    )
    with TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="gpu" if device.startswith("cuda") else "cpu", devices=1,
            max_epochs=epochs, check_val_every_n_epoch=epochs - 1, num_sanity_val_steps=0,
            logger=CSVLogger(Path(folder)), enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[*watched.values(), clock],
        )  # fmt: skip
        trainer.fit(
            module,
            DataLoader(train, BATCH, shuffle=True, drop_last=True),
            DataLoader(val, BATCH),
        )
    epoch = statistics.median(clock.steps[1:]) * EPOCH / BATCH
    factor = 4 if quick else 1
    result = {
        f"overhead_{name}": factor * clock.seconds[name] / monitor.every / epoch
        for name, monitor in watched.items()
    }
    values = watched["spectrum"].history[-1]["values"]
    errors = {key: v for key, v in values.items() if "/J_stderr/" in key}
    for key, error in errors.items():
        print(f"{key}: J = {values[key.replace('_stderr', '')]:.3f} ± {error:.3f}")
    return {
        "epoch_overhead": sum(result.values()),
        **result,
        "largest_J_stderr": max(errors.values()) / (2 if quick else 1),
    }


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    L.seed_everything(0, verbose=False)
    wanted = {"epoch_overhead": "≤ 0.15", "largest_J_stderr": "≤ 0.1"}
    report("callbacks", arguments.device, measure(arguments.quick, arguments.device), wanted)


if __name__ == "__main__":
    main()
