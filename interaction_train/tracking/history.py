"""What a run logged, in ``history.jsonl`` in its folder, whatever other loggers it has.

A line of JSON is written at once each time that metrics are logged, with ``step``, ``epoch`` where
it is known, and the metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

HISTORY = "history.jsonl"


class History(Logger):
    """A logger that appends metrics to ``history.jsonl`` in a run's folder."""

    name = "history"
    version = ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / HISTORY

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration has a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        row: dict[str, float | None] = {"step": step}
        for key, value in metrics.items():
            with suppress(TypeError, ValueError):  # tables and the like
                row[key] = float(value)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file of which no one ever sees half, into a folder that is made if need be.

    An OSError names the file, also of a full disk, where what could be written of it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        return draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        error.filename = str(path)
        raise


def read_history(folder: Path) -> Iterator[dict[str, float]]:
    """The rows of the history in a run's folder; a line that a kill has torn is left out."""
    path = folder / HISTORY
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        with suppress(json.JSONDecodeError):
            yield json.loads(line)
