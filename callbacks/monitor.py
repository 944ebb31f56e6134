"""What all measuring callbacks share: when they measure, and where the numbers go."""

from __future__ import annotations

import csv
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.plugins.precision.utils import _DtypeContextManager
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from interaction_train.callbacks.adapter import Adapter, FindBatch, Keys, Model, Normalization
from interaction_train.callbacks.samples import (
    check_alone,
    fetch,
    first_loader,
    is_fast,
    population,
    spread,
)
from interaction_train.errors import InputError, checked_labels, whole
from interaction_train.game.absence import NO_BASELINE, has_baseline, read_baseline
from interaction_train.tracking.figures import RATIOS, heat_map_figure, save_figure
from interaction_train.tracking.folders import run_folder
from interaction_train.tracking.loggers import log_figure, log_table

Result = dict[str, Any]
Split = Literal["val", "test"]

_NO_FOLDER = ("", ".", "..")  # that a name makes in the run's
_TRIED = 8  # samples that show which network the module's is


class Monitor(L.Callback, ABC):
    """Measures after every k-th validation of ``fit``, and in ``validate`` and ``test``.

    In ``fit`` the values go to the loggers, and into a history that is part of checkpoints and goes
    to the loggers as a table at the end. In ``validate`` and ``test`` a table is printed and files
    are written into the run's folder. The sanity check is not measured. Every process measures its
    share and all get the same result; neither the network nor a random state keeps a trace. Samples
    are spread evenly over the first loader's data set and come through the loop's batch hooks.

    Between measurements ``trainer.callback_metrics`` does not hold the values; what needs them
    after every validation is refused when ``fit`` starts.

    Args:
        every: k, how often in ``fit``; the first validation is one of them.
        model: where the network is (:func:`~interaction_train.callbacks.adapter.find_model`).
        batch: where inputs and int64 labels lie in a batch: two indices or keys, or a function.
        normalization: ``mean`` and ``std`` per channel that the data set's inputs are normalised
            with; all of this callback (ε, baselines, pictures) is in pixels in [0, 1] then too.
        name: of one of several callbacks of a class, in its keys and as a folder in the run's.

    Raises:
        InputError: an argument out of its range; in use, a module without a network, a loader
            without a data set, or two callbacks that log the same keys.
    """

    keys_begin: tuple[str, ...]  # of logged keys, after ``val/``; the first one is the history's
    stem: str  # the name of the files
    summary = ""  # that of the JSON file, where it is another one
    stages: tuple[str, ...] = ("fit", "validate", "test")  # that measure
    n_samples: int  # that are measured, over all processes

    def __init__(
        self,
        every: int = 1,
        model: Model = None,
        batch: Keys | FindBatch = (0, 1),
        normalization: Normalization | None = None,
        name: str | None = None,
    ) -> None:
        whole("every", every, 1)
        if name is not None and (not isinstance(name, str) or name in _NO_FOLDER or "/" in name):
            raise InputError("name", repr(name), "another one, without '/'")
        self.every, self.name = every, name
        # What the logged keys of ``fit`` begin with.
        self.begin = tuple(self._named(f"val/{key}/") for key in self.keys_begin)
        self.adapter = Adapter(model, batch, normalization)
        self.history: list[dict[str, Any]] = []
        self._validations = 0
        self._result: Result | None = None
        self._folder: Path | None = None  # of the run

    @abstractmethod
    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        """Measure on a loader's data set; the same plain numbers and lists on every process."""

    @abstractmethod
    def keys(self, split: Split, result: Result) -> dict[str, float]:
        """What is logged; the keys depend on the configuration alone."""

    def figures(self, result: Result) -> Mapping[str, Figure]:
        """Logged key, without ``val/`` → figure."""
        return {}

    def figure_file(self, key: str) -> str:
        """The name, without suffix, of the file of a figure in :meth:`figures`."""
        return self.stem

    def log_media(self, loggers: Iterable[Logger], split: Split, result: Result, step: int) -> None:
        """Send figures and the like to the loggers; on the first process."""
        for key, figure in self.figures(result).items():
            log_figure(loggers, self._named(f"{split}/{key}"), figure, step)

    def history_figures(self) -> Mapping[str, Figure]:
        """The same as :meth:`figures` for the whole history, at the end of ``fit``."""
        return {}

    def over_training(
        self, key: str, label: str, title: str, axis: str = RATIOS
    ) -> dict[str, Figure]:
        """``<key>_over_training``: a heat map of what ``<key>/…`` logged, where anything, by epoch.

        Args:
            key: without ``val/``.
            label: of the values.
            title: of the figure.
            axis: what tells them apart.
        """
        start = f"val/{key}/"
        points = [point["values"] for point in self.history]
        ends = [name.removeprefix(start) for name in points[-1] if name.startswith(start)]
        if not ends:
            return {}
        values = [[point.get(start + end, math.nan) for end in ends] for point in points]
        epochs = [point["epoch"] for point in self.history]
        return {f"{key}_over_training": heat_map_figure(values, epochs, ends, label, title, axis)}

    def table(self, result: Result) -> Table:
        """What ``validate`` and ``test`` print."""
        raise NotImplementedError

    def csv_rows(self, result: Result) -> Mapping[str, Sequence[Iterable[Any]]]:
        """File's name → the rows that ``validate`` and ``test`` write, the columns' names first."""
        return {}

    def network(self, trainer: L.Trainer, loader: Any) -> nn.Module:
        """The bare network of the module, as one of pixels, tried on samples of the loader."""
        batch = fetch(trainer, loader, spread(population(loader), _TRIED))
        return self.adapter.network(trainer.lightning_module, self.adapter.read(batch)[0])

    def places(self, trainer: L.Trainer, loader: Any, fast: int = 2) -> list[int]:
        """The places of the ``n_samples``, in ``fast_dev_run`` of a few, in a loader's data set."""
        return spread(population(loader), fast if is_fast(trainer) else self.n_samples)

    def samples(self, trainer: L.Trainer, loader: Any, places: list[int]) -> tuple[Tensor, Tensor]:
        """Pixels ``(B, ...)`` and labels ``(B,)`` int64 at some places of a loader's data set."""
        x, y = self.adapter.read(fetch(trainer, loader, places))
        return self.adapter.pixels(x), checked_labels(y, len(x), "batch, its labels")

    def require_baseline(self, baseline: object, pl_module: L.LightningModule) -> None:
        """Refuse, when ``fit`` starts, to find no baseline of absent cells once it has trained."""
        if isinstance(baseline, str):
            read_baseline(baseline)
        if baseline is not None:
            return
        networks = self.adapter.network(pl_module, None), pl_module
        if not any(has_baseline(network) for network in networks):
            raise InputError("baseline", f"None for {type(self).__name__}", NO_BASELINE)

    @property
    def state_key(self) -> str:
        return super().state_key + (f"/{self.name}" if self.name else "")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        check_alone(trainer, self, "begin", "name")

    def on_fit_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        """Refuse, or warn of, what watches the keys after every validation."""
        if self.every == 1 or is_fast(trainer):
            return
        own = type(self).__name__
        for name, key, watcher in watchers(trainer):
            if not key.startswith(self.begin):
                continue
            if getattr(watcher, "strict", True):
                lenient = ", or strict=False there" if hasattr(watcher, "strict") else ""
                expected = f"1, as {name} watches {key!r} after every validation{lenient}"
                raise InputError("every", f"{self.every} for {own}", expected)
            if isinstance(watcher, EarlyStopping):
                rank_zero_warn(
                    f"{name} watches {key!r}, which {own} measures at every {self.every}th "
                    f"validation: its patience of {watcher.patience} counts measurements."
                )
        runs = max(1, trainer.max_epochs or 0) // (trainer.check_val_every_n_epoch or 1)
        if isinstance(trainer.val_check_interval, float):
            runs = int(runs / trainer.val_check_interval)
        if 1 < runs <= self.every:
            rank_zero_warn(
                f"{own} measures once in this run, after the first of {runs} validations: "
                f"every={self.every}."
            )

    # Not by state_dict, for which Lightning refuses two of one key before setup says why.
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        state = {"validations": self._validations, "history": self.history}
        checkpoint["callbacks"][self.state_key] = state

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if state := checkpoint["callbacks"].get(self.state_key):
            self._validations, self.history = state["validations"], list(state["history"])

    # Measured inside the loop, not at its end: callbacks that average weights swap them back there.
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *place: int
    ) -> None:
        if any(place) or trainer.sanity_checking:  # place: of the batch and of its loader
            return
        fitting = trainer.state.fn == "fit"
        if trainer.state.fn in self.stages and not (fitting and self._validations % self.every):
            testing = trainer.state.fn == "test"
            loader = first_loader(trainer.test_dataloaders if testing else trainer.val_dataloaders)
            with trainer.precision_plugin.forward_context(), _DtypeContextManager(torch.float32):
                self._result = self.measure(trainer, loader)
        self._validations += fitting

    on_test_batch_end: Any = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self._result is None:
            metrics = trainer.callback_metrics  # an earlier measurement would look new there
            for key in [key for key in metrics if key.startswith(self.begin)]:
                del metrics[key]
            return
        result, self._result = self._result, None
        values = self.keys("val", result)
        # Equal on every process already; said to be synchronised, or Lightning would warn.
        pl_module.log_dict({self._named(k): v for k, v in values.items()}, sync_dist=True)
        point = {"epoch": trainer.current_epoch, "step": trainer.global_step, "values": values}
        self.history.append(point)
        if trainer.is_global_zero:
            self.log_media(trainer.loggers, "val", result, trainer.global_step)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.history or not trainer.is_global_zero:
            return
        columns = ["epoch", "step", *self.history[-1]["values"]]
        points = ({**point, **point["values"]} for point in self.history)
        rows = [[point.get(column) for column in columns] for point in points]
        key, step = self._named(f"val/{self.keys_begin[0]}/history"), trainer.global_step
        log_table(trainer.loggers, key, columns, rows, step)
        for name, figure in self.history_figures().items():
            log_figure(trainer.loggers, self._named(f"val/{name}"), figure, step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Reported here, so that the table comes below Lightning's own.
        if stage not in ("validate", "test") or self._result is None:
            return
        result, self._result = self._result, None
        self._folder = run_folder(trainer)  # on every process: the first one sends it to the others
        if not trainer.is_global_zero:
            return
        split: Split = "val" if stage == "validate" else "test"
        values = {self._named(key): value for key, value in self.keys(split, result).items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        self.log_media(trainer.loggers, split, result, trainer.global_step)
        Console().print(self.table(result))
        if self._folder:
            folder = self._folder / (self.name or "")
            folder.mkdir(parents=True, exist_ok=True)
            for path in self._write(folder, result):
                print(path)

    def _write(self, folder: Path, result: Result) -> Iterator[Path]:
        for name, rows in self.csv_rows(result).items():
            path = folder / f"{name}.csv"
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(rows)
            yield path
        path = folder / f"{self.summary or self.stem}.json"
        path.write_text(json.dumps(result, indent=2))
        yield path
        for key, figure in self.figures(result).items():
            yield from save_figure(figure, folder / self.figure_file(key))

    def _named(self, key: str) -> str:
        """A key with this callback's name after the split."""
        return key if self.name is None else key.replace("/", f"/{self.name}/", 1)


def with_error(value: float, stderr: float, digits: str = ".3g") -> str:
    """A value and its standard error, where there is one."""
    return f"{value:{digits}}" + ("" if math.isnan(stderr) else f" ± {stderr:.2g}")


def watchers(trainer: Any) -> list[tuple[str, str, Any]]:
    """Callbacks and schedulers that watch a logged key: name, key, and the watcher itself."""
    found = [(type(c).__name__, c) for c in trainer.callbacks]
    found += [("lr_scheduler", config) for config in trainer.lr_scheduler_configs]
    keys = ((name, getattr(watcher, "monitor", None), watcher) for name, watcher in found)
    return [(name, key, watcher) for name, key, watcher in keys if isinstance(key, str)]
