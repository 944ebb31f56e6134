"""What is measured now and then, and what of Lightning watches it after every validation."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_warn

from interaction_train.errors import InputError


def check_fit(trainer: Any, callback: str, begin: tuple[str, ...], every: int) -> None:
    """Say at the start of ``fit`` what does not go with measuring at every k-th validation.

    Args:
        trainer: the trainer.
        callback: the measuring callback.
        begin: what its keys begin with.
        every: k.

    Raises:
        InputError: a checkpoint, a strict early stop or a strict scheduler needs its values after
            every validation.
    """
    if every == 1 or trainer.fast_dev_run:
        return
    watching = [(type(c).__name__, c) for c in trainer.callbacks]
    watching += [("lr_scheduler", config) for config in trainer.lr_scheduler_configs]
    for name, watcher in watching:
        key = getattr(watcher, "monitor", None)
        if not isinstance(key, str) or not key.startswith(begin):
            continue
        if getattr(watcher, "strict", True):
            lenient = ", or strict=False there" if hasattr(watcher, "strict") else ""
            expected = f"1, as {name} watches {key!r} after every validation{lenient}"
            raise InputError("every", f"{every} for {callback}", expected)
        if isinstance(watcher, EarlyStopping):
            rank_zero_warn(
                f"{name} watches {key!r}, which {callback} measures at every {every}th validation: "
                f"its patience of {watcher.patience} counts measurements."
            )
    runs = max(1, trainer.max_epochs or 0) // (trainer.check_val_every_n_epoch or 1)
    if isinstance(trainer.val_check_interval, float):
        runs = int(runs / trainer.val_check_interval)
    if 1 < runs <= every:
        rank_zero_warn(
            f"{callback} measures once in this run, after the first of {runs} validations: "
            f"every={every}."
        )


def forget(trainer: L.Trainer, begin: tuple[str, ...]) -> None:
    """Take earlier measurements out of ``trainer.callback_metrics``, where they would look new."""
    metrics = trainer.callback_metrics
    for key in [key for key in metrics if key.startswith(begin)]:
        del metrics[key]
