"""The samples of a game, and the masked copies of them that go through the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import Players


def masked_rows(present: Tensor, absent: Tensor, players: Players, coalitions: Tensor) -> Tensor:
    """Copies ``(B, K, ...)`` of samples that show ``absent`` where a player is not in a coalition.

    Samples and ``absent`` are ``(B, ...)``, coalitions bool ``(B, K, n)``.
    """
    masks = players.mask(coalitions, present.shape[1:])
    return torch.where(masks, present.unsqueeze(1), absent.unsqueeze(1))


def filling(argument: str, value: float, like: Tensor) -> Tensor:
    """A number as a scalar of samples' dtype and device; InputError for no id where these are ids.

    Filled in on the device, without a host sync.
    """
    if not like.is_floating_point() and like.dtype != torch.bool:
        limits = torch.iinfo(like.dtype)
        if not limits.min <= value <= limits.max or value != int(value):
            raise InputError(argument, value, f"a token's id, as the samples are {like.dtype}")
    return like.new_full((), value)


@dataclass(frozen=True)
class Samples:
    """B samples with what a payoff and a network want to know of each.

    Attributes:
        players: how a sample splits.
        present: ``(B, ...)``.
        absent: ``(B, ...)``.
        classes: each ``(B,)``, labels and rivals.
        extra: further inputs by their names, each ``(B, ...)``.
    """

    players: Players
    present: Tensor
    absent: Tensor
    classes: tuple[Tensor, ...]
    extra: Mapping[str, Tensor]

    def split(self, size: int) -> Iterator[Samples]:
        """Blocks of so many samples."""
        tensors = [self.present, self.absent, *self.classes, *self.extra.values()]
        # Split, not sliced: the backward pass of a slice would fill the whole batch each time.
        blocks = zip(*(one.split(size) for one in tensors), strict=True)
        for start, (present, absent, *more) in zip(count(0, size), blocks, strict=False):
            players = self.players.part(slice(start, start + size))
            classes, extra = more[: len(self.classes)], more[len(self.classes) :]
            named = dict(zip(self.extra, extra, strict=True))
            yield Samples(players, present, absent, tuple(classes), named)

    def take(self, index: Tensor) -> Samples:
        """The samples of some indices ``(R,)`` int64, in which one may come several times."""
        return Samples(
            self.players.part(index),
            self.present.index_select(0, index),
            self.absent.index_select(0, index),
            tuple(one.index_select(0, index) for one in self.classes),
            {name: one.index_select(0, index) for name, one in self.extra.items()},
        )

    def rows(self, coalitions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Masked copies ``(B * K, ...)`` for coalitions ``(B, K, n)``, and their further inputs."""
        times = coalitions.shape[1]
        extra = {name: one.repeat_interleave(times, 0) for name, one in self.extra.items()}
        rows = masked_rows(self.present, self.absent, self.players, coalitions)
        return rows.flatten(0, 1), extra

    def read(self, payoff: Payoff, logits: Tensor) -> Tensor:
        """The payoff's values ``(B, K)`` of logits ``(B, K, classes)``, checked."""
        values = payoff(logits, *(one.unsqueeze(1) for one in self.classes))
        shape, wanted = getattr(values, "shape", ()), logits.shape[:2]
        if shape[:2] != wanted or not values.is_floating_point():
            got = f"{getattr(values, 'dtype', type(values).__name__)} of shape {tuple(shape)}"
            expected = f"floating point {tuple(wanted)}, from logits {tuple(logits.shape)}"
            raise InputError("payoff", got, expected)
        return values
