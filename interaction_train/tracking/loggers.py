"""Figures, tables and images to whatever loggers a trainer has, through one call each.

| call | W&B | TensorBoard | CSV |
|---|---|---|---|
| :func:`log_figure` | image | image | ``figures/<key>.png`` in the run's folder, the latest |
| :func:`log_table` | table | text | ``tables/<key>.csv``, the latest |
| :func:`log_images` | images | images, captions as text | ``images/<key>.png``, the latest |

(A slash in the key becomes an underscore in a file's name.) Other loggers, and other processes
than the first, write nothing. ``step`` is the global step.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.tracking.figures import new_panels, save_figure, show_image
from interaction_train.tracking.style import DPI, styled


@rank_zero_only
def log_figure(loggers: Iterable[Logger], key: str, figure: Figure, step: int) -> None:
    """Send a figure, drawn once for all, to a trainer's loggers under a key at a global step."""
    with styled():
        figure.savefig(drawn := io.BytesIO(), dpi=DPI)
    image = Image.open(drawn).convert("RGB")
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, np.asarray(image), step, dataformats="HWC")
        elif isinstance(logger, CSVLogger):
            image.save(_file(logger, "figures", key, "png"))


@rank_zero_only
def log_table(
    loggers: Iterable[Logger],
    key: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    step: int,
) -> None:
    """Send a table to a trainer's loggers; rows of numbers, texts or booleans, one per column.

    Raises:
        InputError: a row of another length than ``columns``.
    """
    if any(len(row) != len(columns) for row in rows):
        lengths = sorted({len(row) for row in rows})
        raise InputError("rows", f"lengths {lengths}", f"{len(columns)} values, one per column")
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            data, mixed = [list(row) for row in rows], _mixed(rows)
            table: Any = wandb.Table(columns=list(columns), data=data, allow_mixed_types=mixed)
            logger.log_metrics({key: table}, step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(key, _markdown(columns, rows), step)
        elif isinstance(logger, CSVLogger):
            with _file(logger, "tables", key, "csv").open("w", newline="") as file:
                csv.writer(file).writerows([columns, *rows])


@rank_zero_only
def log_images(
    loggers: Iterable[Logger], key: str, images: Tensor, captions: Sequence[str], step: int
) -> None:
    """Send images ``(N, C, H, W)`` in [0, 1], one or three channels, with a caption each.

    Raises:
        InputError: images of another shape, or another number of captions.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        shape = tuple(images.shape)
        raise InputError("images", f"shape {shape}", "(N, C, H, W) with one or three channels")
    if len(captions) != len(images):
        raise InputError("captions", len(captions), f"{len(images)}, one per image")
    pixels = images.detach().float().clamp(0, 1).mul(255).round().byte()
    colour = pixels.movedim(1, -1).expand(-1, -1, -1, 3).cpu().numpy()
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, list(colour), step=step, caption=list(captions))
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_images(key, colour, step, dataformats="NHWC")
            text = _markdown(["image", "caption"], list(enumerate(captions)))
            logger.experiment.add_text(f"{key}/captions", text, step)
        elif isinstance(logger, CSVLogger):
            save_figure(_grid(colour, captions), _file(logger, "images", key, "png"))


def _file(logger: CSVLogger, folder: str, key: str, suffix: str) -> Path:
    _ = logger.experiment  # it claims the run's folder, and would warn of files that it finds there
    path = Path(logger.log_dir, folder, f"{key.strip('/').replace('/', '_')}.{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _mixed(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a column holds values of several kinds, which W&B refuses unless told."""
    kinds = ({type(v) for v in column if v is not None} for column in zip(*rows, strict=True))
    return any(len(found) > 1 and found != {int, float} for found in kinds)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    lines.insert(1, ["---"] * len(columns))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@styled()
def _grid(images: Any, captions: Sequence[str]) -> Figure:
    """Images ``(N, H, W, 3)`` side by side, each below its caption."""
    columns = min(8, math.ceil(len(images) ** 0.5))
    rows = math.ceil(len(images) / columns)
    figure, panels = new_panels(rows, columns, 1.5 * columns, 1.8 * rows)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, image, caption in zip(panels.flat, images, captions, strict=False):
        show_image(axes, image, caption)
    return figure
