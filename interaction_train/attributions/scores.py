"""How well attributions fit a game's changes, and a region that a person marked."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.shapley import all_values
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide
from interaction_train.indices.exact import all_coalitions


def infidelity(game: MaskedGame, a: Tensor) -> Tensor:
    """The mean over all T ≠ ∅ of (Σ_{i∈T} a_i − (v(N) − v(N∖T)))², ``(B,)``; exact.

    Deng et al. 2024, Eq. 50, over the sets T of removed players. The paper's attributions are per
    unit of a perturbation; these are the change itself, so that it is 0 for an additive game's own
    changes. Methods that keep the principles do not minimise it.

    Args:
        game: of at most 20 players; its payoff is one number.
        a: ``(B, n)``, attributions.

    Raises:
        InputError: more players, a payoff of several numbers, or attributions that do not fit.

    Examples:
        >>> import interaction_train as it
        >>> def network(x):  # logits x0 x1 and 0
        ...     return torch.stack([x[:, 0] * x[:, 1], 0 * x[:, 0]], 1)
        >>> x, y = torch.ones(1, 2), torch.tensor([0])
        >>> game = it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y)
        >>> infidelity(game, torch.tensor([[0.5, 0.5]])), infidelity(game, torch.ones(1, 2))
        (tensor([0.1667]), tensor([0.3333]))
    """
    wanted = (len(game.present), game.n)
    if a.shape != wanted:
        raise InputError("a", f"shape {tuple(a.shape)}", f"attributions {wanted}")
    return infidelity_of(all_values(game), a)


def infidelity_of(values: Tensor, a: Tensor) -> Tensor:
    """:func:`infidelity` from a game's values ``(B, 2^n)``."""
    removed = all_coalitions(a.shape[-1], values.device)[1:]
    claimed = wide(a) @ wide(removed).T
    without = values.flip(-1)[:, 1:]  # of N∖T, whose index is the complement of T's
    return (claimed - wide(values[:, -1:] - without)).square().mean(-1).to(values)


def box_overlap(a: Tensor, box: Tensor) -> Tensor:
    """What share of a marked box the m strongest attributions fall on, m = |box|: ``(B,)``.

    |box ∩ M|/|box|, where M are the m players of the largest |a|; of equal ones those of the lowest
    numbers (Deng et al. 2024, Eq. 51, where players are pixels).

    Args:
        a: ``(B, n)``, attributions.
        box: bool ``(B, n)``, or ``(n,)`` for all samples: the players inside of it, at least one.

    Raises:
        InputError: a box of another dtype or shape, or an empty one.

    Examples:
        >>> a = torch.tensor([[3.0, 0.5, -2.0, 1.0]])
        >>> box_overlap(a, torch.tensor([True, True, False, False]))
        tensor([0.5000])
    """
    shape = tuple(box.shape)
    if box.dtype != torch.bool or a.dim() != 2 or shape not in (tuple(a.shape), a.shape[1:]):
        expected = "bool (B, n) or (n,) for attributions (B, n)"
        raise InputError("box", f"{box.dtype} {shape} for {tuple(a.shape)}", expected)
    size = box.expand(a.shape).sum(-1, keepdim=True)
    if not bool((size > 0).all()):
        raise InputError("box", "an empty one", "at least one player in every box")
    order = a.abs().argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(-1)
    return ((rank < size) & box).sum(-1) / size.squeeze(-1)
