"""Which sets may matter, found by growth: no enumeration beyond that of all pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.recovery.kernel import log_prior, signs
from interaction_train.recovery.model import WalshModel
from interaction_train.sampling.random import Draws


def grow(model: WalshModel, width: int, max_order: int) -> Tensor:
    """Sets of orders 1 … ``max_order`` with strong |ĉ_S|, bool ``(B, k, n)``; none twice.

    All single players and pairs are looked at; from there on supersets by one player of the
    ``width`` strongest sets of an order. An AND or an OR of a set gives every subset of it a
    coefficient of the same size, so that its way up is strong throughout. Rows of no players where
    there are fewer sets.
    """
    n = model.n
    single = torch.eye(n, dtype=torch.bool, device=model.rho.device).expand(len(model), -1, -1)
    keys = Draws(torch.zeros(1, dtype=torch.int64, device=single.device)).bits("players", n)
    found = [_strongest(single, model.coefficient(single).abs(), width)]
    parents = single
    for order in range(2, max_order + 1):
        strength = _children(model, parents)
        count = min(width * order, strength[0].numel())  # a set has so many parents at most
        values, best = strength.flatten(1).topk(count)
        children = gather(parents, best // n) | F.one_hot(best % n, n).bool()
        # The same set from another parent has the same sum of keys.
        sums, by_key = (children * keys).sum(-1).sort(dim=-1, stable=True)
        again = F.pad(sums[:, 1:] == sums[:, :-1], (1, 0))
        values = values.gather(1, by_key).masked_fill(again, -1)
        parents = _strongest(gather(children, by_key), values, width)
        found.append(parents)
    return torch.cat(found, 1)


def rank(model: WalshModel, sets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` sets that vary v most, as ANDs or as ORs: bool ``(B, k, n)`` and ``(B, k)``.

    By the size of the interaction times the standard deviation of where it counts.
    """
    size = sets.sum(-1)
    share = 0.5**size
    spread = (share * (1 - share)).sqrt()
    as_and = (model.dividend(sets).abs() * spread).masked_fill(size == 0, -1)
    as_or = (model.or_dividend(sets).abs() * spread).masked_fill(size < 2, -1)
    strength = torch.cat([as_and, as_or], 1)
    values, index = strength.topk(min(count, strength.shape[1]))
    members = gather(sets, index % sets.shape[1]) & (values >= 0).unsqueeze(-1)
    return members, index >= sets.shape[1]


def counted(members: Tensor, is_or: Tensor, coalitions: Tensor) -> Tensor:
    """Where ANDs and ORs count, ``(B, m, k)``, 1 or 0; sets of no players nowhere."""
    held = coalitions.double() @ members.double().transpose(-1, -2)
    size = members.sum(-1).unsqueeze(-2)
    return ((held > 0) & (is_or.unsqueeze(-2) | (held == size))).double()


def gather(members: Tensor, index: Tensor) -> Tensor:
    """Some of the sets ``(B, k, n)``, by index ``(B, l)``."""
    return members.take_along_dim(index.unsqueeze(-1), 1)


def _children(model: WalshModel, parents: Tensor) -> Tensor:
    """|ĉ| of every set with one more player, ``(B, k, n)``; −1 where it is none."""
    rows = model.alpha.unsqueeze(-1) * model.characters(parents)
    own, more = log_prior(parents, model.rho), model.rho.log()
    strength = rows.transpose(-1, -2) @ signs(model.coalitions)
    strength = (strength * (own.unsqueeze(-1) + more.unsqueeze(-2)).exp()).abs()
    return strength.masked_fill(parents | ~parents.any(-1, keepdim=True), -1)


def _strongest(members: Tensor, strength: Tensor, width: int) -> Tensor:
    values, index = strength.topk(min(width, strength.shape[1]))
    return gather(members, index) & (values >= 0).unsqueeze(-1)
