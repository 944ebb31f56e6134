"""Players that are the columns of a table."""

from __future__ import annotations

from collections.abc import Sequence

from interaction_train.errors import InputError
from interaction_train.game.groups import GroupPlayers, Groups


class FeaturePlayers(GroupPlayers):
    """Columns of tabular samples ``(F,)``: each is a player, or each group of them is.

    Args:
        groups: the columns of each player by their index, or a mapping of player names to them;
            every column belongs to exactly one. Columns of a one-hot code belong together.
        names: of the F columns, from which players without a name take theirs; default ``"x3"``.
        background: columns that are in no group, and always present.

    Raises:
        InputError: a column in two groups or in none, an empty group, or names of another number.

    Examples:
        >>> import torch
        >>> players = FeaturePlayers({"size": [0, 1], "age": [2]})
        >>> players.mask(torch.tensor([True, False]), (3,))
        tensor([ True,  True, False])
        >>> FeaturePlayers([[0, 2], [1]], names=["height", "age", "width"]).names((3,))
        ('height+width', 'age')
    """

    place = "column"

    def __init__(
        self,
        groups: Groups | None = None,
        names: Sequence[str] | None = None,
        background: Sequence[int] = (),
    ) -> None:
        super().__init__(groups, names)
        (self.always,) = self._indices("background", [background])
        for column in self.always:
            if self.groups is None or any(column in group for group in self.groups):
                got = f"column {column}, which is a player's"
                raise InputError("background", got, "columns in no group")

    def count(self, shape: Sequence[int]) -> int:
        n = super().count(shape)
        if self.groups is not None:
            wrong = set(range(shape[0])) ^ {*self.always, *(c for g in self.groups for c in g)}
            if wrong:
                column = min(wrong)
                within = column < shape[0]
                got = f"column {column} in no group" if within else f"column {column}"
                expected = f"each of the columns 0 … {shape[0] - 1} in one, or in the background"
                raise InputError("groups" if within else "background", got, expected)
        return n

    def _length(self, shape: Sequence[int]) -> int:
        if len(shape) != 1:
            raise InputError("players", f"a sample of shape {tuple(shape)}", "(features,)")
        return shape[0]
