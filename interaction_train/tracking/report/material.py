"""What a run's folder holds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

STARTS = "starts.json"
_FOLDERS = (".", "figures", "images", "tables")


@dataclass(frozen=True)
class Series:
    """A logged metric: its values in the order of their steps."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Table:
    """A table, all cells as text."""

    name: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Run:
    """All that a report tells.

    Attributes:
        name: the run's name and version.
        folder: its folder.
        series: metric → its values.
        epochs: number of epochs trained.
        tables: tables, from CSV and JSON files.
        figures: PNG files.
        configs: file name → text of the configurations, the newest first.
        starts: one entry for each time that the run was started, as ``RunReport`` records them.
    """

    name: str
    folder: Path
    series: dict[str, Series] = field(default_factory=dict)
    epochs: int = 0
    tables: list[Table] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)
    configs: dict[str, str] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """Read a run's folder."""
    folder = folder.resolve()
    series, epochs = _metrics(folder / "metrics.csv")
    configs = sorted(folder.glob("config*.yaml"), key=lambda path: path.stat().st_mtime)
    starts = folder / STARTS
    return Run(
        name=f"{folder.parent.name} / {folder.name}",
        folder=folder,
        series=series,
        epochs=epochs,
        tables=list(_tables(folder)),
        figures=list(_figures(folder)),
        configs={path.name: path.read_text(encoding="utf-8") for path in reversed(configs)},
        starts=json.loads(starts.read_text(encoding="utf-8")) if starts.is_file() else [],
    )


def number(value: float) -> str:
    """A number as a reader wants it: four digits, no more."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"


def _metrics(path: Path) -> tuple[dict[str, Series], int]:
    found: dict[str, Series] = {}
    epochs = set()
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                step = int(row.pop("step"))
                epoch = row.pop("epoch", "")
                for key, text in row.items():
                    if text:
                        if key.startswith("train/"):
                            epochs.add(epoch)
                        series = found.setdefault(key, Series([], []))
                        series.steps.append(step)
                        series.values.append(float(text))
    return found, len(epochs - {"", None})


def _found(folder: Path, suffix: str) -> list[Path]:
    return [path for part in _FOLDERS for path in sorted((folder / part).glob(f"*.{suffix}"))]


def _figures(folder: Path) -> Iterator[Path]:
    """The figures, those that show the same once."""
    seen = set()
    for path in _found(folder, "png"):
        with Image.open(path) as image:
            shown = image.size, image.convert("RGB").tobytes()
        if shown not in seen:
            seen.add(shown)
            yield path


def _tables(folder: Path) -> Iterator[Table]:
    for path in _found(folder, "json"):
        if path.name != STARTS:
            rows = list(_facts(json.loads(path.read_text(encoding="utf-8"))))
            if rows:
                yield Table(path.name, ["", "value"], rows)
    for path in _found(folder, "csv"):
        if path.name != "metrics.csv":
            with path.open(newline="", encoding="utf-8") as file:
                columns, *rows = list(csv.reader(file)) or [[]]
            if columns:
                yield Table(path.name, columns, [[_short(cell) for cell in row] for row in rows])


def _facts(content: Any) -> Iterator[list[str]]:
    """The single values of a JSON object; its lists have files of their own."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, dict) and set(value) == {"value", "stderr"}:
            if not isinstance(value["value"], list):
                yield [key, f"{_short(value['value'])} ± {_short(value['stderr'])}"]
        elif isinstance(value, str | int | float | bool):
            yield [key, _short(value)]


def _short(value: Any) -> str:
    try:
        return number(float(value)) if not isinstance(value, bool) else str(value)
    except ValueError:
        return str(value)
