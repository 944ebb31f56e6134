"""Effects of all sets of players shared out among sets of at most k: synergy functions' policies.

After Lundstrom & Razaviyayn, "Distributing Synergy Functions", 2023; the policies are written from
their definitions, and the full paper was not at hand. The effect of a set is its dividend.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from interaction_train.attributions.integrated_hessian import integrated_hessian
from interaction_train.errors import InputError, in_range, one_of
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.exact import all_coalitions, count_players, values_from_dividends

POLICIES = ("shapley_taylor", "recursive_shapley", "sum_of_powers", "integrated_hessian")


def distribute(
    policy: str, effects: Tensor | MaskedGame, *, order: int, augmented: bool = False
) -> Tensor:
    """Values of the sets T of 1 to k = ``order`` players, ``(..., 2^n)``, which sum to v(N) − v(∅).

    Sets of more players, and the empty one, get 0.

    - ``shapley_taylor``: fewer than k players keep their effect; sets of k share those of all S
      around them equally.
    - ``recursive_shapley``: J(S) goes to T ⊆ S by the share of the |S|^k sequences of k players
      out of S whose players are T's.
    - ``sum_of_powers``: fewer than k players keep their effect; a set T of k gets, of each S around
      it, what Integrated Gradients gives T's players of J(S), over C(|S| − 1, k − 1).
    - ``integrated_hessian``: of order 2 alone, see
      :func:`~interaction_train.attributions.integrated_hessian.integrated_hessian`.

    Args:
        policy: one of the four.
        effects: the game's dividends, ``(..., 2^n)``; for ``sum_of_powers`` the
            :func:`~interaction_train.attributions.allocation.allocation` ``(..., n, 2^n)`` of
            Integrated Gradients; for ``integrated_hessian`` the game itself.
        order: k, from 1 to n.
        augmented: leave effects of at most k players whole, which ``shapley_taylor`` and
            ``sum_of_powers`` do in any case.

    Raises:
        InputError: an unknown policy, effects that do not fit, or an order out of range.

    Examples:
        >>> J = torch.tensor([0.0, 0.0, 0.0, 1.0])  # of x0 x1
        >>> distribute("recursive_shapley", J, order=2)
        tensor([0.0000, 0.2500, 0.2500, 0.5000])
        >>> distribute("shapley_taylor", J, order=2)
        tensor([0., 0., 0., 1.])
    """
    one_of("policy", policy, POLICIES)
    if policy == "integrated_hessian":
        if not isinstance(effects, MaskedGame):
            raise InputError("effects", type(effects).__name__, "a MaskedGame for this policy")
        in_range("order", order, 2, 2)
        return integrated_hessian(effects, augmented=augmented)
    if not isinstance(effects, Tensor):
        raise InputError("effects", type(effects).__name__, "a tensor for this policy")
    n = count_players(effects, 1, "effects")
    in_range("order", order, 1, n)
    members = all_coalitions(n, effects.device)
    sizes = members.sum(-1)
    if policy == "sum_of_powers":
        if effects.dim() < 2 or effects.shape[-2] != n:
            raise InputError("effects", f"shape {tuple(effects.shape)}", f"(..., {n}, {1 << n})")
        own = effects.sum(-2)
        around = supersets(effects * _shares(n, order, -1)[sizes].to(effects))
        top = (around * members.T).sum(-2)
    else:
        own = effects
    if policy == "shapley_taylor":
        top = supersets(effects * _shares(n, order, 0)[sizes].to(effects))
    if policy == "recursive_shapley":
        whole = (sizes <= order) & augmented
        kept = own * whole
        spread = own * ~whole * (sizes.clamp(min=1).to(own) ** -order)
        ways = torch.tensor([onto(order, size) for size in range(n + 1)]).to(own)
        return (kept + supersets(spread) * ways[sizes]) * (sizes > 0)
    return own * ((sizes > 0) & (sizes < order)) + top * (sizes == order)


def supersets(values: Tensor) -> Tensor:
    """Σ of the values of all S ⊇ T, ``(..., 2^n)``."""
    return values_from_dividends(values.flip(-1)).flip(-1)


def onto(length: int, size: int) -> int:
    """How many sequences of a length have exactly the players of a set of that size."""
    return sum((-1) ** (size - j) * math.comb(size, j) * j**length for j in range(1, size + 1))


def _shares(n: int, order: int, less: int) -> Tensor:
    """1/C(s + less, k + less) for sets of s = 0 … n players, 0 where s < k."""
    sizes = range(n + 1)
    shares = [1 / math.comb(s + less, order + less) if s >= order else 0.0 for s in sizes]
    return torch.tensor(shares, dtype=torch.float64)
