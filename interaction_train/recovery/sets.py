"""Sets of players, however they are given."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor

from interaction_train.errors import InputError

Sets = Tensor | Sequence[Sequence[int]]


def memberships(
    sets: Sets, n: int, batch: int, device: torch.device, argument: str = "sets"
) -> Tensor:
    """Sets as membership, bool ``(k, n)`` or ``(B, k, n)``.

    Raises:
        InputError: a tensor of another dtype or shape, or players that are out of range or come
            twice in a set.
    """
    if isinstance(sets, Tensor):
        shape = tuple(sets.shape)
        fits = len(shape) > 1 and shape[-1] == n and shape[:-2] in ((), (batch,))
        if sets.dtype != torch.bool or not fits:
            expected = f"bool (k, {n}) or ({batch}, k, {n})"
            raise InputError(argument, f"{sets.dtype} {shape}", expected)
        return sets.to(device)
    if not isinstance(sets, Sequence):
        raise InputError("sets", repr(sets), "a sequence of sets")
    members = torch.zeros(len(sets), n, dtype=torch.bool)
    for at, one in enumerate(sets):
        try:
            players = [index(i) for i in one]
        except TypeError:
            players = [n]  # none of them
        if any(not 0 <= i < n for i in players) or len(set(players)) < len(players):
            raise InputError(f"sets[{at}]", repr(one), f"different players from 0 to {n - 1}")
        members[at, players] = True
    return members.to(device)
