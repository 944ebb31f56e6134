"""How many concepts a game needs, and how much of it a few explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.concepts.concepts import Concepts
from interaction_train.concepts.patterns import least_squares, spread, values_of
from interaction_train.concepts.selection import decomposed, r_squared, ranked
from interaction_train.errors import InputError, at_least, in_range
from interaction_train.indices.exact import all_coalitions, count_players, dividends

_SALIENT = 0.05  # of the strongest interaction, above which the released code calls one salient


@dataclass(frozen=True)
class Fidelity:
    """What the strongest concepts explain, for B samples and C counts of concepts.

    Attributes:
        counts: the C counts.
        r2: ``(B, C)``, R² over all coalitions with the values of the decomposition; NaN where the
            game is constant.
        r2_refitted: ``(B, C)``, the same with values refitted by least squares.
        explained_share: ``(B, C)``, Σ_sel |I| / Σ|I|; NaN where there are no interactions.
        explain_ratio: ``(B, C)``, Σ_sel |I| / (Σ_sel |I| + |Σ_rest I|) of the released code. It
            flatters: signs cancel in the sum over the rest.
        k90: ``(B,)`` int64, how many of the strongest make 90 % of Σ|I|.
        salient: ``(B,)`` int64, how many have |I| > .05 max |I|.
    """

    counts: tuple[int, ...]
    r2: Tensor
    r2_refitted: Tensor
    explained_share: Tensor
    explain_ratio: Tensor
    k90: Tensor
    salient: Tensor


def fidelity(concepts: Concepts, v: Tensor, counts: Sequence[int]) -> Fidelity:
    """What the strongest concepts of a decomposition explain of its game.

    Args:
        concepts: a decomposition of ``v``.
        v: the game, ``(B, 2^n)``, or ``(2^n,)`` for one sample.
        counts: numbers of concepts, 1 to 2^(n+1).

    Raises:
        InputError: no counts, or one out of range; ``v`` no finite value tensor, or not of the
            concepts' shape.
    """
    values, weights, constant = decomposed(concepts, v)
    n = concepts.n
    if not counts:
        raise InputError("counts", "none", "at least one number of concepts")
    for count in counts:
        in_range("counts", count, 1, 2 << n)
    order, used = ranked(weights)
    ordered = weights.gather(-1, order)
    raw, refitted = [], []
    for count in counts:
        index, kept = order[:, :count], ordered[:, :count]
        raw.append(constant.unsqueeze(-1) + values_of(spread(kept, index, n)))
        free, best = least_squares(values, index, used[:, :count])
        refitted.append(free.unsqueeze(-1) + values_of(spread(best, index, n)))
    last = torch.tensor(counts, device=order.device) - 1
    strength = ordered.abs().cumsum(-1)
    total = strength[:, -1:]
    rest = (ordered.sum(-1, keepdim=True) - ordered.cumsum(-1))[:, last].abs()
    return Fidelity(
        counts=tuple(counts),
        r2=torch.stack([r_squared(values, fitted) for fitted in raw], -1).to(v),
        r2_refitted=torch.stack([r_squared(values, fitted) for fitted in refitted], -1).to(v),
        explained_share=(strength[:, last] / total).to(v),
        explain_ratio=(strength[:, last] / (strength[:, last] + rest)).to(v),
        k90=k90(weights).to(v.device),
        salient=(ordered.abs() > _SALIENT * ordered[:, :1].abs()).sum(-1).to(v.device),
    )


def k90(interactions: Tensor) -> Tensor:
    """How many of the strongest make 90 % of Σ|I|, ``(..., sets)`` → ``(...)`` int64; 0 of none."""
    strength = interactions.abs().sort(-1, descending=True).values.cumsum(-1)
    total = strength[..., -1:]
    enough = strength >= (0.9 - 1e-12) * total
    return (~enough).sum(-1) + (total[..., 0] > 0).long()


def strength_by_order(interactions: Tensor) -> Tensor:
    """Σ_{|S|=m} |I(S)| of the sets of m = 1 … n players, ``(..., 2^n)`` → ``(..., n)``."""
    n = count_players(interactions, least=1, name="interactions")
    sizes = all_coalitions(n, interactions.device).sum(-1)
    return interactions.abs() @ torch.nn.functional.one_hot(sizes).to(interactions)[:, 1:]


def same_interactions(u: Tensor, v: Tensor, tol: float) -> Tensor:
    """Whether two games have the same dividends up to ``tol``, bool ``(...)``, sample by sample.

    An explanation is objective if its game has the interactions of the network's (survey,
    Definition 1). All the interactions of a decomposition are, a few of them in general not.

    Args:
        u: a game, ``(..., 2^n)``.
        v: another, of the same shape.
        tol: in the unit of the payoff, at least 0. A rounding error of ``v`` counts up to 2^|S|
            times in the dividend of S.

    Raises:
        InputError: tensors of different shapes, no value tensors, or a ``tol`` below 0.
    """
    at_least("tol", tol, 0)
    count_players(u, name="u")
    count_players(v)
    if u.shape != v.shape:
        raise InputError("u", f"shape {tuple(u.shape)}", f"as v, {tuple(v.shape)}")
    return (dividends(u) - dividends(v)).abs().amax(-1) <= tol
