"""The few ANDs and ORs of players that stand for a game of many."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.concepts.selection import Surrogate
from interaction_train.errors import InputError, in_range
from interaction_train.recovery.candidates import grow
from interaction_train.recovery.model import WalshModel, r_squared
from interaction_train.recovery.selection import backward, picked, select

EXPLAINED = 0.5
_WIDTH = 4  # candidates kept of an order, and columns chosen from, per set wanted
_LEAST_WIDTH = 64
_MORE = 2  # columns that go in before the least useful ones go, per set wanted
_COLUMNS = 512  # at least, of which the least squares fit chooses
_OR_CREDIT = 0.9  # of what an OR explains: of two descriptions that do as well, the one by ANDs
_HELD_BACK = 4  # every fourth pair of rows chooses how many sets
_NEARLY = 1e-4  # of the variance: what fewer sets may miss


@dataclass(frozen=True)
class Recovered:
    """The strongest interactions of B games, and how much of a game they explain.

    Attributes:
        surrogate: the sets, ANDs and ORs, in the order of |value|. Its ``r2`` and ``max_error`` are
            those over the fresh rows of the fit.
        r2: ``(B,)``, R² over rows that no choice has seen; over the fit's where it has no fresh
            rows, as when these are all coalitions.
        explained: bool ``(B,)``, R² of .5 or more.
    """

    surrogate: Surrogate
    r2: Tensor
    explained: Tensor

    def summary(self, names: Sequence[str] | None = None) -> str:
        """Lines for each sample: R², and the sets with their values.

        Args:
            names: of the n players; default: their numbers.

        Raises:
            InputError: names of another number.
        """
        if names is None:
            names = [str(i) for i in range(self.surrogate.n)]
        if len(names) != self.surrogate.n:
            raise InputError("names", f"{len(names)} names", f"{self.surrogate.n}, one per player")
        return "\n".join(line for at in range(len(self.r2)) for line in self._lines(at, names))

    def _lines(self, sample: int, names: Sequence[str]) -> list[str]:
        own = self.surrogate[sample]
        count = int(own.count[0])
        said = f"{count} interaction{'s' * (count != 1)}, R² {float(self.r2[sample]):.3f}"
        if not bool(self.explained[sample]):
            said += ": this game is not explained by a few interactions"
        lines = [f"sample {sample}: {said} (on coalitions that took no part)"]
        for members, is_or, value in zip(own.members[0], own.is_or[0], own.value[0], strict=True):
            word = " OR " if is_or else " AND "
            lines.append(
                f"{float(value):+.4g}  {word.join(names[i] for i in members.nonzero()[:, 0].tolist())}"
            )
        return lines


def strongest(model: WalshModel, count: int, max_order: int = 5) -> Recovered:
    """The strongest ANDs and ORs of players, refitted to the values; at most ``count`` of them.

    Sets grow by one player at a time (:func:`~interaction_train.recovery.candidates.grow`), with no
    enumeration beyond all pairs. Those with the largest dividends, AND or OR, times the standard
    deviation of their column are columns of a least squares fit: more than ``count`` go in one by
    one, then the least useful go, and rows held back within the fit say how many stay. A set that
    the fit's prior calls improbable, such as a pair without any effect of its players, is found as
    well as its coefficients are; ``rho="learned"`` finds more than a single ρ.

    Warns (``UserWarning``) of samples whose R² on fresh rows is below .5.

    Args:
        model: a fit, with fresh rows for an honest R².
        count: sets at most, 1 or more.
        max_order: players of a set at most, 1 to n.

    Raises:
        InputError: arguments out of range.
    """
    in_range("count", count, 1, 10**4)
    in_range("max_order", max_order, 1, model.n)
    with torch.no_grad():
        found = _recovered(model, count, max_order)
    if not bool(found.explained.all()):
        below = (~found.explained).nonzero()[:, 0].tolist()
        warnings.warn(
            f"sample{'s' * (len(below) > 1)} {', '.join(map(str, below))}: R² below {EXPLAINED}, "
            "this game is not explained by a few interactions",
            stacklevel=2,
        )
    return found


def _recovered(model: WalshModel, count: int, max_order: int) -> Recovered:
    width = max(_LEAST_WIDTH, _WIDTH * count)
    members, is_or = _candidates(model, grow(model, width, max_order), max(_COLUMNS, 2 * width))
    values = model.values.detach()
    columns = _columns(members, is_or, model.coalitions)
    judges = torch.arange(len(model.coalitions), device=values.device) // 2 % _HELD_BACK == 0
    count = min(count, members.shape[1])
    more = min(_MORE * count, members.shape[1])
    credit = torch.where(is_or, _OR_CREDIT, 1.0).double()
    seen = _fits(columns[:, ~judges], values[:, ~judges], credit, count, more)
    errors = values[:, judges].unsqueeze(-1) - seen.predict(columns[:, judges])
    # Of count … 0 sets the fewest that are nearly as good as the best.
    squares = errors.square().mean(-2)
    allowed = squares.amin(-1) + _NEARLY * values.var(-1, correction=0)
    fewest = (squares <= allowed.unsqueeze(-1)) * torch.arange(count + 1, device=values.device)
    found = _fits(columns, values, credit, count, more)
    constant, value, index = found.at(fewest.argmax(-1))

    order = value.abs().argsort(dim=-1, descending=True, stable=True)
    order = order[:, : max(1, int((value != 0).sum(-1).max()))]
    index, value = index.gather(-1, order), value.gather(-1, order)
    used = value != 0
    members = _gather(members, index) & used.unsqueeze(-1)
    is_or = is_or.gather(1, index) & used
    unseen, truth = model.fresh_coalitions, model.fresh_values
    if truth.shape[-1] == 0:
        unseen, truth = model.coalitions, values
    fitted = constant.unsqueeze(-1) + _times(_columns(members, is_or, unseen), value)
    r2 = r_squared(truth, fitted)
    surrogate = Surrogate(
        members=members,
        is_or=is_or,
        value=value,
        constant=constant,
        r2=r2,
        max_error=(truth - fitted).abs().amax(-1),
        count=used.sum(-1),
    )
    return Recovered(surrogate, r2, r2 >= EXPLAINED)


@dataclass(frozen=True)
class _Fits:
    """Least squares fits on count … 0 of some columns."""

    index: Tensor
    weights: Tensor
    constants: Tensor

    def predict(self, columns: Tensor) -> Tensor:
        """``(B, m, count + 1)`` of all columns ``(B, m, K)``."""
        own = columns.gather(-1, self.index.unsqueeze(-2).expand(-1, columns.shape[-2], -1))
        return own @ self.weights.transpose(-1, -2) + self.constants.unsqueeze(-2)

    def at(self, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Constant ``(B,)``, weights ``(B, more)`` and columns of one fit of each sample."""
        rows = torch.arange(len(place), device=place.device)
        return self.constants[rows, place], self.weights[rows, place], self.index


