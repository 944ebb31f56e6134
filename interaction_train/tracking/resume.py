"""Going on with an earlier run: where it came from, and the same run in W&B.

A resumed run has a folder of its own, Lightning's next version. ``starts.json`` in it says what it
was resumed from, and the report joins the two (:mod:`~interaction_train.tracking.report`). In W&B
it is the same run: online its curves go on; offline there are two folders of one id, which
``wandb sync`` joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

_KEY = "interaction_train_run"  # in a checkpoint


class RunMark(L.Callback):
    """Writes into every checkpoint which W&B run it belongs to."""

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        runs = [x._experiment for x in trainer.loggers if isinstance(x, WandbLogger)]
        if trainer.is_global_zero and runs and runs[0] is not None:
            checkpoint[_KEY] = {"wandb": runs[0].id}


def continue_wandb(loggers: Iterable[object], checkpoint: Mapping[str, Any]) -> None:
    """Let W&B loggers go on with the run that a checkpoint, as ``torch.load`` reads it, belongs to.

    Call it on every process, before they have logged anything; those with another id keep it.
    """
    known = checkpoint.get(_KEY, {}).get("wandb")
    for logger in (x for x in loggers if isinstance(x, WandbLogger)):
        if known and logger._experiment is None and logger._id in (None, known):
            logger._id = known
            logger._wandb_init |= {"id": known, "resume": "allow"}
