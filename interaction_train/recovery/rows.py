"""The coalitions that a fit evaluates, and what it takes as their values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interaction_train.errors import InputError, whole
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.exact import all_coalitions
from interaction_train.sampling.coalitions import bernoulli
from interaction_train.sampling.random import Draws

Game = MaskedGame | Callable[[Tensor], Tensor]
_LISTED = 16  # players whose coalitions are dealt, none twice


def drawn(draws: Draws, n: int, budget: int, fresh: int = 0) -> tuple[Tensor, ...]:
    """Coalitions of a fit, bool ``(budget, n)``, and fresh ones ``(fresh, n)``.

    Rows 2k and 2k + 1 are complements, every player present with probability ½. The draws are those
    of one content, so that all samples share a kernel. Up to 16 players no coalition comes twice,
    and there are no more fresh ones than are left.
    """
    if n <= _LISTED:
        order = draws.bits("order", 1 << (n - 1))[0].argsort()
        rows = _with_complements(all_coalitions(n, draws.content.device)[order])
        return rows[:budget], rows[budget : budget + fresh]
    wanted = {"rows": budget, "fresh": fresh}
    return tuple(
        _with_complements(bernoulli(draws.bits(name, (count + 1) // 2, n)[0], 0.5))[:count]
        for name, count in wanted.items()
    )


def evaluated(game: Game, coalitions: Tensor) -> Tensor:
    """Values ``(B, K)`` of coalitions.

    Raises:
        InputError: values of another shape.
    """
    values = game(coalitions)
    shape = tuple(values.shape) if isinstance(values, Tensor) else ()
    if len(shape) not in (1, 2) or shape[-1] != len(coalitions):
        got = f"values {shape}" if isinstance(values, Tensor) else type(values).__name__
        expected = f"one number per coalition, (B, {len(coalitions)})"
        raise InputError("game", got, expected)
    return values.unsqueeze(0) if values.dim() == 1 else values


def checked_rows(coalitions: Tensor, values: Tensor, name: str = "") -> None:
    """Refuse rows that are no coalitions and values of other shapes or that are not finite."""
    prefix = f"{name} " if name else ""
    shape = tuple(getattr(coalitions, "shape", ()))
    if getattr(coalitions, "dtype", None) != torch.bool or len(shape) != 2 or shape[1] == 0:
        raise InputError(f"{prefix}coalitions", f"shape {shape}", "bool (m, n)")
    if not isinstance(values, Tensor) or values.dim() != 2 or values.shape[1] != len(coalitions):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"{prefix}values", got, f"(B, {len(coalitions)}), one per coalition")
    if values.is_complex() or not len(values):
        kind = f"{values.dtype} {tuple(values.shape)}"
        raise InputError(f"{prefix}values", kind, "real numbers, of a sample at least")
    bad = ~values.isfinite().all(-1)
    if bool(bad.any()):
        at = int(bad.nonzero()[0])
        raise InputError(f"{prefix}values", f"values of sample {at} not finite", "finite values")


def refuse_constant(values: Tensor) -> None:
    """Refuse a sample whose values are all the same, which leaves nothing to explain."""
    same = values.amax(-1) == values.amin(-1)
    if bool(same.any()):
        at = int(same.nonzero()[0])
        got = f"the constant {float(values[at, 0]):.6g} for sample {at}"
        raise InputError("values", got, "a game that depends on its players")


def checked_budget(budget: int, n: int) -> int:
    """The budget, unless it is below twice the players, or below all coalitions if fewer."""
    least, budget = min(2 * n, 1 << n), whole("budget", budget, 0)
    if budget < least:
        raise InputError("budget", budget, f"at least {least}, two coalitions per player")
    return budget


def _with_complements(rows: Tensor) -> Tensor:
    return torch.stack([rows, ~rows], 1).flatten(0, 1)
