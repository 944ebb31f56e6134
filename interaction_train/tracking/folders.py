"""Where a run's files go."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from weakref import WeakKeyDictionary

import lightning as L

_FOLDERS: WeakKeyDictionary[L.Trainer, str] = WeakKeyDictionary()  # of runs without a logger


def run_folder(trainer: L.Trainer) -> Path | None:
    """The logger's folder, else the first free ``results_<k>`` in ``default_root_dir``.

    To be called on every process, as the first one tells the others; None in a fast development
    run, which leaves no files.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    if trainer.loggers:
        return None if trainer.log_dir is None else Path(trainer.log_dir)
    if trainer not in _FOLDERS:
        root = Path(trainer.default_root_dir)
        free = next(path for k in count() if not (path := root / f"results_{k}").exists())
        _FOLDERS[trainer] = trainer.strategy.broadcast(str(free))
    return Path(_FOLDERS[trainer])
