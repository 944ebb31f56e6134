"""Sets of players, however they are given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interaction_train.errors import InputError

Sets = Tensor | Sequence[Sequence[int]]


def memberships(sets: Sets, n: int, batch: int, device: torch.device) -> Tensor:
    """Sets as membership, bool ``(k, n)`` or ``(B, k, n)``.

    Raises:
        InputError: a tensor of another dtype or shape, or players that are out of range or come
            twice in a set.
    """
    if isinstance(sets, Tensor):
        shape = tuple(sets.shape)
        if sets.dtype != torch.bool or len(shape) < 2 or shape[-1:] != (n,):
            raise InputError("sets", f"{sets.dtype} {shape}", f"bool (k, {n}) or ({batch}, k, {n})")
        if shape[:-2] not in ((), (batch,)):
            raise InputError("sets", f"shape {shape}", f"(k, {n}) or ({batch}, k, {n})")
        return sets.to(device)
    members = torch.zeros(len(sets), n, dtype=torch.bool)
    for at, one in enumerate(sets):
        if isinstance(one, int) or any(not 0 <= i < n for i in one) or len(set(one)) < len(one):
            raise InputError(f"sets[{at}]", one, f"different players from 0 to {n - 1}")
        members[at, list(one)] = True
    return members.to(device)
