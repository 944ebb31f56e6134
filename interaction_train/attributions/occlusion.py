"""Occlusion of players, of patches of players, and by several baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from interaction_train.attributions.subgames import over_baselines
from interaction_train.errors import InputError
from interaction_train.game.masked import ROWS, MaskedGame
from interaction_train.indices.curve import one_number

Patches = Sequence[Sequence[int]]


def occlusion(game: MaskedGame) -> Tensor:
    """v(N) − v(N∖i) of every player, ``(B, n)``: Occlusion-1 (Deng et al. 2024, Eq. 16 and 17).

    A player gets every effect that it takes part in whole: Σ of J(S) over S ∋ i. Baselines need
    not be constant, as the paper asks.

    Raises:
        InputError: a payoff of several numbers.
    """
    return occlusion_patch(game, patches=[[i] for i in range(game.n)])


def occlusion_patch(game: MaskedGame, *, patches: Patches) -> Tensor:
    """v(N) − v(N∖P) for every player i of a patch P, ``(B, n)`` (Eq. 18 and 19).

    A player gets every effect that its patch takes part in: Σ of J(S) over S with S∩P ≠ ∅.

    Args:
        game: its payoff is one number.
        patches: lists of players, a partition: every player is in exactly one.

    Raises:
        InputError: a player in two patches or in none, or a payoff of several numbers.
    """
    place = patch_places(game.n, patches).to(game.present.device)
    removed = place == torch.arange(len(patches), device=place.device).unsqueeze(-1)
    full = torch.zeros_like(removed[:1])
    values = one_number(game(~torch.cat([full, removed])))
    return (values[:, :1] - values[:, 1:])[:, place]


def prediction_difference(game: MaskedGame, *, absents: Tensor) -> Tensor:
    """The mean of :func:`occlusion` over baselines, ``(B, n)`` (Eq. 20 and 21).

    Baselines need not be constant, as the paper asks.

    Args:
        game: its payoff is one number; its own baseline is not used.
        absents: ``(K, ...)``, baselines of which each broadcasts to the samples.

    Raises:
        InputError: baselines that do not fit, or a payoff of several numbers.
    """
    return over_baselines(game, absents, occlusion, max(1, ROWS // (game.n + 1)))


def patch_places(n: int, patches: Patches) -> Tensor:
    """The patch that each of n players is in, int64 ``(n,)``; refuses what is no partition."""
    times = Counter(int(i) for patch in patches for i in patch)
    if sorted(times) != list(range(n)) or max(times.values()) > 1 or not all(patches):
        got = [list(patch) for patch in patches]
        raise InputError("patches", got, f"a partition of the players 0 … {n - 1}")
    places = torch.empty(n, dtype=torch.int64)
    for k, patch in enumerate(patches):
        places[list(patch)] = k
    return places
