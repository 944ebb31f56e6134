"""Which sets of players decide the class, by their size; experimental."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.shapley import all_values
from interaction_train.errors import one_of
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.exact import all_coalitions, summable, values_from_dividends

READINGS = ("minimal", "share", "pivotal")


def influence_orders(game: MaskedGame, reading: str = "minimal") -> Tensor:
    """How much every player decides the class in sets of k players, ``(B, n, n)``: k − 1, player.

    Experimental: Reing et al. 2021 sort players by the number of others with which they change the
    class; the definitions are our own. A set T flips if argmax f(x_{N∖T}) ≠ argmax f(x).

    - ``minimal``: the number of sets of size k with the player that flip while no part of them
      does.
    - ``share``: the share of sets of size k with the player that flip.
    - ``pivotal``: the share of these of which exactly one of T and T∖i flips.

    Args:
        game: of at most 20 players; of its payoff and labels nothing is used.
        reading: which of the three.

    Raises:
        InputError: more players, or an unknown reading.

    Examples:
        >>> import interaction_train as it
        >>> def majority(x):  # of three players
        ...     return torch.stack([x.sum(1) - 1.5, 0 * x[:, 0]], 1)
        >>> game = it.MaskedGame(majority, torch.ones(1, 3), 0.0, it.UnitPlayers(), "all")
        >>> influence_orders(game)[0]  # each player in two sets of two
        tensor([[0., 0., 0.],
                [2., 2., 2.],
                [0., 0., 0.]])
    """
    one_of("reading", reading, READINGS)
    flips = _flips(game)
    n = game.n
    members = all_coalitions(n, flips.device)
    if reading == "minimal":
        parts = values_from_dividends(flips)  # how many parts of T flip, T included
        counted = (flips * (parts == 1)).unsqueeze(1) * members.T
    elif reading == "share":
        counted = flips.unsqueeze(1) * members.T
    else:
        sets = torch.arange(1 << n, device=flips.device)
        without = sets & ~(1 << torch.arange(n, device=flips.device)).unsqueeze(-1)
        counted = (flips.unsqueeze(1) != flips[:, without]).to(flips)
    sizes = torch.nn.functional.one_hot(members.sum(-1), n + 1)[:, 1:].to(flips)
    found = (counted @ sizes).transpose(1, 2)
    if reading != "minimal":
        found = found / (members.to(flips).T @ sizes).T
    return found.float()


def _flips(game: MaskedGame) -> Tensor:
    """Whether removing T changes the class, float64 ``(B, 2^n)`` of zeros and ones."""

    def chosen(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.argmax(-1).float()

    none = torch.zeros(len(game.present), dtype=torch.int64, device=game.present.device)
    classes = all_values(
        MaskedGame(
            game.model, game.present, game.absent, game.players, chosen, none,
            chunk_size=game.chunk_size, owner=game.owner, progress=game.progress,
        )
    )  # fmt: skip
    return summable((classes != classes[:, -1:]).flip(-1)).double()
