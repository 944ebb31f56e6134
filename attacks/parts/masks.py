"""Random coalitions of the perturbation's cells, without a game around them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.inputs import ScaleInvariance
from interaction_train.attacks.parts.mixing import Admix
from interaction_train.errors import InputError, in_range, whole
from interaction_train.game.players import GridPlayers, Players
from interaction_train.sampling.coalitions import bernoulli


class RandomMask(Part):
    """A part of the perturbation at a time: players left out at random show the clean image.

    The masks of :class:`~interaction_train.attacks.objectives.MaskedObjective` at the price of one
    pass. Goes before parts that transform images, as it puts clean pixels in.

    Args:
        keep: probability that a player stays, in (0, 1]; or the bounds between which it is drawn
            anew for every copy.
        players: default: 8 × 8 cells.
        copies: number of copies per step, each with a coalition of its own.

    Raises:
        InputError: also on a call, parts that transform images before this one.
    """

    shared = True

    def __init__(
        self,
        keep: float | Sequence[float] = 0.9,
        players: Players | None = None,
        copies: int = 1,
    ) -> None:
        bounds = tuple(keep) if isinstance(keep, Sequence) else (keep, keep)
        if len(bounds) != 2 or not bounds[0] <= bounds[1]:
            raise InputError("keep", keep, "a number, or two, the lower one first")
        in_range("keep", bounds[0], 0, 1, above=True)
        in_range("keep", bounds[1], 0, 1, above=True)
        whole("copies", copies, 1)
        self.keep, self.copies = bounds, copies
        self.players = GridPlayers(8, 8) if players is None else players

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        for part in takewhile(lambda part: part is not self, step.parts):
            if part.varies and (part.spatial or isinstance(part, Admix | ScaleInvariance)):
                got = f"RandomMask after {type(part).__name__}"
                raise InputError("parts", got, "RandomMask before it, as it puts clean pixels in")
        low, high = self.keep
        keep = low + (high - low) * step.draws.uniform("mask keep", copy, 1)
        keys = step.draws.bits("mask", copy, self.players.count(rows.shape[2:]))
        present = self.players.mask(bernoulli(keys, keep), rows.shape[2:])
        return torch.where(present, rows, step.clean.unsqueeze(1))
