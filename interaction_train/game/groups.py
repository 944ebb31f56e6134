"""Players that are places, or groups of places, along a sample's first axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import index

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.players import Players

Groups = Sequence[Sequence[int]] | Mapping[str, Sequence[int]]


class GroupPlayers(Players):
    """Each place along the first axis is a player, or each group of places is.

    Args:
        groups: the places of each player by their index from 0 on, or a mapping of player names to
            them; no place is in two.
        names: of all places, from which players without a name take theirs.

    Raises:
        InputError: a place in two groups, an empty group, or names of another number.
    """

    place = "place"  # what the docstring calls so, in errors
    letter = "x"  # of the default names
    joint = "+"  # between the names of a group's places

    def __init__(self, groups: Groups | None = None, names: Sequence[str] | None = None) -> None:
        self._titles: tuple[str, ...] | None = None
        if isinstance(groups, Mapping):
            self._titles, groups = tuple(map(str, groups)), list(groups.values())
        self.groups = None if groups is None else self._indices("groups", groups)
        self.places = None if names is None else tuple(map(str, names))
        self._owners: dict[int, Tensor] = {}
        if self.groups is None:
            return
        times = Counter(place for group in self.groups for place in group)
        if not times or not all(self.groups) or min(times) < 0:
            expected = f"at least one {self.place}, from 0 on, in every group"
            raise InputError("groups", self.groups, expected)
        place, most = times.most_common(1)[0]
        if most > 1:
            expected = f"every {self.place} once"
            raise InputError("groups", f"{self.place} {place} {most} times", expected)

    def __repr__(self) -> str:
        groups = f"every {self.place}" if self.groups is None else f"{len(self.groups)} groups"
        return f"{type(self).__name__}({groups})"

    def count(self, shape: Sequence[int]) -> int:
        length = self._length(shape)
        if self.places is not None and len(self.places) != length:
            got, expected = f"{len(self.places)} names", f"{length}, one per {self.place}"
            raise InputError("names", got, expected)
        if self.groups is None:
            return length
        if (highest := max(map(max, self.groups))) >= length:
            expected = f"{self.place}s 0 … {length - 1} of the sample"
            raise InputError("groups", f"{self.place} {highest}", expected)
        return len(self.groups)

    def names(self, shape: Sequence[int]) -> tuple[str, ...]:
        """The groups' names, or those of their places joined."""
        self.count(shape)
        places = self.places or tuple(f"{self.letter}{k}" for k in range(shape[0]))
        if self.groups is None:
            return places
        joined = tuple(self.joint.join(places[k] for k in group) for group in self.groups)
        return self._titles or joined

    def background(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor | None:
        n = self.count(shape)
        if self.groups is None or sum(map(len, self.groups)) == shape[0]:
            return None
        return (self._owner(shape[0], device) == n).view(-1, *(1 for _ in shape[1:]))

    def mask(self, coalitions: Tensor, shape: Sequence[int]) -> Tensor:
        self.count(shape)
        if self.groups is not None:
            present = F.pad(coalitions, (0, 1), value=True)  # the background's
            coalitions = present.index_select(-1, self._owner(shape[0], coalitions.device))
        return coalitions.unflatten(-1, (shape[0], *(1 for _ in shape[1:])))

    def _length(self, shape: Sequence[int]) -> int:
        if not shape:
            raise InputError("players", "a sample of shape ()", "at least one axis")
        return shape[0]

    def _owner(self, length: int, device: torch.device | None) -> Tensor:
        """The player of each place, ``(length,)`` int64; n in the background."""
        groups = self.groups or []
        if length not in self._owners:
            owner = torch.full((length,), len(groups))
            for k, group in enumerate(groups):
                owner[group] = k
            self._owners[length] = owner
        self._owners[length] = self._owners[length].to(device or "cpu")  # where it was used last
        return self._owners[length]

    @classmethod
    def _indices(cls, argument: str, groups: Sequence[Sequence[int]]) -> list[list[int]]:
        try:
            return [[index(place) for place in group] for group in groups]
        except TypeError:
            expected = f"the {cls.place}s of each, by their index"
            raise InputError(argument, repr(groups), expected) from None
