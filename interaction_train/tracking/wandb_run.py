"""What a W&B run knows of its run besides curves, and how a resumed run goes on with it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from wandb.proto import wandb_internal_pb2

from interaction_train.tracking.provenance import command_line, versions

_protocol: Any = wandb_internal_pb2  # generated, without types
_STEP = "trainer/global_step"
_HEADER = 7  # bytes before the first record of W&B's file, and of every record
_BLOCK = 32768
_SUMMARIES = {
    "train/loss": "min",
    "val/loss": "min",
    "val/acc": "max",
    "val/gap/acc": "min",
    "val/robust_acc/*": "max",
}


class Mark(TypedDict):
    """A :class:`WandbMark` as a checkpoint holds it."""

    id: str
    rows: int


@dataclass(frozen=True)
class WandbMark:
    """A W&B run and how far its log was.

    Attributes:
        id: the run's id.
        rows: rows of history that it had.
    """

    id: str
    rows: int


@rank_zero_only
def describe(logger: WandbLogger, config: Mapping[str, Any]) -> None:
    """Tell a W&B run where it comes from, and which of its values sum it up.

    Its config gets ``config`` (the resolved YAML), ``versions`` and ``command``; its summary the
    best and the last value of losses and accuracies.

    Args:
        logger: the logger; nothing happens where W&B is disabled.
        config: the resolved configuration.
    """
    run: Any = logger.experiment
    known = {"config": dict(config), "versions": versions(), "command": command_line()}
    run.config.update(known, allow_val_change=True)
    for key, best in _SUMMARIES.items():
        run.define_metric(key, summary=f"{best},last", step_metric=_STEP, step_sync=True)


def wandb_mark(logger: WandbLogger) -> Mark | None:
    """The run of a logger and how far it is, as plain data for a checkpoint."""
    run: Any = logger._experiment
    return None if run is None else {"id": run.id, "rows": run.step}


def continue_wandb(
    logger: WandbLogger, mark: WandbMark, step: int, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Make a logger go on with the W&B run of a checkpoint. Call it on every process.

    An offline run goes on in a folder of its own with the same id; ``wandb sync`` joins the two.
    What the earlier folder holds from after the checkpoint is cut off, since it is logged again;
    what W&B had not written when the run was killed is made up for. (An online run has sent its
    rows: those after the checkpoint are there twice.)

    Args:
        logger: a logger that has no run yet; one with an id of its own keeps it.
        mark: of the checkpoint.
        step: optimizer steps done at the checkpoint.
        rows: the metrics that the run logged before the checkpoint, each with its ``step``.
    """
    if logger._experiment is not None or logger._id not in (None, mark.id):
        return
    logger._id = logger._wandb_init["id"] = mark.id
    if logger._offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        _continue_offline(logger, mark, step, rows)


@rank_zero_only
def _continue_offline(
    logger: WandbLogger, mark: WandbMark, step: int, rows: Iterable[Mapping[str, Any]]
) -> None:
    files = Path(logger.save_dir or ".", "wandb").glob(f"offline-run-*-{mark.id}/run-*.wandb")
    known = [row for path in sorted(files) for row in _rewind(path, mark, step)]
    seen = {_signature(row, row[_STEP]) for row in known if _STEP in row}
    run: Any = logger.experiment
    run.log({}, step=max((row["_step"] for row in known), default=-1) + 1)  # rows count on
    for row in rows:
        if _signature(row, row["step"]) not in seen:
            metrics = {key: value for key, value in row.items() if key != "step"}
            logger.log_metrics(metrics, step=row["step"])
    if run.step < mark.rows:
        run.log({}, step=mark.rows)


def _signature(row: Mapping[str, Any], step: int) -> tuple[int, frozenset[str]]:
    """What tells a row from others: its step and the metrics in it."""
    return int(step), frozenset(key for key in row if key not in ("step", _STEP) and key[0] != "_")


def _rewind(path: Path, mark: WandbMark, step: int) -> list[dict[str, Any]]:
    """Cut an offline file off after a checkpoint; returns the rows that stay in it."""
    synced = path.with_suffix(".wandb.synced").exists()  # then W&B has it all, and cutting is idle
    rows = []
    for start, data in _records(path.read_bytes()):
        record: Any = _protocol.Record()
        record.ParseFromString(data)
        if not record.HasField("history"):
            continue
        items = record.history.item
        row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
        if row.get(_STEP, -1) >= step and row["_step"] >= mark.rows and not synced:
            os.truncate(path, start)  # as if the run had been killed here
            break
        rows.append(row)
    return rows


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each record of a LevelDB log starts, and its content."""
    at, start, record = _HEADER, _HEADER, b""
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + _HEADER])
        if at + _HEADER + length > len(data):
            return  # torn by a kill
        if not record:
            start = at
        record += data[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield start, record
            record = b""
