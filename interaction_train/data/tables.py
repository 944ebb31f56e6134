"""The data module for rows of columns with labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor

from interaction_train.data.frames import (
    class_numbers,
    classes_of,
    need_columns,
    no_files_beside,
    read_frames,
)
from interaction_train.data.keyed import KeyedPart
from interaction_train.data.parts import PartsDataModule
from interaction_train.data.sources import Split
from interaction_train.errors import InputError

BUNCHES = ("breast_cancer", "wine", "iris")
_MOST_CATEGORIES = 64
_UNNAMED = "Unnamed: "  # pandas' name, with a number
_LARGEST = float(np.finfo("float32").max)
_KEPT = ("feature_names", "class_names")


@dataclass(eq=False)
class TablePart(KeyedPart):
    """Rows float32 ``(B, F)``."""

    rows: Tensor
    labels: Tensor

    def inputs(self, places: Tensor, epochs: Tensor | None) -> Tensor:
        return self.rows[places]


@dataclass(eq=False)
class TableDataModule(PartsDataModule):
    """Batches ``(x, y)``: x float32 ``(B, F)`` on the columns' own scales, y int64 ``(B,)``.

    A column of strings becomes a column of 0 and 1 for each of its values.

    Args:
        source: breast_cancer, wine or iris (of scikit-learn), or a csv, tsv or jsonl file.
        val: a file with the validation rows; default: split off, stratified by class.
        test: a file with the test rows; default: split off likewise.
        label: a file's column of the labels, integers or strings, numbered in sorted order.
        columns: the columns that are used; default: all but the label.
        batch_size: rows per batch and process.
        val_fraction: part of the training rows held out for validation, without ``val``.
        test_fraction: part of all rows that is the test set, without ``test``.
        train_fraction: part of the remaining training rows that is used, stratified too.
        seed: of the order; the splits are always the same.
        num_workers: processes that load data beside the main one.
        predict_split: the part that ``predict`` goes over, in order.

    After ``setup()``: ``parts``; ``feature_names`` of the F columns of x; ``groups``, each column
    of the file with its columns of x, as ``FeaturePlayers`` takes them; ``feature_mean`` and
    ``feature_std`` ``(F,)`` of the training rows (a std of 1 for a constant); ``class_names``,
    ``num_classes``.

    Raises:
        InputError: an argument out of its range; at ``setup()`` an unreadable file, a missing
            column, missing values, a column that is neither, a value or a label that training has
            not, or a checkpoint of another table.
    """

    source: str | Path
    val: str | Path | None = None
    test: str | Path | None = None
    label: str = "label"
    columns: Sequence[str] | None = None
    batch_size: int = 32
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    train_fraction: float = 1.0
    seed: int = 0
    num_workers: int = 0
    predict_split: Split = "test"
    parts: dict[Split, TablePart] = field(default_factory=dict, init=False, repr=False)
    class_names: tuple[str, ...] = field(default=(), init=False)
    feature_names: tuple[str, ...] = field(default=(), init=False)
    groups: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False)
    feature_mean: Tensor | None = field(default=None, init=False, repr=False)
    feature_std: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in BUNCHES and not os.path.isfile(self.source):
            expected = f"one of {', '.join(BUNCHES)}, or an existing file"
            raise InputError("source", repr(str(self.source)), expected)
        no_files_beside(self.source, BUNCHES, val=self.val, test=self.test)

    @property
    def num_classes(self) -> int | None:
        """None before ``setup()``."""
        return len(self.class_names) or None

    def setup(self, stage: str | None = None) -> None:
        """Read everything, once."""
        if self.parts:
            return
        names: tuple[str, ...] = ()
        if self.source in BUNCHES:
            frames, names = _bunch(str(self.source), self.label)
        else:
            frames = read_frames(self.source, self.val, self.test)
        train = frames["train"]
        need_columns(train, "train", label=self.label)
        columns = self._chosen(train)
        for name, frame in frames.items():
            need_columns(frame, name, label=self.label)
            for column in columns:
                need_columns(frame, name, columns=column)
                _check_values(frame[column], name)
        categories = [_categories(train[column]) for column in columns]
        widths = [1 if values is None else len(values) for values in categories]
        places = iter(range(sum(widths)))
        self.groups = {
            column: list(islice(places, width))
            for column, width in zip(columns, widths, strict=True)
        }
        self.feature_names = tuple(
            name if value is None else f"{name}={value}"
            for name, values in zip(columns, categories, strict=True)
            for value in ([None] if values is None else values)
        )
        classes = classes_of(train[self.label])
        self.class_names = names or classes
        rows, labels = dict[Split, Tensor](), dict[Split, Tensor]()
        for name, frame in frames.items():
            known = zip(columns, categories, strict=True)
            rows[name] = torch.cat([_features(frame[c], values, name) for c, values in known], 1)
            labels[name] = class_numbers(frame[self.label], classes, name)
        self.parts = {
            name: TablePart(rows[file][index], labels[file][index])
            for name, (file, index) in self.divide(labels).items()
        }
        std, self.feature_mean = torch.std_mean(self.parts["train"].rows, 0, correction=0)
        self.feature_std = torch.where(std > 0, std, 1.0)

    def _chosen(self, train: pd.DataFrame) -> list[str]:
        """The columns that are used."""
        columns = list(self.columns or train.columns.drop(self.label))
        if not columns or len(set(columns)) < len(columns) or self.label in columns:
            got, expected = ", ".join(map(str, columns)), f"others than {self.label!r}, each once"
            raise InputError("columns", got or "none", expected)
        unnamed = [name for name in columns if str(name).startswith(_UNNAMED)]
        if unnamed and not self.columns:  # such as row numbers, which tell labels in sorted files
            expected = "one in the file's first line, or columns, those that are used"
            raise InputError(f"column {unnamed[0]!r}", "no name", expected)
        return columns

    def state_dict(self) -> dict[str, Any]:
        return {name: list(getattr(self, name)) for name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.setup()
        for name in _KEPT:
            own = list(getattr(self, name))
            if own != state_dict[name]:
                expected = f"those of the checkpoint: {', '.join(state_dict[name])}"
                raise InputError(name, ", ".join(own), expected)


def _bunch(name: str, label: str) -> tuple[dict[Split, pd.DataFrame], tuple[str, ...]]:
    """scikit-learn's rows, and the names of its classes."""
    bunch: Any = getattr(datasets, f"load_{name}")(as_frame=True)
    if label in bunch.feature_names:
        raise InputError("label", repr(label), f"no column of {name}, whose labels have no name")
    frame = bunch.frame.rename(columns={"target": label})
    return {"train": frame}, tuple(map(str, bunch.target_names))


