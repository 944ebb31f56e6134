"""Fit all Walsh coefficients of games of many players from few coalitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from interaction_train.errors import InputError, at_least, in_range, one_of, whole
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.exact import summable
from interaction_train.recovery.hyperparameters import choose_noise, choose_rho
from interaction_train.recovery.model import WalshModel
from interaction_train.recovery.players import learn_players
from interaction_train.recovery.rows import (
    Game,
    checked_budget,
    checked_rows,
    drawn,
    evaluated,
    refuse_constant,
)
from interaction_train.sampling.random import Draws

Rho = float | Literal["loo", "learned"]
_COMPLETE_RHO = 0.5  # all coalitions fix every coefficient, whatever the prior
_LEAST_NOISE = 1e-11  # of the kernel's diagonal: what keeps equal rows solvable


def fit_walsh(
    game: Game,
    budget: int,
    *,
    players: int | None = None,
    rho: Rho = "loo",
    seed: int = 0,
    fresh: int | None = None,
) -> WalshModel:
    """Fit all 2^n Walsh coefficients of a game from ``budget`` of its coalitions.

    Kernel ridge over all sets at once: the prior variance of the coefficient of S is proportional
    to Π_{i∈S} ρ_i. The coalitions, the same for all samples, come in pairs of complements. From
    budget ≥ 2^n on all coalitions are taken and the fit is exact. Memory O(budget²), time
    O(budget³) per distinct ρ.

    Args:
        game: a game, or what maps coalitions, bool ``(K, n)``, to ``(B, K)`` or ``(K,)``.
        budget: coalitions of the fit, at least 2n (or all 2^n).
        players: n, of a function.
        rho: one ρ in (0, 1); ``"loo"``: one per sample with the least error on rows left out;
            ``"learned"``: one per player by marginal likelihood, as far as that predicts rows held
            back within the fit better than the single one. It finds the players that matter, for
            some 30 more solves per sample.
        seed: seed of the coalitions.
        fresh: further coalitions, for ``r2_holdout`` alone; default: budget/8, at least 64. Up
            to 16 players no more than are left, which may be none.

    Raises:
        InputError: a budget below 2n, arguments out of range, values that are not finite or
            constant (the sample is named), or a game of several numbers per coalition.

    Examples:
        >>> def game(x):  # AND of two players, beside a third
        ...     return (x[:, 3] & x[:, 5]).double() + x[:, 8]
        >>> model = fit_walsh(game, 200, players=12)
        >>> model.dividend([[3, 5], [8], [1, 2]]).round(decimals=2).abs()
        tensor([[1., 1., 0.]], dtype=torch.float64)
    """
    n = _count(game, players)
    budget = checked_budget(budget, n)
    fresh = max(64, budget // 8) if fresh is None else whole("fresh", fresh, 0)
    device = game.present.device if isinstance(game, MaskedGame) else torch.device("cpu")
    complete = n < 62 and budget >= 1 << n
    draws = Draws(torch.zeros(1, dtype=torch.int64, device=device), seed, "walsh")
    rows, more = drawn(draws, n, budget, 0 if complete else fresh)
    values = evaluated(game, torch.cat([rows, more])).detach()
    values, others = values.split([len(rows), len(more)], -1)
    check_rho(rho)
    rho = _COMPLETE_RHO if complete and isinstance(rho, str) else rho
    noise = 0.0 if complete else None
    return fit_rows(rows, values, rho=rho, fresh=(more, others), noise=noise)


def fit_rows(
    coalitions: Tensor,
    values: Tensor,
    *,
    rho: Rho = "loo",
    fresh: tuple[Tensor, Tensor] | None = None,
    noise: float | None = None,
) -> WalshModel:
    """The same from rows that exist; readings are differentiable in ``values``.

    Args:
        coalitions: bool ``(m, n)``, m at least 2; shared by all samples.
        values: ``(B, m)``; ρ and the noise are chosen without gradient.
        rho: as of :func:`fit_walsh`; ``"learned"`` holds back every fifth pair of rows.
        fresh: coalitions ``(f, n)`` and values ``(B, f)`` for ``r2_holdout`` alone.
        noise: variance of a value's noise over that of v under the prior; default: by rows left
            out. Raised to 1e-11 at least, so that equal rows can be solved for.

    Raises:
        InputError: shapes that do not fit, values that are not finite or constant (the sample is
            named), ρ not in (0, 1) or a negative noise.
    """
    checked_rows(coalitions, values)
    at_least("rows", len(coalitions), 2)
    fresh = fresh or (coalitions[:0], values[:, :0])
    checked_rows(*fresh, "fresh")
    if fresh[0].shape[1] != coalitions.shape[1] or len(fresh[1]) != len(values):
        got = f"{fresh[0].shape[1]} players of {len(fresh[1])} samples"
        raise InputError("fresh", got, f"{coalitions.shape[1]} players of {len(values)} samples")
    refuse_constant(values)
    if noise is not None:
        at_least("noise", noise, 0)
    values, new = summable(values).double(), summable(fresh[1]).double()
    device = values.device
    coalitions, others = coalitions.to(device), fresh[0].to(device)
    with torch.no_grad():
        found = _hyperparameters(coalitions, _scaled(values.detach()), rho, noise)
    return WalshModel(coalitions, values, others, new, *found)


def budget_curve(model: WalshModel, budgets: Sequence[int], *, rho: Rho = "loo") -> Tensor:
    """R² on the fresh rows of fits to the first rows of a model, ``(B, len(budgets))``.

    Nested subsets: nothing is evaluated again. ρ and noise are chosen anew each time.

    Args:
        model: a fit with fresh rows.
        budgets: numbers of rows, 2n (or all 2^n) to those of the model.
        rho: as of :func:`~interaction_train.recovery.fit_walsh`.

    Raises:
        InputError: a budget out of range, or a model without fresh rows.
    """
    if model.fresh_values.shape[-1] == 0:
        raise InputError("model", "a fit without fresh rows", "one made with fresh > 0")
    rows, fresh = model.coalitions, (model.fresh_coalitions, model.fresh_values.detach())
    found = []
    if isinstance(budgets, int) or not len(budgets):
        raise InputError("budgets", budgets, "some numbers of rows")
    for budget in budgets:
        whole("budgets", budget, min(2 * model.n, 1 << model.n), len(rows))
        part = fit_rows(rows[:budget], model.values.detach()[:, :budget], rho=rho, fresh=fresh)
        found.append(part.r2_holdout)
    return torch.stack(found, -1)


def check_rho(rho: Rho) -> None:
    """Refuse what is neither a number in (0, 1) nor a way to choose."""
    if isinstance(rho, str):
        one_of("rho", rho, ("loo", "learned"))
    else:
        in_range("rho", rho, 0, 1, above=True, below=True)


def _hyperparameters(
    coalitions: Tensor, values: Tensor, rho: Rho, noise: float | None
) -> tuple[Tensor, Tensor]:
    """ρ ``(B, n)`` and noise ``(B,)``."""
    check_rho(rho)
    if isinstance(rho, str):
        single = choose_rho(coalitions, values)
    else:
        single = values.new_full((len(values),), rho)
    found = single.unsqueeze(-1).expand(-1, coalitions.shape[1]).contiguous()
    given = None if noise is None else values.new_full((len(values),), max(_LEAST_NOISE, noise))
    level = choose_noise(coalitions, values, found) if given is None else given
    if rho == "learned":
        found = learn_players(coalitions, values, single, level, given is not None)
        level = choose_noise(coalitions, values, found) if given is None else given
    return found, level


def _scaled(values: Tensor) -> Tensor:
    """Values about 0 and of variance 1, as no choice depends on either."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt()


def _count(game: Game, players: int | None) -> int:
    if isinstance(game, MaskedGame):
        if players is not None:
            raise InputError("players", players, "None for a MaskedGame, which has its own")
        return game.n
    if not callable(game):
        raise InputError("game", type(game).__name__, "a MaskedGame, or a function of coalitions")
    if players is None:
        raise InputError("players", None, "the number of players of a function")
    return whole("players", players, 1)
