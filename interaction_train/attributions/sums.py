"""From numbers for every element of an input to numbers for every player."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.game.masked import MaskedGame


def player_sums(game: MaskedGame, elements: Tensor) -> Tensor:
    """Sums ``(B, n)`` over the elements of each player, of numbers ``(B, ...)`` like the inputs.

    Differentiable.

    Examples:
        >>> import interaction_train as it
        >>> x, y = torch.ones(1, 1, 2, 4), torch.tensor([0])
        >>> game = it.MaskedGame(torch.nn.Flatten(), x, 0.0, it.GridPlayers(1, 2), labels=y)
        >>> player_sums(game, x.cumsum(-1))
        tensor([[ 6., 14.]])
    """
    batch, n, shape = len(game.present), game.n, game.present.shape[1:]
    single = torch.eye(n, dtype=torch.bool, device=game.present.device)
    count = 1 if game.players.samples is None else batch
    masks = game.players.mask(single.expand(count, n, n), shape)
    # First over axes on which masks do not differ, such as channels.
    alike = elements.sum_to_size(batch, *masks.shape[2:])
    return (alike.unsqueeze(1) * masks).flatten(2).sum(-1)
