"""A report of the whole run, in one HTML file."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from interaction_train.tracking.folders import run_folder
from interaction_train.tracking.history import History, write_whole
from interaction_train.tracking.provenance import command_line, machine, versions
from interaction_train.tracking.report import write_report
from interaction_train.tracking.report.material import STARTS


class RunReport(L.Callback):
    """Writes ``report.html`` at the end of ``fit``, ``validate`` and ``test``, failed ones too.

    The report holds the curves of all logged metrics, the figures and tables of the run's folder,
    the numbers that sum the run up, the configuration, and when, where and with what command and
    versions the run was started (:func:`~interaction_train.tracking.report.write_report`). What is
    logged goes to ``history.jsonl`` in the folder, whatever loggers the trainer has; of a run that
    was killed ``python -m interaction_train.tracking.report FOLDER`` makes the report.

    Put it last among the callbacks: what those after it write when they end is missing.
    ``fast_dev_run``, and a trainer without loggers, get no report.
    """

    test_follows = False  # whether the report of ``fit`` is left to the test

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._starts: list[dict[str, Any]] = []  # of the first process
        self._recorded: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer) if trainer.loggers else None  # on every process
        self._recorded.discard(stage)  # each start is one of its own
        known = any(isinstance(logger, History) for logger in trainer.loggers)
        if self._folder is not None and not known:
            trainer.loggers = [*trainer.loggers, History(self._folder)]

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for start in self._starts[-1:]:
            start["finished"] = True
            self._save()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._write(trainer)  # Lightning calls no teardown then

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage in ("validate", "test") or (stage == "fit" and not self.test_follows):
            self._write(trainer)

    @rank_zero_only
    def _write(self, trainer: L.Trainer) -> None:
        if self._folder is None or not self._recorded:
            return
        for logger in trainer.loggers:
            logger.save()
        print(f"Report: {write_report(self._folder)}")

    @rank_zero_only
    def on_train_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        """Add this start of the run to those that its folder tells of."""
        stage = trainer.state.fn.value
        if self._folder is None or trainer.sanity_checking or stage in self._recorded:
            return
        self._recorded.add(stage)
        path = self._folder / STARTS
        self._starts = json.loads(path.read_text()) if path.is_file() else []
        start: dict[str, Any] = {
            "stage": stage,
            "time": datetime.now().astimezone().isoformat(" ", "seconds"),
            "step": trainer.global_step,
            "processes": trainer.world_size,
            "command": command_line(),
            "machine": machine(),
            "versions": versions(),
        }
        if stage == "fit":
            start |= {"finished": False, "epochs": trainer.max_epochs}
            if trainer.ckpt_path:
                origin = Path(trainer.ckpt_path).resolve().parent.parent  # <run>/checkpoints/<file>
                start["resumed_from"] = {"folder": str(origin), "step": trainer.global_step}
        self._starts.append(start)
        self._save()

    on_validation_start: Any = on_train_start
    on_test_start: Any = on_train_start

    def _save(self) -> None:
        if self._folder is not None:
            write_whole(self._folder / STARTS, json.dumps(self._starts, indent=2))
