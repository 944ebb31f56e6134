"""Files of rows and columns, read by pandas and checked."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interaction_train.data.sources import Split
from interaction_train.errors import InputError, reason

_SUFFIXES = (".csv", ".tsv", ".jsonl")


def read_frames(
    source: str | Path, val: str | Path | None, test: str | Path | None, text: str | None = None
) -> dict[Split, pd.DataFrame]:
    """The files there are, with the training samples' as "train"; see :func:`read_frame`."""
    files: dict[Split, str | Path | None] = {"train": source, "val": val, "test": test}
    return {
        part: read_frame("source" if part == "train" else part, str(path), text)
        for part, path in files.items()
        if path is not None
    }


def read_frame(argument: str, path: str, text: str | None = None) -> pd.DataFrame:
    """A file's rows, at least one.

    A csv may quote its fields; in a tsv, as those of GLUE, a quotation mark is a character.

    Args:
        argument: named by errors.
        path: csv, tsv or jsonl (an object a line) with named columns.
        text: column that is read as it is written, and in which nothing is missing.

    Raises:
        InputError: another kind of file, or one that cannot be read.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _SUFFIXES:
        raise InputError(argument, repr(path), f"a file that ends in {', '.join(_SUFFIXES)}")
    try:
        if suffix == ".jsonl":
            frame = pd.read_json(path, lines=True, dtype=False)
        else:
            form: Any = {"sep": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}
            if text is not None:
                form |= {"dtype": {text: str}, "keep_default_na": False}
            with warnings.catch_warnings():  # of fields without a name, which would be lost
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(path, index_col=False, **form)
    except Exception as error:  # whatever a damaged file makes pandas raise
        expected = f"a readable {suffix[1:]} file ({reason(error)})"
        raise InputError(argument, repr(path), expected) from error
    if not len(frame):
        raise InputError(argument, f"{path!r} without rows", "at least one")
    return frame


def no_files_beside(source: str | Path, known: Sequence[str], **files: str | Path | None) -> None:
    """Refuse files of other parts beside a source that is packaged, whose parts are split off."""
    for part, path in files.items():
        if source in known and path is not None:
            raise InputError(part, repr(str(path)), f"none, as it is split off {source!r}")


def need_columns(frame: pd.DataFrame, part: Split, **columns: str) -> None:
    """Refuse a frame, of a part's file, that lacks columns (by their role)."""
    for role, name in columns.items():
        if name not in frame.columns:
            there = ", ".join(map(str, frame.columns))
            raise InputError(role, repr(name), f"a column of the {part} file: {there}")


def classes_of(column: pd.Series) -> tuple[str, ...]:
    """The labels of a column in sorted order; InputError for fewer than two, or what is none."""
    _check_labels(column)
    found = tuple(str(value) for value in sorted(column.unique()))
    if len(found) < 2:
        raise InputError("label", f"the one label {found[0]!r}", "at least two classes")
    return found


def class_numbers(column: pd.Series, classes: Sequence[str], part: Split) -> Tensor:
    """Labels as places among the classes, ``(N,)`` int64; InputError for one of another task."""
    _check_labels(column)
    numbers = pd.Index(classes).get_indexer(column.astype(str))
    if (unknown := np.flatnonzero(numbers < 0)).size:
        got = f"{str(column.iloc[unknown[0]])!r} in row {unknown[0] + 1} of the {part} file"
        names = ", ".join(map(repr, classes[:10])) + (", …" if len(classes) > 10 else "")
        raise InputError("label", got, f"a label that training has: {names}")
    return torch.from_numpy(numbers.astype(np.int64))


def _check_labels(column: pd.Series) -> None:
    empty = column.isna() | (column.astype(str).str.strip() == "")
    if empty.any():
        row = int(np.flatnonzero(empty)[0]) + 1
        raise InputError("label", f"no label in row {row}", "one in each")
    kinds = {type(value) for value in column}
    if len(kinds) > 1 or pd.api.types.is_float_dtype(column):
        got = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError("label", f"labels that are {got}", "integers or strings")
