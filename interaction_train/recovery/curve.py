"""How good a fit is, against the number of coalitions that it cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interaction_train.errors import InputError, whole
from interaction_train.recovery.fit import Rho, fit_rows
from interaction_train.recovery.model import WalshModel


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