def _check_values(column: pd.Series, part: str) -> None:
    numeric = pd.api.types.is_numeric_dtype(column)
    missing = int((column.isna() | (column.abs() > _LARGEST if numeric else False)).sum())
    if missing:
        got = f"{missing} missing or infinite values of {len(column)} in the {part} file"
        raise InputError(f"column {column.name!r}", got, "none: fill them in, or leave it out")


def _categories(column: pd.Series) -> list[str] | None:
    """The values of a column of strings, sorted; None for numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return None
    values = sorted(set(column.astype(str)))
    if len(values) > _MOST_CATEGORIES:
        expected = f"numbers, or at most {_MOST_CATEGORIES} values; name others in columns"
        raise InputError(f"column {column.name!r}", f"{len(values)} different strings", expected)
    return values


def _features(column: pd.Series, categories: list[str] | None, part: str) -> Tensor:
    """float32 ``(N, 1)``, or ``(N, values)`` of 0 and 1."""
    argument = f"column {column.name!r}"
    if categories is None:
        if not pd.api.types.is_numeric_dtype(column):
            raise InputError(argument, f"strings in the {part} file", "numbers, as in training")
        return torch.from_numpy(column.to_numpy("float32")).unsqueeze(1)
    codes = pd.Index(categories).get_indexer(column.astype(str))
    if (unknown := np.flatnonzero(codes < 0)).size:
        got = f"{column.iloc[unknown[0]]!r} in the {part} file"
        raise InputError(argument, got, f"a value that training has: {', '.join(categories)}")
    return F.one_hot(torch.from_numpy(codes), len(categories)).float()
