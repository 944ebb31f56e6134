"""The interaction spectrum J(m) of a network, followed in training or measured once."""

from __future__ import annotations

import copy
import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn

from interaction_train.absolute import READINGS, Reading, check_reading
from interaction_train.errors import InputError
from interaction_train.estimators import REFERENCE_RATIOS
from interaction_train.evaluation import unwrap
from interaction_train.figures import save_figure, spectrum_figure
from interaction_train.metrics import InteractionSpectrum
from interaction_train.pairs import NeighbourPairs, Pairs
from interaction_train.players import GridPlayers
from interaction_train.trackers import log_figure

_BATCH = 16  # samples measured together; no result depends on it


class SpectrumMonitor(L.Callback):
    """Measures J(m) (:class:`~interaction_train.metrics.InteractionSpectrum`) on a fixed sample.

    The samples are spread evenly over the first validation (or test) loader's data set, the same
    ones every time; each process measures its share. Training is not touched: neither the network
    nor the global RNG state keeps a trace.

    - In ``fit``, after every k-th validation: ``val/interaction/J/<ratio>`` and
      ``val/interaction/J_stderr/<ratio>``, and a figure to loggers that take one.
    - In ``validate`` and ``test``: a table, ``spectrum.csv``, ``spectrum.json`` and
      ``spectrum.png`` in the run's folder, and the same keys (``test/…``) to the loggers.

    ``fast_dev_run`` measures one sample, right or wrong, with two contexts, at three orders.

    Args:
        rows: rows of the grid.
        cols: columns of the grid.
        samples: number of samples, over all processes.
        every: k, how often in ``fit``; the first validation is one of them.
        contexts: contexts per pair and order, in the mean; at least 2.
        ratios: orders as parts m/(n−2), ascending; default: the reference grid's, without those
            that are the same order on this grid.
        pairs: which pairs; default: cells at most two rows and columns apart.
        payoff: what the game reads off the logits.
        baseline: what absent cells show, a number or one per channel; default: the training mean
            of the network's ``Normalize`` layer.
        only_correct: leave out samples that the network gets wrong.
        reading: which reading of |I| is logged: ``plug_in`` (biased up), ``split_sign`` (biased
            down) or ``rms``; the table and the files have all three.
        seed: seed of the draws.
        chunk_size: rows sent through the network at once; default: the fastest, timed once.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(
        self,
        rows: int = 16,
        cols: int = 16,
        samples: int = 32,
        every: int = 1,
        contexts: int = 32,
        ratios: Sequence[float] | None = None,
        pairs: Pairs | None = None,
        payoff: str = "log_odds",
        baseline: float | list[float] | None = None,
        only_correct: bool = True,
        reading: Reading = "plug_in",
        seed: int = 0,
        chunk_size: int | None = None,
    ) -> None:
        for name, value in (("samples", samples), ("every", every)):
            if value < 1:
                raise InputError(name, value, "at least 1")
        check_reading(reading)
        self.samples, self.every, self.reading = samples, every, reading
        self.players = GridPlayers(rows, cols)
        self.metric = InteractionSpectrum(
            self.players,
            payoff,
            _distinct(rows * cols) if ratios is None else ratios,
            NeighbourPairs() if pairs is None else pairs,
            contexts,
            baseline=baseline,
            only_correct=only_correct,
            seed=seed,
            chunk_size=chunk_size,
        )
        self._validations = 0
        self._result: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]

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
            self._result = self._measure(trainer, pl_module, trainer.val_dataloaders)
            return
        if self._validations % self.every == 0:
            self._result = self._measure(trainer, pl_module, trainer.val_dataloaders)
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
        # After fit, test would measure again what the last validation has shown.
        if batch_idx == 0 and dataloader_idx == 0 and not self._validations:
            self._result = self._measure(trainer, pl_module, trainer.test_dataloaders)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._result is None or trainer.state.fn != TrainerFn.FITTING:
            return
        # The same on every process: the metric has joined their rows.
        pl_module.log_dict(self._keys("val", self._result))
        log_figure(
            trainer.loggers,
            "val/interaction/spectrum",
            self._figure(self._result),
            trainer.global_step,
        )
        self._result = None

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Reported here, so that the table comes below Lightning's own.
        if stage not in ("validate", "test") or self._result is None:
            return
        result, self._result = self._result, None
        folder = trainer.log_dir  # on every process: the first one sends it to the others
        if trainer.is_global_zero:
            self._report(trainer, stage, result, folder)

    def _report(
        self, trainer: L.Trainer, stage: str, result: dict[str, Any], folder: str | None
    ) -> None:
        split = "val" if stage == "validate" else "test"
        for logger in trainer.loggers:
            logger.log_metrics(self._keys(split, result), step=trainer.global_step)
        console = Console()
        console.print(self._table(result))
        if folder:
            for path in self._write(Path(folder), result):
                console.print(str(path), soft_wrap=True, highlight=False)

    def _measure(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loaders: Any
    ) -> dict[str, Any]:
        loader = loaders[0] if isinstance(loaders, list) else loaders
        fast = bool(getattr(trainer, "fast_dev_run", False))
        network = getattr(pl_module, "model", None)
        network = unwrap(network if isinstance(network, nn.Module) else pl_module)
        metric = copy.deepcopy(self.metric)
        metric.to(pl_module.device)
        if fast:
            metric.contexts, metric.only_correct, metric.chunk_size = 2, False, 64
            metric.ratios = metric.ratios[:: max(1, len(metric.ratios) // 2)]
        x, y = self._samples(loader, 1 if fast else self.samples, trainer)
        for part_x, part_y in zip(x.split(_BATCH), y.split(_BATCH), strict=True):
            if len(part_x):
                metric.update(network, part_x.to(pl_module.device), part_y.to(pl_module.device))
        statistics = metric.compute()
        result: dict[str, Any] = {key: value.tolist() for key, value in statistics.items()}
        if result["samples"] == 0:
            rank_zero_warn("No sample for the interaction spectrum is classified correctly.")
        n = self.players.rows * self.players.cols
        orders = [round(ratio * (n - 2)) for ratio in metric.ratios]
        return {"players": n, "ratios": list(metric.ratios), "orders": orders, **result}

    def _samples(self, loader: Any, count: int, trainer: L.Trainer) -> tuple[Tensor, Tensor]:
        """This process's share of the samples; every process has its own, perhaps none."""
        dataset: Any = loader.dataset
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise InputError(
                "dataloader", type(dataset).__name__, "a data set with a length and items by index"
            )
        count = min(count, len(dataset))
        places = [i * len(dataset) // count for i in range(count)]
        mine = places[trainer.global_rank :: trainer.world_size]
        with torch.random.fork_rng(devices=[]):
            if not mine:
                x, y = torch.utils.data.default_collate([dataset[0]])
                return x[:0], y[:0]
            x, y = torch.utils.data.default_collate([dataset[i] for i in mine])
        return x, y

    def _keys(self, split: str, result: dict[str, Any]) -> dict[str, float]:
        keys = {}
        for name, column in (("J", f"J_{self.reading}"), ("J_stderr", f"J_{self.reading}_stderr")):
            for ratio, value in zip(result["ratios"], result[column], strict=True):
                keys[f"{split}/interaction/{name}/{ratio:g}"] = value
        return keys

    def _figure(self, result: dict[str, Any]) -> Any:
        curves = {
            reading.replace("_", "-"): {
                "orders": result["orders"],
                "value": result[f"J_{reading}"],
                "stderr": result[f"J_{reading}_stderr"],
            }
            for reading in READINGS
        }
        grid = f"{self.players.rows} × {self.players.cols} grid"
        return spectrum_figure(curves, f"Interactions, {grid}, {result['samples']} samples")

    def _table(self, result: dict[str, Any]) -> Table:
        title = (
            f"J(m) on {result['samples']} samples, {self.players.rows} × {self.players.cols} grid"
        )
        columns = ["m", "m/(n−2)", "J plug-in", "J split", "J rms", "mean I"]
        table = Table(*(Column(name, justify="right") for name in columns), title=title)
        shown = [*(f"J_{reading}" for reading in READINGS), "signed"]
        for k, (order, ratio) in enumerate(zip(result["orders"], result["ratios"], strict=True)):
            cells = (_with_error(result[key][k], result[f"{key}_stderr"][k]) for key in shown)
            table.add_row(str(order), f"{ratio:g}", *cells)
        table.caption = (
            "± one standard error over samples; plug-in is biased up, split-sign down, each most "
            f"where |I| is small ({_rounded(result['contexts'])} contexts per pair)"
        )
        return table

    def _write(self, folder: Path, result: dict[str, Any]) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"spectrum.{kind}" for kind in ("csv", "json", "png")]
        lists = {key: value for key, value in result.items() if isinstance(value, list)}
        with paths[0].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(lists)
            writer.writerows(zip(*lists.values(), strict=True))
        paths[1].write_text(json.dumps(result, indent=2))
        save_figure(self._figure(result), paths[2])
        return paths


def _distinct(n: int) -> tuple[float, ...]:
    orders = {round(ratio * (n - 2)): ratio for ratio in reversed(REFERENCE_RATIOS)}
    return tuple(sorted(orders.values()))


def _with_error(value: float, error: float) -> str:
    return f"{value:.3g}" if math.isnan(error) else f"{value:.3g} ± {error:.2g}"


def _rounded(counts: list[float]) -> str:
    inner = [count for count in counts if count > 1.5] or counts
    return f"{min(inner):.0f} to {max(inner):.0f}" if inner else "0"
