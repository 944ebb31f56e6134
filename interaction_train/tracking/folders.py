"""Where a run's files go."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import lightning as L


def run_folder(trainer: L.Trainer) -> Path | None:
    """The logger's folder, else the first free ``results_<k>`` in ``default_root_dir``.

    To be called on every process, as the first one tells the others; None in a fast development
    run, which leaves no files.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    if trainer.loggers:
        folder = trainer.log_dir
    else:
        root = Path(trainer.default_root_dir)
        folder = next(str(path) for k in count() if not (path := root / f"results_{k}").exists())
        folder = trainer.strategy.broadcast(folder)
    return Path(folder) if folder else None
