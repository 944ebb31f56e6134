"""What a monitor tells of groups of samples: by name, as a table, rows and curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from rich.table import Column, Table

from interaction_train.callbacks.monitor import Result, with_error
from interaction_train.errors import InputError
from interaction_train.metrics.groups import Groups, checked_groups, split_groups
from interaction_train.metrics.rows import Statistics


def fixed_names(groups: Groups | None, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of groups 0, 1, …, where they are known before a sample is seen; else none.

    Raises:
        InputError: no groups of a monitor, names without groups, or names that cannot be in keys.
    """
    checked_groups(groups, ("label", "correct"))
    if names is None:
        return ("wrong", "right") if groups == "correct" else ()
    if groups is None:
        raise InputError("group_names", names, "none without groups")
    listed = names if isinstance(names, list | tuple) else ()
    good = all(isinstance(name, str) and name and "/" not in name for name in listed)
    if not listed or not good or len(set(listed)) < len(listed):
        raise InputError("group_names", repr(names), "a list of different ones without '/'")
    if groups == "correct" and len(listed) != 2:
        raise InputError("group_names", list(listed), "two, of wrong samples and of right ones")
    return tuple(listed)


def plain_results(found: Statistics, names: Sequence[str]) -> Result:
    """What a metric found, as plain numbers and lists, with ``groups``: name → the group's result.

    Where names are fixed all are there, without samples as NaN; else those that came, by their ids.

    Raises:
        InputError: an id that has no name.
    """
    if "groups" not in found:
        return _plain(found)
    whole = {key: value for key, value in found.items() if not key.startswith("group")}
    groups = split_groups(found)
    if not names:
        told = {str(group): _plain(one) for group, one in groups.items()}
        return {**_plain(whole), "groups": told}
    if unnamed := [group for group in groups if not 0 <= group < len(names)]:
        raise InputError("group_names", f"group {unnamed[0]}", f"names of 0 … {len(names) - 1}")
    begin = "group_"
    some = next(iter(groups.values()), None) or {  # without any group tensors are (0, ...)
        key.removeprefix(begin): value.sum(0) for key, value in found.items() if begin in key
    }
    none = {
        key: torch.full_like(value, torch.nan, dtype=torch.double) for key, value in some.items()
    }
    none["samples"] = torch.tensor(0)
    told = {name: _plain(groups.get(k, none)) for k, name in enumerate(names)}
    return {**_plain(whole), "groups": told}


def _plain(found: Statistics) -> Result:
    def one_number(key: str) -> bool:
        return key == "samples" or key.startswith("flexibility")

    return {
        key: (value if one_number(key) else value.reshape(-1)).tolist()
        for key, value in found.items()
    }


def group_keys(result: Result, letter: str, reading: str) -> Iterator[tuple[str, float]]:
    """What is logged of groups with fixed names: the rest of a key, and its value."""
    columns = {letter: f"{letter}_{reading}", f"{letter}_stderr": f"{letter}_{reading}_stderr"}
    for name, told in result["groups"].items():
        for key, column in columns.items():
            for ratio, value in zip(result["ratios"], told[column], strict=True):
                yield f"group/{name}/{key}/{ratio:g}", value
        for key in ("flexibility", "flexibility_stderr"):
            if key in told:
                yield f"group/{name}/{key}", told[key]


def group_table(result: Result, key: str, title: str) -> Table:
    """A row for each group: samples, flexibility, and one reading at every order."""
    flexible = any("flexibility" in told for told in result["groups"].values())
    orders = [Column(f"m {m}", justify="right") for m in result["orders"]]
    counts = [Column(name, justify="right") for name in ("samples", "flexibility")[: 1 + flexible]]
    table = Table("group", *counts, *orders, title=title)
    for name, told in result["groups"].items():
        cells = [name, str(told["samples"])]
        if flexible:
            cells.append(with_error(told["flexibility"], told["flexibility_stderr"]))
        table.add_row(*cells, *map(with_error, told[key], told[f"{key}_stderr"]))
    return table


def group_rows(result: Result) -> list[Iterable[Any]]:
    """A row for each group and order, the columns' names first."""
    groups = result["groups"]
    told: Result = next(iter(groups.values()), {})
    listed = [key for key, value in told.items() if isinstance(value, list)]
    single = [key for key in told if key not in listed]
    rows: list[Iterable[Any]] = [["group", *single, "orders", "ratios", *listed]]
    for name, one in groups.items():
        for k, places in enumerate(zip(result["orders"], result["ratios"], strict=True)):
            rows.append(
                [name, *(one[key] for key in single), *places, *(one[c][k] for c in listed)]
            )
    return rows


def group_curves(result: Result, key: str) -> dict[str, dict[str, Any]]:
    """Curves of the figure, by the groups' names."""
    return {
        f"{name} ({told['samples']})": {
            "orders": result["orders"], "value": told[key], "stderr": told[f"{key}_stderr"]
        }
        for name, told in result["groups"].items()
    }  # fmt: skip
