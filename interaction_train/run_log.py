"""The CSV log of a run, which a resumed run goes on with."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor


@rank_zero_only
def continue_log(logger: CSVLogger, checkpoint: Path) -> None:
    """Begin a resumed run's ``metrics.csv`` with the rows of the run that it goes on with.

    What the earlier run logged after the checkpoint was written is left out, since the resumed run
    logs it again. The earlier run's own file stays as it is. Nothing happens where no
    ``metrics.csv`` lies beside the checkpoint's folder.

    Args:
        logger: the resumed run's logger.
        checkpoint: ``<run>/checkpoints/<name>.ckpt``.
    """
    earlier = checkpoint.resolve().parent.parent / "metrics.csv"
    if not earlier.is_file():
        return
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    with earlier.open(newline="") as file:
        for row in csv.DictReader(file):
            if int(row["step"]) < state["global_step"]:
                metrics: dict[str, Tensor | float] = {
                    key: float(value) for key, value in row.items() if value
                }
                logger.log_metrics(metrics, step=int(row["step"]))
    logger.save()