def _fits(columns: Tensor, values: Tensor, credit: Tensor, count: int, more: int) -> _Fits:
    means, mean = columns.mean(-2), values.mean(-1, keepdim=True)
    centred = columns - means.unsqueeze(-2)
    gram = centred.transpose(-1, -2) @ centred
    right = _times(centred.transpose(-1, -2), values - mean)
    index = select(gram, right, credit, count, more)
    weights, left = (part[:, more - count :] for part in backward(*picked(gram, right, index)))
    weights = weights * left
    constants = mean - _times(weights, means.gather(-1, index))
    return _Fits(index, weights, constants)


def _candidates(model: WalshModel, grown: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The sets and kinds with the strongest columns, bool ``(B, k, n)`` and ``(B, k)``."""
    size = grown.sum(-1)
    share = 0.5**size
    spread = (share * (1 - share)).sqrt()
    as_and = model.dividend(grown).abs() * spread * (size > 0)
    as_or = model.or_dividend(grown).abs() * spread * (size > 1)
    strength = torch.cat([as_and, as_or], 1)
    index = strength.topk(min(count, strength.shape[1])).indices
    return _gather(grown, index % grown.shape[1]), index >= grown.shape[1]


def _columns(members: Tensor, is_or: Tensor, coalitions: Tensor) -> Tensor:
    """Where a set counts, ``(B, m, k)``, 1 or 0; sets of no players nowhere."""
    present, wanted = coalitions.double(), members.double().transpose(-1, -2)
    size = members.sum(-1).unsqueeze(-2)
    held = present @ wanted
    counts = torch.where(is_or.unsqueeze(-2), held > 0, (held == size) & (size > 0))
    return counts.double()


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _gather(members: Tensor, index: Tensor) -> Tensor:
    return members.gather(1, index.unsqueeze(-1).expand(-1, -1, members.shape[-1]))
