"""Coalitions that several concepts share, found by description length.

A concept is a set of words, at first its players. A merge makes a set of words a new word, which
all concepts of its kind that hold them all use instead. With s_w the strength Σ|I| of the concepts
that use word w and f_w = s_w / Σ_w s_w, the description length is L + 10 E, L = Σ_w s_w ln(1/f_w)
and E = Σ_w f_w ln(1/f_w) (Ren et al., "Defining and Quantifying the Emergence of Sparse Concepts in
DNNs", 2023, as in its released code).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.indices.exact import all_coalitions

_MEAN_WEIGHT = 10.0  # of the mean length E beside the total length
_WIDE = 12  # words shared by two concepts, beyond which their subsets are too many to try
_ROUNDING = 1e-9  # decreases that differ by less are a tie


@dataclass(frozen=True)
class Merging:
    """Which words there are, and which of them concepts use: n players, then m merged sets.

    Attributes:
        players: bool ``(n + m, n)``, the players of each word.
        parts: bool ``(m, n + m)``, the words that each merged set was made of.
        is_or: bool ``(m,)``, whether a merged set is one of ORs.
        uses: bool ``(k, n + m)``, the words of each concept.
        before: description length of the concepts in players.
        after: and in words.
    """

    players: Tensor
    parts: Tensor
    is_or: Tensor
    uses: Tensor
    before: float
    after: float


def merge_shared(members: Tensor, is_or: Tensor, strength: Tensor, merges: int) -> Merging:
    """At most so many merges, each the one that shortens the description most per player in it.

    Candidates are all sets of two words or more that two concepts of a kind share; of what two
    share in more than 12 words, only the whole. Ties go to ANDs, then to the lowest index.

    Args:
        members: bool ``(k, n)``, the players of concepts.
        is_or: bool ``(k,)``.
        strength: ``(k,)`` float64, |I|.
        merges: at least 0.
    """
    n = members.shape[1]
    players, uses = torch.eye(n, dtype=torch.bool), members
    parts: list[Tensor] = []
    kinds: list[bool] = []
    lengths = [float(_length(strength @ uses.double()))]
    for _ in range(merges):
        found = _best(uses, is_or, strength, players, lengths[-1])
        if found is None:
            break
        part, kind, length = found
        users = _users(part[None], uses, is_or == kind)[0]
        uses = torch.cat([uses & ~(users[:, None] & part), users[:, None]], 1)
        players = torch.cat([players, players[part].any(0)[None]])
        parts.append(part)
        kinds.append(kind)
        lengths.append(length)
    widths = [torch.nn.functional.pad(part, (0, len(players) - len(part))) for part in parts]
    return Merging(
        players=players,
        parts=torch.stack(widths) if widths else torch.zeros(0, n, dtype=torch.bool),
        is_or=torch.tensor(kinds, dtype=torch.bool),
        uses=uses,
        before=lengths[0],
        after=lengths[-1],
    )


def _best(
    uses: Tensor, is_or: Tensor, strength: Tensor, players: Tensor, before: float
) -> tuple[Tensor, bool, float] | None:
    """The best merge: its words, whether it is one of ORs, and the length after it."""
    found = [(_shared(uses[is_or == kind]), kind) for kind in (False, True)]
    candidates = torch.cat([sets for sets, _ in found])
    if not len(candidates):
        return None
    of_ors = torch.tensor([kind for sets, kind in found for _ in range(len(sets))])
    users = _users(candidates, uses, is_or == of_ors[:, None])
    moved = (users.double() @ strength)[:, None]
    # Nothing is left of a word that only users hold, but for rounding of either sign.
    words = (strength @ uses.double() - moved * candidates).clamp(min=0)
    lengths = _length(torch.cat([words, moved], 1))
    # Words of a concept share no player.
    gains = (before - lengths) / (candidates.double() @ players.sum(1).double())
    best = float(gains.max())
    if best <= _ROUNDING * before:
        return None
    first = int((gains >= best - _ROUNDING * before).nonzero()[0])
    return candidates[first], bool(of_ors[first]), float(lengths[first])


def _shared(uses: Tensor) -> Tensor:
    """Every set of two words or more that two concepts share, bool ``(C, words)``, by index."""
    first, second = torch.triu_indices(len(uses), len(uses), 1)
    common = (uses[first] & uses[second]).unique(dim=0)
    subsets = [uses.new_zeros(0, uses.shape[1])]
    for whole in common:
        words = whole.nonzero().flatten()
        chosen = whole[None, words] if len(words) > _WIDE else all_coalitions(len(words))
        sets = whole.new_zeros(len(chosen), len(whole))
        sets[:, words] = chosen
        subsets.append(sets)
    every = torch.cat(subsets)
    every = every[every.sum(1) >= 2]
    return every.flip(1).unique(dim=0).flip(1)  # in the order of their index, bit i for word i


def _users(candidates: Tensor, uses: Tensor, right_kind: Tensor) -> Tensor:
    """Which concepts hold all words of each candidate, bool ``(C, k)``."""
    return (candidates.double() @ (~uses).double().T == 0) & right_kind


def _length(strength: Tensor) -> Tensor:
    """L + 10 E of words of these strengths, over the last axis."""
    total = strength.sum(-1, keepdim=True)
    frequency = torch.where(total > 0, strength / total, 0)
    entropy = torch.special.entr(frequency).sum(-1)
    return entropy * (total.squeeze(-1) + _MEAN_WEIGHT)
