"""The few ANDs and ORs of players that stand for a game of many."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from interaction_train.concepts.selection import Surrogate
from interaction_train.errors import InputError, whole
from interaction_train.recovery.candidates import counted, gather, grow, rank
from interaction_train.recovery.model import WalshModel, r_squared
from interaction_train.recovery.selection import NEARLY, choose, times

EXPLAINED = 0.5
NOT_EXPLAINED = "this game is not explained by a few interactions"
MOST = 1000  # sets
_ORDERS = 5  # of a set, where nothing else is said
_WIDTH = 4  # sets kept of an order, per set wanted
_LEAST_WIDTH = 64
_COLUMNS = 512  # at least, of which the least squares fit chooses


class Interaction(NamedTuple):
    """Some players' AND, which counts where all are present, or OR, where one of them is."""

    kind: Literal["AND", "OR"]
    players: tuple[str, ...]
    value: float

    def __str__(self) -> str:
        return f" {self.kind} ".join(self.players)


@dataclass(frozen=True)
class Recovered:
    """The strongest interactions of B games, and how much of a game they explain.

    Attributes:
        surrogate: the sets, ANDs and ORs, in the order of |value|. Its ``r2`` and ``max_error`` are
            those over the fresh rows of the fit.
        r2: ``(B,)``, R² over rows that no choice has seen; over those of the fit where there are no
            fresh ones, as after a fit to all coalitions.
        explained: bool ``(B,)``, R² of .5 or more.
        fresh: number of fresh rows, 0 where there are none.
    """

    surrogate: Surrogate
    r2: Tensor
    explained: Tensor
    fresh: int

    def interactions(
        self, sample: int = 0, names: Sequence[str] | None = None
    ) -> list[Interaction]:
        """The interactions of a sample, the strongest first.

        Args:
            sample: which.
            names: of the n players; default: their numbers.

        Raises:
            InputError: names of another number.
        """
        n = self.surrogate.n
        if names is None:
            names = [str(i) for i in range(n)]
        if len(names) != n:
            raise InputError("names", f"{len(names)} names", f"{n}, one per player")
        own = self.surrogate[sample]
        parts = own.members[0].tolist(), own.is_or[0].tolist(), own.value[0].tolist()
        return [
            Interaction("OR" if is_or else "AND", tuple(compress(names, members)), value)
            for members, is_or, value in zip(*parts, strict=True)
        ]

    def quality(self, sample: int = 0) -> str:
        """How many interactions, and their R²; a line where they do not explain the game."""
        count = int(self.surrogate.count[sample])
        where = f"{self.fresh} fresh" if self.fresh else "the fit's own"
        r2 = f"R² {float(self.r2[sample]):.3f} on {where} coalitions"
        told = f"{count} interaction{'s' * (count != 1)}, {r2}"
        return told if bool(self.explained[sample]) else f"{told}: {NOT_EXPLAINED}"

    def summary(self, names: Sequence[str] | None = None) -> str:
        """Lines for each sample: R², and the sets with their values; names as elsewhere."""
        lines = []
        for sample in range(len(self.r2)):
            lines.append(f"sample {sample}: {self.quality(sample)}")
            lines += [f"{one.value:+.4g}  {one}" for one in self.interactions(sample, names)]
        return "\n".join(lines)


def strongest(model: WalshModel, count: int, max_order: int | None = None) -> Recovered:
    """The strongest ANDs and ORs of players, refitted to the values; at most ``count`` of them.

    Sets grow by one player at a time (:func:`~interaction_train.recovery.candidates.grow`), with no
    enumeration beyond all pairs. Those whose dividends, AND or OR, vary v most are the columns of a
    least squares fit to the rows (:func:`~interaction_train.recovery.selection.choose`); rows held
    back say how many stay, and whether ORs are needed. ``rho="learned"`` finds more than a single
    ρ. Without gradient.

    Warns (``UserWarning``) of samples whose R² on fresh rows is below .5.

    Args:
        model: a fit, with fresh rows for an honest R².
        count: sets at most, 1 to 1000. Memory goes with its square, time with its cube; hundreds
            take a minute.
        max_order: players of a set at most, 1 to n; default: 5, or n where that is less.

    Raises:
        InputError: arguments out of range.
    """
    count = whole("count", count, 1, MOST)
    most = min(_ORDERS, model.n) if max_order is None else whole("max_order", max_order, 1, model.n)
    with torch.no_grad():
        found = _recovered(model, count, most)
    if not bool(found.explained.all()):
        below = (~found.explained).nonzero()[:, 0].tolist()
        warnings.warn(
            f"sample{'s' * (len(below) > 1)} {', '.join(map(str, below))}: R² below {EXPLAINED}, "
            f"{NOT_EXPLAINED}",
            stacklevel=2,
        )
    return found


def _recovered(model: WalshModel, count: int, max_order: int) -> Recovered:
    values = model.values.detach()
    width = max(_LEAST_WIDTH, _WIDTH * count)
    members, is_or = rank(model, grow(model, width, max_order), max(_COLUMNS, 2 * width))
    columns = counted(members, is_or, model.coalitions)
    count = min(count, members.shape[1], values.shape[1] // 2)
    ands = choose(columns, values, ~is_or, count)
    both = choose(columns, values, torch.ones_like(is_or), count)
    simpler = ands.error <= both.error + NEARLY * values.var(-1, correction=0)
    found = ands.where(simpler, both)

    order = found.weights.abs().argsort(dim=-1, descending=True, stable=True)
    order = order[:, : max(1, int((found.weights != 0).sum(-1).max()))]
    value, index = found.weights.gather(-1, order), found.index.gather(-1, order)
    used = value != 0
    members = gather(members, index) & used.unsqueeze(-1)
    is_or = is_or.gather(1, index) & used
    unseen, truth = model.fresh_coalitions, model.fresh_values
    if truth.shape[-1] == 0:
        unseen, truth = model.coalitions, values
    fitted = found.constant.unsqueeze(-1) + times(counted(members, is_or, unseen), value)
    r2 = r_squared(truth, fitted)
    surrogate = Surrogate(
        members=members,
        is_or=is_or,
        value=value,
        constant=found.constant,
        r2=r2,
        max_error=(truth - fitted).abs().amax(-1),
        count=used.sum(-1),
    )
    return Recovered(surrogate, r2, r2 >= EXPLAINED, model.fresh_values.shape[-1])
