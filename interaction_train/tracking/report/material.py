"""What a run's folder holds, joined with the runs that it was resumed from; names in words."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from interaction_train.tracking.history import read_history

STARTS = "starts.json"
_Rows = list[dict[str, Any]]
_FOLDERS = (".", "figures", "images", "tables")
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_WORDS = {
    "acc": "accuracy",
    "lr": "learning rate",
    "cross_entropy": "cross entropy",
    "gap": "generalisation gap",
    "interaction": "interactions",
    "robust_acc": "robust accuracy",
    "mean_abs": "mean |I|",
    "adv": "adversarial",
    "and": "AND",
    "or": "OR",
    "J": "J(m)",
    "D": "D(m)",
    "stderr": "standard error",
}


@dataclass(frozen=True)
class Series:
    """A logged metric: its values in the order of their steps."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A table, all cells as text; rows begin with what they are about."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    file: str = ""


class Run:
    """All that a report tells; series, epochs and starts with those of the runs it goes on with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder = folder.resolve()
        self.name = f"{folder.parent.name} / {folder.name}"
        rows, self.starts = _lineage(folder, math.inf, set())
        self.series, epochs = defaultdict[str, Series](Series), set()
        for row in rows:
            step, epoch = row.pop("step", None), row.pop("epoch", None)
            for key, value in row.items():
                if key.startswith("train/") and epoch is not None:
                    epochs.add(epoch)
                self.series[key].steps.append(int(step or 0))
                self.series[key].values.append(value)
        self.epochs = len(epochs)
        self.tables, self.figures = list(_tables(folder)), _figures(folder)
        configs = sorted(folder.glob("config*.yaml"))
        self.configs = {path.name: path.read_text(encoding="utf-8") for path in configs}


def _lineage(folder: Path, before: float, seen: set[Path]) -> tuple[_Rows, _Rows]:
    """Rows and starts of a run up to a step, the runs it was resumed from first; later runs win."""
    if folder in seen:
        return [], []
    path = folder / STARTS
    starts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    origin = next((s["resumed_from"] for s in starts if s.get("resumed_from")), None)
    rows, earlier = _Rows(), _Rows()
    if origin is not None:
        rows, earlier = _lineage(Path(origin["folder"]), origin["step"], seen | {folder})
    own = [row for row in read_history(folder) if (row.get("step") or 0) < before]
    return rows + own, earlier + starts


def _found(folder: Path, suffix: str) -> list[Path]:
    return [path for part in _FOLDERS for path in sorted((folder / part).glob(f"*.{suffix}"))]


def _figures(folder: Path) -> list[Path]:
    """The figures, those that show the same once."""
    found: dict[object, Path] = {}
    for path in _found(folder, "png"):
        with Image.open(path) as image:
            found.setdefault((image.size, image.convert("RGB").tobytes()), path)
    return list(found.values())


def _tables(folder: Path) -> Iterator[Table]:
    for path in _found(folder, "json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and (rows := list(_facts(content))):
            yield Table(words(path.stem), ["", "value"], rows, path.name)
    for path in _found(folder, "csv"):
        with suppress(pd.errors.EmptyDataError):
            if path.name != "metrics.csv":  # it is drawn
                frame = pd.read_csv(path, dtype=str, keep_default_na=False)
                rows = frame.map(number).to_numpy().tolist()
                yield Table(words(path.stem), list(frame.columns), rows, path.name)


def _facts(content: dict[str, Any]) -> Iterator[list[str]]:
    """The single values of a JSON object; its lists have files of their own."""
    for key, value in content.items():
        if isinstance(value, dict) and set(value) == {"value", "stderr"}:
            if not isinstance(value["value"], list):
                yield [words(key), f"{number(value['value'])} ± {number(value['stderr'])}"]
        elif isinstance(value, str | int | float | bool):
            yield [words(key), number(value)]


def number(value: Any) -> str:
    """A number as a reader wants it, four digits and no more; anything else as text."""
    try:
        size = float(value)
    except ValueError:
        return str(value)
    if isinstance(value, bool):
        return str(value)
    whole = math.isfinite(size) and size == int(size) and abs(size) < 1e6
    return str(int(size)) if whole else f"{size:.4g}"


def words(key: str) -> str:
    """A metric's key, or a file's name, in words.

    Examples:
        >>> words("val/robust_acc/PGD"), words("train/loss"), words("test/interaction/mean_abs")
        ('Robust accuracy, PGD (validation)', 'Loss (training)', 'Interactions, mean |I| (test)')
        >>> words("val_interaction_spectrum")
        'Interaction spectrum (validation)'
    """
    split, _, rest = key.partition("/" if "/" in key else "_")
    parts = (rest if split in _SPLITS and rest else key).split("/")
    told = [_WORDS.get(part, part.replace("_", " ").strip()) for part in parts if part]
    text = ", ".join(told) or key
    text = text[:1].upper() + text[1:]
    return f"{text} ({_SPLITS[split]})" if split in _SPLITS and rest else text
