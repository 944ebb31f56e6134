"""First and second derivatives by player, summed on the way from absent to present."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.gradients import (
    pass_rows,
    path_points,
    payoff_gradients,
    player_sums,
    weighted_sum,
)
from interaction_train.attributions.subgames import game_at
from interaction_train.game.evaluation import evaluation_mode
from interaction_train.game.masked import MaskedGame


def path_derivatives(
    game: MaskedGame, nodes: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ_p w_p ∂_i g(t_p) ``(B, n)`` and Σ_p w_p ∂_ij g(t_p) ``(B, n, n)``, by two sets of weights.

    g is the payoff of b + Σ_i t_i d_i, where d_i is the part of d = x − b on player i, and t_p has
    the same number for all players. By double backward passes, one for each player. Memory is flat
    in the number of nodes.

    Raises:
        InputError: a payoff of several numbers, or a network without gradient.
    """
    n, batch = game.n, len(game.present)
    rows = pass_rows(game, batch * len(nodes))
    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(game.owner):
        dtype = torch.promote_types(game.present.dtype, torch.float32)
        slopes = torch.zeros(batch, n, dtype=dtype, device=game.present.device)
        bends = slopes.new_zeros(batch, n, n)
        nodes, first, second = nodes.to(game.present), first.to(slopes), second.to(slopes)
        for some, part, inputs, samples in path_points(game, nodes, rows):
            inner = game_at(game, samples, inputs, game.absent[samples])
            d = game.present[samples] - inner.absent
            leaves, gradient = payoff_gradients(game, inputs, samples, again=True)
            slope = player_sums(inner, gradient.detach() * d).to(dtype)
            bend = _bends(inner, leaves, gradient, d).to(dtype)
            count = (-1, part.stop - part.start)
            slopes[some] += weighted_sum(first[part], slope.unflatten(0, count))
            bends[some] += weighted_sum(second[part], bend.unflatten(0, count))
        return slopes, bends


def _bends(game: MaskedGame, leaves: Tensor, gradient: Tensor, d: Tensor) -> Tensor:
    """d_i · H d_j at the game's inputs, whose gradients are differentiable: ``(R, n, n)``."""
    batch, n = len(leaves), game.n
    if not gradient.requires_grad:  # the network is linear
        return d.new_zeros(batch, n, n)
    single = torch.eye(n, dtype=torch.bool, device=d.device).expand(batch, n, n)
    masks = game.players.mask(single, leaves.shape[1:])
    found = []
    for i in range(n):
        (product,) = torch.autograd.grad(
            gradient, leaves, d * masks[:, i], retain_graph=i < n - 1, materialize_grads=True
        )
        found.append(player_sums(game, d * product))
    return torch.stack(found, 1)
