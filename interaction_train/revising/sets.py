"""Which sets of cells a revision strengthens, and which it weakens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from interaction_train.errors import InputError, in_range, whole
from interaction_train.indices.exact import NOISE, all_coalitions, count_players
from interaction_train.sampling.random import Draws, content_hash

Choice = Literal["prototypical", "random"]


def several(n: int, device: torch.device | None = None) -> Tensor:
    """The indices of all sets of two or more players, ``(2^n − n − 1,)`` int64."""
    return (all_coalitions(n, device).sum(1) > 1).nonzero().flatten()


def check_counts(n: int, strengthen: int, weaken: int) -> None:
    """Refuse more sets than there are."""
    whole("strengthen", strengthen, 1)
    whole("weaken", weaken, 0)
    most = (1 << n) - n - 1 - strengthen
    if most < 0:
        in_range("strengthen", strengthen, 1, most + strengthen)
    if weaken > most:
        got = f"{weaken} besides {strengthen} to strengthen"
        raise InputError("weaken", got, f"0 to {most}: {n} players have {most + strengthen} sets")


def choose_sets(
    strengths: Tensor, strengthen: int, weaken: int, choice: Choice, x: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """Indices ``(B, m2)`` and ``(B, m1)`` of the sets to strengthen and to weaken.

    Weakened are the weakest of two or more players. Strengthened are the strongest; for the choice
    ``"random"`` any that are not weakened, from the seed and the image.
    """
    sets = several(count_players(strengths), strengths.device)
    sets = sets[strengths[:, sets].argsort(dim=-1, descending=True, stable=True)]
    rest, weak = sets.split([sets.shape[1] - weaken, weaken], 1)
    if choice == "random":
        draws = Draws(content_hash(x), seed, "revise_image")
        rest = rest.gather(1, draws.uniform("sets", rest.shape[1]).argsort(dim=-1, stable=True))
    return rest[:, :strengthen], weak


def without_interaction(strengths: Tensor) -> Tensor:
    """Samples whose sets of two or more players add no more than rounding does, bool ``(B,)``."""
    n = count_players(strengths)
    joint = all_coalitions(n, strengths.device).sum(1) > 1
    reach = strengths[:, ~joint].sum(-1)  # without interaction no value is larger
    noise = NOISE * torch.finfo(strengths.dtype).eps * 2 ** (n / 2) * reach
    return strengths[:, joint].amax(-1) <= noise
