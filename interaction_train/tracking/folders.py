"""Where a run keeps its files."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path
from weakref import WeakKeyDictionary

import lightning as L
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

_found: WeakKeyDictionary[L.Trainer, Path] = WeakKeyDictionary()


def run_folder(trainer: L.Trainer) -> Path | None:
    """The folder of a trainer's run, the same on every process; call it on all of them.

    That of the logger that writes files (CSV before TensorBoard), else the first logger's
    ``<save_dir>/<name>/<version>``, as ``ModelCheckpoint`` has it; without any logger a fresh
    ``<default_root_dir>/results_<k>``. It may not exist yet; None for ``fast_dev_run``.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    if trainer not in _found:
        folder = _own_folder(trainer) if trainer.is_global_zero else None
        _found[trainer] = Path(trainer.strategy.broadcast(str(folder)))
    return _found[trainer]


def _own_folder(trainer: L.Trainer) -> Path:
    for kind in (CSVLogger, TensorBoardLogger):
        for logger in trainer.loggers:
            if isinstance(logger, kind):
                return Path(logger.log_dir)
    for logger in trainer.loggers:
        _ = getattr(logger, "experiment", None)  # W&B knows its run's id from here on
        version = logger.version
        named = version if isinstance(version, str) else f"version_{version}"
        return Path(logger.save_dir or trainer.default_root_dir, str(logger.name), named)
    for number in count():
        folder = Path(trainer.default_root_dir, f"results_{number}")
        with suppress(FileExistsError):  # made at once, so that no other run takes it
            folder.mkdir(parents=True)
            return folder
    raise AssertionError
