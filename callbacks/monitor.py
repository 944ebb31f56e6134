"""What all measuring callbacks share: when they measure, and where the numbers go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from interaction_train.callbacks.adapter import (
    FindBatch,
    FindModel,
    Keys,
    check_keys,
    find_batch,
    find_model,
)
from interaction_train.callbacks.samples import fetch, first_loader
from interaction_train.errors import InputError
from interaction_train.game.evaluation import unwrap
from interaction_train.tracking.loggers import log_figure, log_table

Result = dict[str, Any]
Split = Literal["val", "test"]


class Monitor(L.Callback, ABC):
    """Measures after every k-th validation of ``fit``, and in ``validate`` and ``test``.

    In ``fit`` the values go to the loggers under fixed keys, and into a history that is part of
    checkpoints; at its end the history goes to the loggers as a table. In ``validate`` and ``test``
    a table is printed and files are written into the run's folder. The sanity check is not
    measured. Every process measures its share and all get the same result. Training is not
    touched: neither the network nor a random state keeps a trace.

    Args:
        every: k, how often in ``fit``; the first validation is one of them.
        model: where the network is (:func:`~interaction_train.callbacks.adapter.find_model`).
        batch: where inputs and int64 labels lie in a batch: two indices or keys, or a function.

    Raises:
        InputError: an argument out of its range.
    """

    name: str
    """What the keys of the history begin with, after ``val/``."""

    after_fit = True
    """Whether ``validate`` and ``test`` measure too."""

    def __init__(
        self,
        every: int = 1,
        model: str | FindModel | None = None,
        batch: Keys | FindBatch = (0, 1),
    ) -> None:
        at_least_one("every", every)
        check_keys(batch)
        self.every, self.model, self.batch = every, model, batch
        self.history: list[dict[str, Any]] = []
        self._validations = 0
        self._result: Result | None = None

    @abstractmethod
    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule, loader: Any) -> Result:
        """Measure on a loader's data set; the same plain numbers and lists on every process."""

    @abstractmethod
    def keys(self, split: Split, result: Result) -> dict[str, float]:
        """What is logged; the keys depend on the configuration alone."""

    def figures(self, result: Result) -> Mapping[str, Figure]:
        """Logged key, without ``val/`` → figure."""
        return {}

    def log_media(self, loggers: Iterable[Logger], split: Split, result: Result, step: int) -> None:
        """Send figures and the like to the loggers; on the first process."""
        for key, figure in self.figures(result).items():
            log_figure(loggers, f"{split}/{key}", figure, step)

    def history_figures(self) -> Mapping[str, Figure]:
        """The same for the whole history, at the end of ``fit``."""
        return {}

    def table(self, result: Result) -> Table:
        """What ``validate`` and ``test`` print."""
        raise NotImplementedError

    def write(self, folder: Path, result: Result) -> list[Path]:
        """Write files into the run's folder.

        Returns:
            their paths, to be printed.
        """
        return []

    def find_model(self, pl_module: L.LightningModule) -> nn.Module:
        """The bare network of a module."""
        return unwrap(find_model(pl_module, self.model))

    def samples(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loader: Any, places: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Inputs and labels at some places of a loader's data set, where the network can use them.

        Returns:
            x ``(B, ...)`` in the precision of training, and y ``(B,)`` int64.
        """
        x, y = find_batch(fetch(loader, places), self.batch)
        x, y = x.to(pl_module.device), y.to(pl_module.device)
        return trainer.precision_plugin.convert_input(x), y

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]
        self.history = list(state_dict.get("history", []))

    # Measured inside the loop, not at its end: callbacks that average weights swap them back there.
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or dataloader_idx or trainer.sanity_checking:
            return
        if trainer.state.fn != TrainerFn.FITTING:
            self._measure(trainer, pl_module, trainer.val_dataloaders)
            return
        if self._validations % self.every == 0:
            self._measure(trainer, pl_module, trainer.val_dataloaders)
        self._validations += 1

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0:
            self._measure(trainer, pl_module, trainer.test_dataloaders)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._result is None or trainer.state.fn != TrainerFn.FITTING:
            return
        result, self._result = self._result, None
        values = self.keys("val", result)
        # Equal on every process already; said to be synchronised, or Lightning would warn.
        pl_module.log_dict(values, sync_dist=True)
        point = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self.history.append({**point, "values": values})
        if trainer.is_global_zero:
            self.log_media(trainer.loggers, "val", result, trainer.global_step)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.history or not trainer.is_global_zero:
            return
        columns = list(self.history[-1]["values"])
        rows = [
            [point["epoch"], point["step"], *(point["values"].get(key) for key in columns)]
            for point in self.history
        ]
        key, step = f"val/{self.name}/history", trainer.global_step
        log_table(trainer.loggers, key, ["epoch", "step", *columns], rows, step)
        for name, figure in self.history_figures().items():
            log_figure(trainer.loggers, f"val/{name}", figure, step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Reported here, so that the table comes below Lightning's own.
        if stage not in ("validate", "test") or self._result is None:
            return
        result, self._result = self._result, None
        folder = trainer.log_dir  # on every process: the first one sends it to the others
        if not trainer.is_global_zero:
            return
        split: Split = "val" if stage == "validate" else "test"
        for logger in trainer.loggers:
            logger.log_metrics(self.keys(split, result), step=trainer.global_step)
        self.log_media(trainer.loggers, split, result, trainer.global_step)
        console = Console()
        console.print(self.table(result))
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for path in self.write(Path(folder), result):
                console.print(str(path), soft_wrap=True, highlight=False)

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule, loaders: Any) -> None:
        if self.after_fit or trainer.state.fn == TrainerFn.FITTING:
            with trainer.precision_plugin.forward_context():
                self._result = self.measure(trainer, pl_module, first_loader(loaders))


def at_least_one(name: str, value: int) -> None:
    """Refuse a count below 1.

    Raises:
        InputError: it is.
    """
    if value < 1:
        raise InputError(name, value, "at least 1")


def is_fast(trainer: L.Trainer) -> bool:
    """Whether this is ``fast_dev_run``, which shall cost next to nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))
