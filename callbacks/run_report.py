"""A report of the whole run, in one HTML file and as Markdown."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from interaction_train.tracking.provenance import command_line, machine, versions
from interaction_train.tracking.report import write_report
from interaction_train.tracking.report.material import STARTS


class RunReport(L.Callback):
    """Writes ``report.html`` and ``report.md`` at the end of ``fit``, ``validate`` and ``test``.

    The report holds the curves of all logged metrics, the figures and tables that the run's folder
    has, the numbers that sum the run up, the configuration, and when, where and with what command
    and versions the run was started, each time it was. It is made from the files in the run's
    folder alone (:func:`~interaction_train.tracking.report.write_report`), so it covers the whole
    of a run that was killed and resumed, and other callbacks need not know of it. Curves need a
    ``CSVLogger``, as the command line has by default.

    Only the first process works; the others do not wait for it. Put it last among the callbacks:
    what those after it write when they end is missing. ``fast_dev_run``, and a trainer without
    loggers, get no report.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._recorded: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folder = trainer.log_dir  # asked for on every process: rank 0 tells the others
        if getattr(trainer, "fast_dev_run", False) or not trainer.loggers or folder is None:
            self._folder = None
            return
        csv = [logger.log_dir for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        self._folder = Path(csv[0] if csv and trainer.is_global_zero else folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._record(trainer, "fit")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._record(trainer, "validate")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._record(trainer, "test")

    @rank_zero_only
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._folder is None or stage not in ("fit", "validate", "test"):
            return
        for logger in trainer.loggers:
            logger.save()
        path = write_report(self._folder)
        Console().print(f"Report: {path}", soft_wrap=True, highlight=False)

    @rank_zero_only
    def _record(self, trainer: L.Trainer, stage: str) -> None:
        """Add this start of the run to those that its folder tells of."""
        if self._folder is None or stage in self._recorded:
            return
        self._recorded.add(stage)
        path = self._folder / STARTS
        starts: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
        starts.append(
            {
                "stage": stage,
                "time": datetime.now().astimezone().isoformat(" ", "seconds"),
                "step": trainer.global_step,
                "processes": trainer.world_size,
                "command": command_line(),
                "machine": machine(),
                "versions": versions(),
            }
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(starts, indent=2))
        draft.replace(path)
