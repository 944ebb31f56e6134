"""Sentences as inputs: players that are words, and what an absent word shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.groups import GroupPlayers


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


def special_ids(model: object) -> tuple[int | None, tuple[int, ...]]:
    """The id that stands for an absent token, and those always present, of a network for tokens.

    Such a network, or a part of it, has the attributes ``mask_id`` and ``kept_ids``, of padding and
    other special tokens; ``(None, ())`` without.
    """
    for module in model.modules() if isinstance(model, nn.Module) else ():
        mask_id: Any = getattr(module, "mask_id", None)
        if mask_id is not None:
            return int(mask_id), tuple(getattr(module, "kept_ids", ()))
    return None, ()


def kept_tokens(model: object, ids: Tensor) -> Tensor:
    """Which of the ids are always present, bool, as :func:`special_ids` of the network says."""
    _, kept = special_ids(model)
    return sum((ids == one for one in kept), torch.zeros_like(ids, dtype=torch.bool))


def token_baseline(model: object, mask_id: float | None, ids: Tensor) -> Tensor:
    """What the tokens show where they are absent, ``(B, L)`` of ids ``(B, L)``.

    The mask's id, which is the network's by default; tokens that are always present stay.

    Raises:
        InputError: no mask in the network either, or one that is no id.
    """
    own, _ = special_ids(model)
    mask_id = own if mask_id is None else mask_id
    if mask_id is None:
        expected = "the id of a mask or padding token, as the network has no mask_id"
        raise InputError("baseline", None, expected)
    if mask_id != int(mask_id) or mask_id < 0:
        raise InputError("baseline", mask_id, f"a token's id, as the inputs are {ids.dtype}")
    return ids.masked_fill(~kept_tokens(model, ids), int(mask_id))
