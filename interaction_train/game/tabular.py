"""Players that are the columns of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import index

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.players import Players


class FeaturePlayers(Players):
    """Columns of tabular samples ``(F,)``: each is a player, or each group of them is.

    Args:
        groups: the columns of each player by their index, or a mapping of player names to them;
            every column belongs to exactly one. Columns of a one-hot code belong together.
        names: of the F columns, from which players without a name take theirs; default ``"x3"``.

    Raises:
        InputError: a column in two groups or in none, an empty group, or names of another number.

    Examples:
        >>> players = FeaturePlayers({"size": [0, 1], "age": [2]})
        >>> players.mask(torch.tensor([True, False]), (3,))
        tensor([ True,  True, False])
        >>> FeaturePlayers([[0, 2], [1]], names=["height", "age", "width"]).names((3,))
        ('height+width', 'age')
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self._titles: tuple[str, ...] | None = None
        if isinstance(groups, Mapping):
            self._titles, groups = tuple(map(str, groups)), list(groups.values())
        self.groups = None if groups is None else _columns(groups)
        self.columns = None if names is None else tuple(map(str, names))
        if self.groups is None:
            return
        times = Counter(column for group in self.groups for column in group)
        if not times or not all(self.groups) or min(times) < 0:
            expected = "at least one column, from 0 on, in every group"
            raise InputError("groups", self.groups, expected)
        column, most = times.most_common(1)[0]
        if most > 1:
            raise InputError("groups", f"column {column} {most} times", "every column once")

    def __repr__(self) -> str:
        groups = "every column" if self.groups is None else f"{len(self.groups)} groups"
        return f"FeaturePlayers({groups})"

    def count(self, shape: Sequence[int]) -> int:
        if len(shape) != 1:
            raise InputError("players", f"a sample of shape {tuple(shape)}", "(features,)")
        features = shape[0]
        if self.columns is not None and len(self.columns) != features:
            raise InputError("names", f"{len(self.columns)} names", f"{features}, one per column")
        if self.groups is None:
            return features
        given = {column for group in self.groups for column in group}
        if given != set(range(features)):
            wrong = min(given ^ set(range(features)))
            got = f"column {wrong} in no group" if wrong < features else f"column {wrong}"
            raise InputError("groups", got, f"each of the columns 0 … {features - 1} in one")
        return len(self.groups)

    def names(self, shape: Sequence[int]) -> tuple[str, ...]:
        """The groups' names, or those of their columns joined by ``+``."""
        self.count(shape)
        columns = self.columns or tuple(f"x{k}" for k in range(shape[0]))
        if self.groups is None:
            return columns
        return self._titles or tuple("+".join(columns[k] for k in group) for group in self.groups)

    def mask(self, coalitions: Tensor, shape: Sequence[int]) -> Tensor:
        self.count(shape)
        if self.groups is None:
            return coalitions
        player = torch.empty(shape[0], dtype=torch.int64)
        for k, group in enumerate(self.groups):
            player[group] = k
        return coalitions.index_select(-1, player.to(coalitions.device, non_blocking=True))


def _columns(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    try:
        return [[index(column) for column in group] for group in groups]
    except TypeError:
        raise InputError("groups", repr(groups), "the columns of each, by their index") from None
