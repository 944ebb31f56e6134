"""The folder that a run's files go into, with a logger or without."""

from __future__ import annotations

from pathlib import Path
from weakref import WeakKeyDictionary

import lightning as L

_without_logger: WeakKeyDictionary[L.Trainer, Path] = WeakKeyDictionary()


def run_folder(trainer: L.Trainer) -> Path | None:
    """The folder of a trainer's run, the same on every process. Call it on all of them.

    The logger's folder; without a logger ``runs/version_<k>`` under ``default_root_dir``, the first
    that does not exist yet, made once for each trainer. So two runs never share a folder.

    Args:
        trainer: with its strategy set up, as in every callback's hooks.

    Returns:
        the folder; None for ``fast_dev_run``, which leaves nothing.
    """
    if getattr(trainer, "fast_dev_run", False):
        return None
    if trainer.loggers:
        folder = trainer.log_dir  # rank 0 tells the others
        return Path(folder) if folder else None
    if trainer not in _without_logger:
        made = str(_new_folder(Path(trainer.default_root_dir))) if trainer.is_global_zero else ""
        _without_logger[trainer] = Path(trainer.strategy.broadcast(made))
    return _without_logger[trainer]


def _new_folder(root: Path) -> Path:
    number = 0
    while True:
        folder = root / "runs" / f"version_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
