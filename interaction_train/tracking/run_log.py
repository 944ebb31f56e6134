"""Going on with a run: its folder, its curves and its W&B run, from one of its checkpoints.

A run resumed from the newest checkpoint of its folder goes on in that folder, as if it had never
stopped. One resumed from an older checkpoint, or under another name, is a branch: it gets a folder
and a W&B run of its own, and the old ones stay as they are. Both begin with the rows of the earlier
``metrics.csv`` up to the checkpoint; what came after it, the resumed run logs again.
"""

from __future__ import annotations

import csv
import pickle
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from interaction_train.errors import InputError
from interaction_train.tracking.wandb_run import WandbMark, continue_wandb, wandb_mark

_KEY = "interaction_train_run"  # in a checkpoint


@dataclass(frozen=True)
class Origin:
    """What a resumed run goes on with.

    Attributes:
        folder: the run that the checkpoint belongs to, ``<run>/checkpoints/<name>.ckpt``.
        step: optimizer steps done at the checkpoint.
        newest: whether no other checkpoint beside it is further.
        wandb: the W&B run and how far its log was, where there is one.
    """

    folder: Path
    step: int
    newest: bool
    wandb: WandbMark | None = field(default=None)

    @classmethod
    def of(cls, checkpoint: Path) -> Origin:
        """Read what a checkpoint tells of its run.

        Raises:
            InputError: a file that is no checkpoint of a training run.
        """
        state = _load(checkpoint)
        if "global_step" not in state:
            raise InputError("ckpt_path", repr(str(checkpoint)), "a checkpoint of a training run")
        step = state["global_step"]
        others = (_load(path) for path in checkpoint.parent.glob("*.ckpt"))
        mark = state.get(_KEY, {}).get("wandb")
        return cls(
            folder=checkpoint.resolve().parent.parent,
            step=step,
            newest=all(other.get("global_step", 0) <= step for other in others),
            wandb=WandbMark(**mark) if mark else None,
        )


class RunMark(L.Callback):
    """Writes into every checkpoint which W&B run it belongs to, and how far that run's log is."""

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        marks = [wandb_mark(x) for x in trainer.loggers if isinstance(x, WandbLogger)]
        if trainer.is_global_zero and marks:
            checkpoint[_KEY] = {"wandb": marks[0]}


def continue_run(loggers: Iterable[Logger | bool | None], origin: Origin) -> None:
    """Make loggers go on with an earlier run. Call it before they have logged anything.

    Call it on every process, so that all of them know the folder; only the first one writes.

    Args:
        loggers: of the run that is about to resume; a version or id of their own they keep.
        origin: the earlier run.
    """
    loggers = [logger for logger in loggers if isinstance(logger, Logger)]
    rows = list(_rows(origin))
    same = False
    for logger in loggers:
        if isinstance(logger, CSVLogger | TensorBoardLogger):
            same = _take_place(logger, origin) or same
            if isinstance(logger, CSVLogger):
                _write(logger, rows)
    for logger in loggers:
        if isinstance(logger, WandbLogger) and same and origin.wandb is not None:
            continue_wandb(logger, origin.wandb, origin.step, rows)


def _take_place(logger: CSVLogger | TensorBoardLogger, origin: Origin) -> bool:
    """Let a logger go on in the earlier run's folder where it may; returns whether it does."""
    run, root = origin.folder, Path(logger.root_dir).resolve()
    if origin.newest and logger._version is None and root == run.parent:
        logger._version = run.name
    same = Path(logger.log_dir).resolve() == run
    if same and isinstance(logger, TensorBoardLogger):
        logger._kwargs["purge_step"] = origin.step  # TensorBoard then hides what came after
    return same


@rank_zero_only
def _write(logger: CSVLogger, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as a logger's first ones."""
    target = Path(logger.log_dir, "metrics.csv")
    if target.is_file() and not _spare(target).is_file():
        # The logger deletes what it finds. If this process dies before the rows are back, the next
        # one finds them here.
        target.rename(_spare(target))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*exists and is not empty")
        writer = logger.experiment
    for row in rows:
        writer.log_metrics(row, step=row["step"])
    logger.save()
    _spare(target).unlink(missing_ok=True)


def _spare(path: Path) -> Path:
    return path.with_name(f"{path.name}.earlier")


def _rows(origin: Origin) -> Iterator[dict[str, Any]]:
    """What the earlier run logged before the checkpoint."""
    path = origin.folder / "metrics.csv"
    path = _spare(path) if _spare(path).is_file() else path
    if not path.is_file():
        return
    with path.open(newline="") as file:
        for texts in csv.DictReader(file):
            if None in texts.values():
                continue  # a kill may tear the last line
            row = {key: _number(value) for key, value in texts.items() if value}
            if row["step"] < origin.step:
                yield row


def _number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _load(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's content, without reading its tensors; nothing where it is of another kind."""
    try:
        state = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError):
        return {}
    return state if isinstance(state, dict) else {}
