"""What a learned baseline minimises: interactions of low order, or all of them.

A baseline b that is no real absence makes spurious interactions of low order: the less of a sample
is present, the stranger its mixture with b (Ren et al., "Can we faithfully represent absence states
to compute Shapley values on a DNN?", 2023; survey, Sec. 3).

Every objective maps a game of B samples to their losses ``(B,)``, differentiable with respect to
whatever requires grad, which ``game.absent`` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

from interaction_train.errors import InputError, at_least, in_range, one_of
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import one_number
from interaction_train.indices.exact import all_coalitions, dividends
from interaction_train.sampling import coalitions
from interaction_train.sampling.random import Draws, content_hash

Objective = Callable[[MaskedGame, int, Draws | None], Tensor]

MOST_PLAYERS = 12  # of exact interactions


def low_order_shapley(game: MaskedGame, contexts: int = 100, draws: Draws | None = None) -> Tensor:
    """Σ_{m < ⌊n/2⌋} Σ_i |φ^(m)(i)|, ``(B,)``, of :func:`order_gains`'s sampled φ^(m).

    The absolute value of a sampled mean is biased up, by about .8 σ/√contexts where the mean is 0.

    Args:
        game: of 2 players at least; its payoff is one number.
        contexts: contexts S of each order m; all of them, exactly, where there are no more.
        draws: random numbers per sample; default: seed 0, by the samples' content.

    Raises:
        InputError: a single player, no contexts, or a payoff of several numbers.
    """
    return torch.stack([gain.abs().sum(-1) for gain in order_gains(game, contexts, draws)]).sum(0)


def low_order_marginal(game: MaskedGame, contexts: int = 100, draws: Draws | None = None) -> Tensor:
    """Σ_{m < ⌊n/2⌋} Σ_i E_{|S|=m} |v(S∪i) − v(S)|, ``(B,)``; arguments as low_order_shapley's."""
    gains = order_gains(game, contexts, draws, absolute=True)
    return torch.stack([gain.sum(-1) for gain in gains]).sum(0)


def dividend_l1(game: MaskedGame, contexts: int = 0, draws: Draws | None = None) -> Tensor:
    """Σ_{S≠∅} |I(S)| of the exact Harsanyi dividends, ``(B,)``; nothing is drawn.

    Its trivial minimum is the sample itself, b = x, where nothing is ever absent.

    Raises:
        InputError: more than 12 players, or a payoff of several numbers.
    """
    in_range("players", game.n, 1, MOST_PLAYERS)
    values = one_number(game(all_coalitions(game.n, game.present.device), grad=True))
    return dividends(values)[:, 1:].abs().sum(-1)


OBJECTIVES: dict[str, Objective] = {
    "low_order_shapley": low_order_shapley,
    "low_order_marginal": low_order_marginal,
    "dividend_l1": dividend_l1,
}


def get_objective(objective: str | Objective) -> Objective:
    """Look an objective up by name; callables pass through."""
    if callable(objective):
        return objective
    one_of("objective", objective, OBJECTIVES)
    return OBJECTIVES[objective]


def order_gains(
    game: MaskedGame, contexts: int, draws: Draws | None = None, absolute: bool = False
) -> list[Tensor]:
    """φ^(m)(i) = E_{|S|=m, i∉S} [v(S∪i) − v(S)] of the orders m < ⌊n/2⌋: for each ``(B, n)``.

    One set of contexts serves all players: v(S), and v(S∪i) of every i outside S, n − m + 1
    evaluations instead of 2 (n − m). A player that no context leaves out has a gain of 0.

    Args:
        game: of 2 players at least; its payoff is one number.
        contexts: contexts of each order; all of them, exactly, where there are no more.
        draws: random numbers per sample; default: seed 0, by the samples' content.
        absolute: the mean of |v(S∪i) − v(S)| instead.

    Raises:
        InputError: a single player, no contexts, or a payoff of several numbers.

    Examples:
        >>> import interaction_train as it
        >>> def network(x):  # logits x0 x1 + x2 and 0
        ...     return torch.stack([x[:, 0] * x[:, 1] + x[:, 2], 0 * x[:, 0]], 1)
        >>> x, y = torch.ones(1, 4), torch.tensor([0])
        >>> game = it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y)
        >>> order_gains(game, contexts=10)[1]  # one other player is present
        tensor([[0.3333, 0.3333, 1.0000, 0.0000]])
    """
    if game.n < 2:
        raise InputError("players", f"{game.n} player", "at least 2 players")
    at_least("contexts", contexts, 1)
    draws = draws or Draws(content_hash(game.present), name="baselines")
    parts, rows = [], []
    for m in range(game.n // 2):
        inside = context_set(game, m, contexts, draws)
        # The players outside come first, in their order: 0 before 1.
        outside = inside.byte().argsort(dim=-1, stable=True)[..., : game.n - m]
        joined = inside.unsqueeze(-2) | torch.nn.functional.one_hot(outside, game.n).bool()
        parts.append(outside)
        rows.append(torch.cat([inside.unsqueeze(-2), joined], -2).flatten(1, 2))
    values = one_number(game(torch.cat(rows, 1), grad=True))
    found = []
    for outside, block in zip(parts, values.split([r.shape[1] for r in rows], 1), strict=True):
        alone, joined = block.unflatten(1, (outside.shape[1], -1)).tensor_split([1], -1)
        gains = (joined - alone).abs() if absolute else joined - alone
        every = gains.new_zeros(*gains.shape[:2], game.n)
        times = every.scatter(-1, outside, 1.0).sum(1).clamp(min=1)
        found.append(every.scatter(-1, outside, gains).sum(1) / times)
    return found


def context_set(game: MaskedGame, m: int, contexts: int, draws: Draws) -> Tensor:
    """Contexts of m players, bool ``(B, K, n)``: all of them, or else as many as asked for."""
    device, batch = game.present.device, len(game.present)
    if math.comb(game.n, m) <= contexts:
        every = _every(game.n, m).to(device, non_blocking=True)
        return every.expand(batch, -1, -1)
    return coalitions.uniform(draws.bits(f"contexts {m}", contexts, game.n), m)


@lru_cache(maxsize=64)
def _every(n: int, m: int) -> Tensor:
    chosen = list(combinations(range(n), m))
    index = torch.tensor(chosen, dtype=torch.int64).view(len(chosen), m)
    return torch.zeros(len(chosen), n, dtype=torch.bool).scatter(1, index, True)
