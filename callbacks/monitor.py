"""What all measuring callbacks share: when they measure, and where the numbers go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.plugins.precision.utils import _DtypeContextManager
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
    Normalization,
    Pixels,
    check_keys,
    find_batch,
    find_model,
)
from interaction_train.callbacks.freshness import check_fit, forget
from interaction_train.callbacks.samples import fetch, first_loader, spread
from interaction_train.errors import InputError, at_least
from interaction_train.tracking.folders import run_folder
from interaction_train.tracking.loggers import log_figure, log_table

Result = dict[str, Any]
Split = Literal["val", "test"]

_TRIED = 8  # samples that show which network the module's is


class Monitor(L.Callback, ABC):
    """Measures after every k-th validation of ``fit``, and in ``validate`` and ``test``.

    In ``fit`` the values go to the loggers under fixed keys, and into a history that is part of
    checkpoints; at its end the history goes to the loggers as a table. In ``validate`` and ``test``
    a table is printed and files are written into the run's folder. The sanity check is not
    measured. Every process measures its share and all get the same result. Training is not
    touched: neither the network nor a random state keeps a trace. Samples are spread evenly over
    the first loader's data set and come as the loop's batches do, through the batch hooks of module
    and data module.

    Between measurements ``trainer.callback_metrics`` does not hold the values, so that none counts
    twice; what needs them after every validation is refused when ``fit`` starts.

    Args:
        every: k, how often in ``fit``; the first validation is one of them.
        model: where the network is (:func:`~interaction_train.callbacks.adapter.find_model`).
        batch: where inputs and int64 labels lie in a batch: two indices or keys, or a function.
        normalization: ``mean`` and ``std`` per channel that the data set's inputs are normalised
            with. They are taken back, and made the network's first layer, so that all of this
            callback (ε, baselines, pictures) is in pixels in [0, 1].
        name: of this one of several callbacks of one class: ``val/<name>/…``, and a folder of its
            own in the run's folder.

    Raises:
        InputError: an argument out of its range; in use, a module without a network or a loader
            without a data set.
    """

    keys_begin: tuple[str, ...]
    """What the logged keys begin with, after ``val/``; the first one is the history's."""

    after_fit = True
    """Whether ``validate`` and ``test`` measure too."""

    def __init__(
        self,
        every: int = 1,
        model: str | FindModel | None = None,
        batch: Keys | FindBatch = (0, 1),
        normalization: Normalization | None = None,
        name: str | None = None,
    ) -> None:
        at_least("every", every, 1)
        check_keys(batch)
        if name is not None and (not name or "/" in name):
            raise InputError("name", repr(name), "another one, without '/'")
        self.every, self.model, self.batch, self.name = every, model, batch, name
        self.pixels = Pixels(normalization)
        self.history: list[dict[str, Any]] = []
        self._validations = 0
        self._result: Result | None = None

    @abstractmethod
    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
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
            log_figure(loggers, self._named(f"{split}/{key}"), figure, step)

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

    def network(self, trainer: L.Trainer, loader: Any) -> nn.Module:
        """The bare network of the module, as one of pixels, tried on samples of the loader."""
        batch = fetch(trainer, loader, spread(len(loader.dataset), _TRIED))
        x, _ = find_batch(batch, self.batch)
        return self.pixels.network(find_model(trainer.lightning_module, self.model, x))

    def samples(self, trainer: L.Trainer, loader: Any, places: list[int]) -> tuple[Tensor, Tensor]:
        """Pixels ``(B, ...)`` and labels ``(B,)`` int64 at some places of a loader's data set."""
        x, y = find_batch(fetch(trainer, loader, places), self.batch)
        return self.pixels.of(x), y

    @property
    def state_key(self) -> str:
        return super().state_key + (f"/{self.name}" if self.name else "")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        begin = tuple(self._named(f"val/{key}/") for key in self.keys_begin)
        check_fit(trainer, type(self).__name__, begin, self.every)

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
        fitting = trainer.state.fn == TrainerFn.FITTING
        testing = trainer.state.fn == TrainerFn.TESTING
        if self._validations % self.every == 0 if fitting else self.after_fit:
            loader = first_loader(trainer.test_dataloaders if testing else trainer.val_dataloaders)
            with trainer.precision_plugin.forward_context(), _DtypeContextManager(torch.float32):
                self._result = self.measure(trainer, loader)
        self._validations += fitting

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._result is None:
            forget(trainer, tuple(self._named(f"val/{key}/") for key in self.keys_begin))
            return
        result, self._result = self._result, None
        values = self.keys("val", result)
        # Equal on every process already; said to be synchronised, or Lightning would warn.
        named = {self._named(key): value for key, value in values.items()}
        pl_module.log_dict(named, sync_dist=True)
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
        key, step = self._named(f"val/{self.keys_begin[0]}/history"), trainer.global_step
        log_table(trainer.loggers, key, ["epoch", "step", *columns], rows, step)
        for name, figure in self.history_figures().items():
            log_figure(trainer.loggers, self._named(f"val/{name}"), figure, step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Reported here, so that the table comes below Lightning's own.
        if stage not in ("validate", "test") or self._result is None:
            return
        result, self._result = self._result, None
        folder = run_folder(trainer)  # on every process: the first one sends it to the others
        if not trainer.is_global_zero:
            return
        split: Split = "val" if stage == "validate" else "test"
        values = {self._named(key): value for key, value in self.keys(split, result).items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        self.log_media(trainer.loggers, split, result, trainer.global_step)
        console = Console()
        console.print(self.table(result))
        if folder:
            folder = folder / (self.name or "")
            folder.mkdir(parents=True, exist_ok=True)
            for path in self.write(folder, result):
                console.print(str(path), soft_wrap=True, highlight=False)

    def _named(self, key: str) -> str:
        """A key with this callback's name after the split."""
        split, _, rest = key.partition("/")
        return key if self.name is None else f"{split}/{self.name}/{rest}"


def is_fast(trainer: L.Trainer) -> bool:
    """Whether this is ``fast_dev_run``, which shall cost next to nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))
