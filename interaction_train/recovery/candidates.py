"""Which sets may matter, found by growth: no enumeration beyond that of all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.recovery.kernel import signs
from interaction_train.recovery.model import WalshModel
from interaction_train.sampling.random import Draws


def grow(model: WalshModel, width: int, max_order: int) -> Tensor:
    """Sets of orders 1 … ``max_order`` with strong |ĉ_S|, bool ``(B, k, n)``; none twice.

    All single players and pairs are looked at; from there on supersets by one player of the
    ``width`` strongest sets of an order. An AND or an OR of a set gives every subset of it a
    coefficient of the same size, so that its way up is strong throughout.
    """
    n, batch = model.n, len(model)
    device = model.rho.device
    keys = Draws(torch.zeros(1, dtype=torch.int64, device=device), name="players").bits("keys", n)
    z = signs(model.coalitions)
    level = torch.eye(n, dtype=torch.bool, device=device).expand(batch, -1, -1)
    found = [_strongest(level, model.coefficient(level).abs(), width)]
    for order in range(2, max_order + 1):
        parents = found[-1] if order > 2 else level
        strength = _children(model, z, parents)
        count = min(width * (order + 1), parents.shape[1] * (n - order + 1))
        best = strength.flatten(1).topk(count).indices
        children = _gather(parents, best // n)
        children = children | torch.nn.functional.one_hot(best % n, n).bool()
        values = strength.flatten(1).gather(1, best)
        # A set was reached from several of its subsets; their sums of keys are the same.
        sums = (children * keys).sum(-1)
        sums, by_key = sums.sort(dim=-1, stable=True)
        again = torch.zeros_like(sums, dtype=torch.bool)
        again[:, 1:] = sums[:, 1:] == sums[:, :-1]
        values = values.gather(1, by_key).masked_fill(again, -1)
        found.append(_strongest(_gather(children, by_key), values, width))
    return torch.cat(found, 1)


def _children(model: WalshModel, z: Tensor, parents: Tensor) -> Tensor:
    """|ĉ| of every set with one more player, ``(B, k, n)``; −1 for players who are in it."""
    present = model.coalitions.double() @ parents.double().transpose(-1, -2)
    rows = model.alpha.unsqueeze(-1) * (1 - 2 * (present % 2))
    log_odds = model.rho.log()
    prior = (parents.double() @ log_odds.unsqueeze(-1)) + log_odds.unsqueeze(-2)
    prior = (prior - model.rho.log1p().sum(-1)[:, None, None]).exp()
    strength = ((rows.transpose(-1, -2) @ z) * prior).abs()
    return strength.masked_fill(parents, -1)


def _strongest(members: Tensor, strength: Tensor, width: int) -> Tensor:
    """The ``width`` strongest sets; rows of no players where there are fewer."""
    values, index = strength.topk(min(width, strength.shape[1]))
    return _gather(members, index) & (values >= 0).unsqueeze(-1)


def _gather(members: Tensor, index: Tensor) -> Tensor:
    return members.gather(1, index.unsqueeze(-1).expand(-1, -1, members.shape[-1]))
