"""Pieces that several tests, and processes started by tests, use."""

import json
import os
import re
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from wandb.proto import wandb_internal_pb2

from interaction_train.cli.main import main

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"-?\d+\.\d+|-?\d+")
BOX = re.compile("[\u2500-\u257f]+")  # the lines of tables


class KillAt(L.Callback):
    """Kills its own process, as a scheduler would, in the middle of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = epoch, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            for logger in trainer.loggers:
                logger.save()
            os.kill(os.getpid(), signal.SIGKILL)


def run_cli(*args: str) -> None:
    """Run the command line in this process, without progress bar."""
    main([*args, "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"])


def alike(shown: str, printed: str) -> bool:
    """Equal words; numbers as far apart as another machine may round, or train, them."""
    words = [NUMBER.sub("#", BOX.sub(" ", text)).split() for text in (shown, printed)]
    ours, theirs = ([float(n) for n in NUMBER.findall(text)] for text in (shown, printed))
    return words[0] == words[1] and theirs == pytest.approx(ours, rel=0.35, abs=0.1)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def colour_npz(path: Path, count: int = 60) -> Path:
    """Real images in CIFAR's format without a download: digits, enlarged to 32 x 32 x 3."""
    digits = load_digits()
    x = np.kron(digits.images * 15, np.ones((4, 4)))[:count, :, :, None].repeat(3, -1)
    x, y = x.astype(np.uint8), digits.target[:count].astype(np.int64)
    half = count * 2 // 3
    np.savez(path, x_train=x[:half], y_train=y[:half], x_test=x[half:], y_test=y[half:])
    return path


def wandb_history(path: Path, finished: bool = True) -> list[dict[str, str]]:
    """The history rows that W&B's offline writer put on disk, values as JSON text.

    The file of a run that was killed has no end to wait for: ``finished=False``.
    """
    records = _records(path, finished)
    histories = (record.history for record in records if record.HasField("history"))
    return [_texts(history.item) for history in histories]


def wandb_config(path: Path) -> dict[str, Any]:
    """The config of an offline run, as all its updates leave it."""
    config: dict[str, Any] = {}
    for record in _records(path):
        update = record.run.config if record.HasField("run") else record.config
        config |= {key: json.loads(value) for key, value in _texts(update.update).items()}
    return config


def wandb_summaries(path: Path) -> dict[str, set[str]]:
    """What an offline run's summary keeps of its metrics: key → some of min, max, last."""
    metrics = [record.metric for record in _records(path) if record.HasField("metric")]
    kinds = ("min", "max", "last")
    return {
        metric.name or metric.glob_name: {k for k in kinds if getattr(metric.summary, k)}
        for metric in metrics
    }


def _records(path: Path, finished: bool = True) -> list[Any]:
    """All records, once the last one is there: W&B's service writes after the run has ended."""
    records: list[Any] = []
    for _ in range(300):
        records = []
        for data in _log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            records.append(record)
        if not finished or any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.2)
    raise AssertionError(f"{path} has no end after a minute")


def _texts(items: Any) -> dict[str, str]:
    return {item.key or "/".join(item.nested_key): item.value_json for item in items}


def _log_records(data: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log (blocks of 32 KiB, 7 bytes of header) after W&B's own 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield record
            record = b""
