"""What a run logged, in a small file of its own that any report can read.

``history.jsonl`` in the run's folder has a line of JSON for each time that metrics were logged, in
their order: ``step``, ``epoch`` where it is known, and the metrics. Whatever loggers a run has,
and when it is killed, the lines up to then are there.
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
    """A logger that appends metrics to ``history.jsonl``.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / HISTORY

    @property
    def name(self) -> str:
        return "history"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration has a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        numbers = {key: _number(value) for key, value in metrics.items()}
        row = {"step": step, **{key: value for key, value in numbers.items() if value is not None}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _number(value: Any) -> float | None:
    """A metric's value; None for tables and the like."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def read_history(folder: Path) -> Iterator[dict[str, float]]:
    """The rows of a run's history; a line that a kill has torn is left out.

    Args:
        folder: the run's folder.
    """
    path = folder / HISTORY
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        with suppress(json.JSONDecodeError):
            yield json.loads(line)
