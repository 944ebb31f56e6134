"""Sentences as inputs: players that are words, and what an absent word shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.groups import GroupPlayers
from interaction_train.game.samples import filling


class TokenPlayers(GroupPlayers):
    """Positions of a sentence, token ids ``(L,)`` or embeddings ``(L, D)``, or groups of them.

    Args:
        groups: the positions of each player by their index, such as the pieces of a word, or a
            mapping of player names to them; default: every position is one. What is in no group,
            such as special tokens, is background: always present.
        names: of the L positions, from which players without a name take theirs; default
            ``"token 3"``.

    Raises:
        InputError: a position in two groups or beyond the sample, an empty group, or names of
            another number.

    Examples:
        >>> players = TokenPlayers([[1], [2, 3]])  # a word of two pieces; a special token at 0
        >>> players.mask(torch.tensor([False, True]), (4,))
        tensor([ True, False,  True,  True])
    """

    place, letter, joint = "position", "token ", " "


@dataclass(frozen=True)
class SpecialIds:
    """What some ids mean to a network for tokens.

    Attributes:
        mask: stands for an absent token.
        kept: are always present, padding and others.
        pad: fills sentences up; None where it is not known.
    """

    mask: int
    kept: tuple[int, ...] = ()
    pad: int | None = None


def special_ids(model: object) -> SpecialIds | None:
    """Those of a network that has, or a part of which has, the attribute ``mask_id``.

    Beside it ``kept_ids`` and ``pad_id``; None without it.
    """
    for module in model.modules() if isinstance(model, nn.Module) else ():
        mask: Any = getattr(module, "mask_id", None)
        if mask is not None:
            kept = tuple(getattr(module, "kept_ids", ()))
            return SpecialIds(int(mask), kept, getattr(module, "pad_id", None))
    return None


def kept_tokens(model: object, ids: Tensor) -> Tensor:
    """Which of the ids are always present, bool, as :func:`special_ids` of the network says."""
    return _kept(special_ids(model), ids)


def token_baseline(model: object, mask_id: float | None, ids: Tensor) -> Tensor:
    """What the tokens show where they are absent, ``(B, L)`` of ids ``(B, L)``.

    The mask's id, which is the network's by default; tokens that are always present stay.

    Raises:
        InputError: no mask in the network either, or one that is no id.
    """
    special = special_ids(model)
    if mask_id is None and special is not None:
        mask_id = special.mask
    if mask_id is None:
        expected = "the id of a mask or padding token, as the network has no mask_id"
        raise InputError("baseline", None, expected)
    if mask_id < 0:
        raise InputError("baseline", mask_id, f"a token's id, as the inputs are {ids.dtype}")
    shown = filling("baseline", mask_id, ids)
    return torch.where(_kept(special, ids), ids, shown)


def _kept(special: SpecialIds | None, ids: Tensor) -> Tensor:
    kept = () if special is None else special.kept
    return sum((ids == one for one in kept), torch.zeros_like(ids, dtype=torch.bool))
