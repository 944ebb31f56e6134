"""AND and OR interactions of value tensors, and the way back.

An AND of the players S counts where all of them are present, an OR where one of them is. Tensors
are in the order of :mod:`~interaction_train.indices.exact`, ``(..., 2^n)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.indices.exact import (
    all_coalitions,
    count_players,
    dividends,
    values_from_dividends as values_from_and,
)


def or_interactions(v: Tensor) -> Tensor:
    """OR interactions I_or(S) = −Σ_{L⊆S} (−1)^{|S|−|L|} v(N∖L), and I_or(∅) = v(∅).

    ``(..., 2^n)``; differentiable, O(n 2^n). They are the negated dividends of the dual game
    L ↦ v(N∖L) (Li & Zhang, "Defining and Quantifying AND-OR Interactions", 2023).

    Examples:
        >>> import torch
        >>> either = all_coalitions(2).any(1).float()  # one of two players is enough
        >>> or_interactions(either), dividends(either)
        (tensor([0., 0., 0., 1.]), tensor([ 0.,  1.,  1., -1.]))
    """
    return _with_constant(0 - dividends(v.flip(-1)), v[..., :1])  # no negative zeros


def values_from_and_or(i_and: Tensor, i_or: Tensor) -> Tensor:
    """v(S) = Σ_{L⊆S} I_and(L) + I_or(∅) + Σ_{L∩S≠∅} I_or(L), ``(..., 2^n)``.

    Raises:
        InputError: tensors of different numbers of players.

    Examples:
        >>> v = torch.tensor([0.0, 1.0, 2.0, 4.0])
        >>> half = v / 2
        >>> values_from_and_or(dividends(half), or_interactions(half))
        tensor([0., 1., 2., 4.])
    """
    _same_players(i_and, i_or)
    return values_from_and(i_and) + values_from_or(i_or)


def values_from_or(i_or: Tensor) -> Tensor:
    """v(S) = I_or(∅) + Σ_{L∩S≠∅} I_or(L): the inverse of :func:`or_interactions`."""
    nothing = _with_constant(i_or, 0 * i_or[..., :1])
    # What meets S is all but what lies in N∖S.
    return i_or.sum(-1, keepdim=True) - values_from_and(nothing).flip(-1)


def merge_single(i_and: Tensor, i_or: Tensor) -> tuple[Tensor, Tensor]:
    """The same game with the ORs of ∅ and of single players, which are ANDs too, among the ANDs.

    Raises:
        InputError: tensors of different numbers of players.
    """
    n = _same_players(i_and, i_or)
    single = all_coalitions(n, i_or.device).sum(-1) <= 1
    moved = i_or * single
    return i_and + moved, i_or - moved


def fewest_pairs(i_and: Tensor, i_or: Tensor) -> tuple[Tensor, Tensor]:
    """The same game, at most as strong in the sum of |I|, with no pair both AND and OR of one sign.

    The AND and the OR of two players sum to the players themselves, at equal strength: of a game's
    sparsest decompositions, which this leaves among them, it takes one of fewer interactions. The
    ORs of single players must be 0 (:func:`merge_single`).
    """
    n = _same_players(i_and, i_or)
    members = all_coalitions(n, i_and.device)
    pair = members.sum(-1) == 2
    smaller = torch.minimum(i_and.abs(), i_or.abs())
    both = torch.where(pair & (i_and * i_or > 0), i_and.sign() * smaller, 0)
    i_and, i_or = i_and - both, i_or - both
    i_and[..., 1 << torch.arange(n, device=i_and.device)] += both @ members.to(both)
    return i_and, i_or


def _with_constant(interactions: Tensor, constant: Tensor) -> Tensor:
    return torch.cat([constant, interactions[..., 1:]], -1)


def _same_players(i_and: Tensor, i_or: Tensor) -> int:
    n = count_players(i_or, name="i_or")
    if count_players(i_and, name="i_and") != n:
        raise InputError("i_or", f"shape {tuple(i_or.shape)}", f"as i_and, {tuple(i_and.shape)}")
    return n
