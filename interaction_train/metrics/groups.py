"""Groups of samples: to which each belongs, and what a metric says of every group."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import torch
from torch import Tensor

from interaction_train.errors import InputError, one_of
from interaction_train.metrics.rows import Statistics

GroupFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
Groups = Literal["label", "correct", "given"] | GroupFunction
"""How samples are grouped: by their labels; wrong (0) against right (1); by ids that come with
them; or by a function of x ``(B, ...)``, labels ``(B,)`` and logits ``(B, classes)`` → ids."""
_NAMED = ("label", "correct", "given")


def checked_groups(groups: Groups | None, named: Collection[str] = _NAMED) -> Groups | None:
    """Groups, if they are None, a function or one of the names; else InputError."""
    if groups is not None and not callable(groups):
        one_of("groups", groups, named)
    return groups


def group_ids(groups: Groups, x: Tensor, y: Tensor, logits: Tensor, given: Tensor | None) -> Tensor:
    """The group of each sample, int64 ``(B,)`` on the device of ``y``.

    Raises:
        InputError: ids that are missing, not asked for, or no integers ``(B,)``.
    """
    if (given is None) == (groups == "given"):
        got = "none" if given is None else f"ids of groups, which are by {groups!r}"
        raise InputError("group", got, "ids (B,) with groups='given', and only then")
    if callable(groups):
        ids, name = groups(x, y, logits), "groups"
    elif given is not None:
        ids, name = given, "group"
    else:
        return y if groups == "label" else (logits.argmax(-1) == y).long()
    if (
        not isinstance(ids, Tensor)
        or ids.shape != y.shape
        or ids.is_floating_point()
        or ids.is_complex()
    ):
        got = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(name, got, f"integers or bool {tuple(y.shape)}, an id per sample")
    return ids.to(y)


def require_one_group(content: Tensor, ids: Tensor) -> None:
    """Refuse samples, known by their hashes ``(B,)``, that came in two groups."""
    content, order = content.sort(stable=True)
    ids = ids[order]
    two = (content[1:] == content[:-1]) & (ids[1:] != ids[:-1])
    if bool(two.any()):
        at = int(two.nonzero()[0, 0])
        got = f"a sample in the groups {int(ids[at])} and {int(ids[at + 1])}"
        raise InputError("group", got, "every sample in one")


def by_group(statistics: Callable[[Tensor], Statistics], rows: Tensor, ids: Tensor) -> Statistics:
    """Statistics of every group's rows ``(B, columns, M)``, by ids ``(B,)``.

    Returns:
        ``groups``, the G ids, ascending; and each key as ``group_<key>``, ``(G, ...)``.
    """
    groups = ids.unique()
    found = [statistics(rows[ids == group]) for group in groups]
    shaped = found or [statistics(rows)]  # no group: tensors (0, ...)
    result = {
        f"group_{key}": torch.stack([one[key] for one in shaped])[: len(found)] for key in shaped[0]
    }
    return {"groups": groups, **result}


def split_groups(result: Statistics) -> dict[int, Statistics]:
    """Of a metric's result the groups alone: id → what the metric would give for it alone."""
    ids, begin = result["groups"].reshape(-1), "group_"  # torchmetrics drops the axis of one group
    if len(ids) == 0:
        return {}
    columns = {
        key.removeprefix(begin): result[key].reshape(len(ids), -1)
        for key in result
        if key.startswith(begin)
    }
    return {
        group: {key: values[k].squeeze() for key, values in columns.items()}
        for k, group in enumerate(ids.tolist())
    }
