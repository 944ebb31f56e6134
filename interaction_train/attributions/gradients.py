"""Gradients of a game's payoff, their sums on the way from absent to present, and by player."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from interaction_train.errors import InputError, checked_logits
from interaction_train.game.chunks import gradient_rows
from interaction_train.game.evaluation import evaluation_mode, without_grad
from interaction_train.game.masked import MaskedGame

_ELEMENTS = 2**15  # of a pass on a processor; small inputs take less time per row in large ones


def pass_rows(game: MaskedGame, total: int) -> int:
    """How many of ``total`` rows go through the network at once, forward and backward."""
    sample = game.present[0]
    most = min(total, _ELEMENTS // max(1, sample.numel()))
    return game.chunk_size or max(most, gradient_rows(sample, total))


def payoffs_at(game: MaskedGame, inputs: Tensor, samples: slice | Tensor) -> Tensor:
    """Payoffs ``(R,)`` of inputs ``(R, ...)`` with these samples' labels; differentiable.

    The caller holds the network in eval.

    Raises:
        InputError: a payoff of more than one number, such as ``"all"``.
    """
    # A copy: the network's first operation may be in place.
    logits = checked_logits(game.model(inputs.clone()), len(inputs))
    classes = (t[samples] for t in (game.labels, game.rivals) if t is not None)
    values = game.payoff(logits, *classes)
    if values.shape != (len(inputs),):
        raise InputError("payoff", f"values {tuple(values.shape)}", "one number for each input")
    return values


def payoff_gradients(
    game: MaskedGame, inputs: Tensor, samples: slice | Tensor, *, again: bool = False
) -> tuple[Tensor, Tensor]:
    """Leaves with the values of inputs ``(R, ...)``, and the payoffs' gradients there.

    ``again``: differentiable once more. The caller holds the network in eval.

    Raises:
        InputError: a network through which no gradient comes.
    """
    with torch.enable_grad():
        leaves = inputs.detach().requires_grad_()
        values = payoffs_at(game, leaves, samples)
        if not values.requires_grad:
            got = "a network whose logits have no gradient with respect to its input"
            raise InputError("game", got, "a network that can be differentiated")
        # A network may be constant in some inputs.
        return leaves, torch.autograd.grad(
            values.sum(), leaves, create_graph=again, materialize_grads=True
        )[0]


def require_floats(game: MaskedGame) -> None:
    """Refuse samples between which and the baseline there is nothing, as there is between ids."""
    if not game.present.is_floating_point():
        got, expected = f"samples of {game.present.dtype}", "floating point: ids have no gradient"
        raise InputError("game", got, f"{expected}; their embeddings, at a layer, have")


def path_points(
    game: MaskedGame, nodes: Tensor, rows: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Inputs b + t d in blocks of about ``rows``, for all samples and nodes t.

    Nodes are ``(P,)``, in the samples' dtype. Of each block the samples, the nodes, the inputs
    ``(S·P, ...)`` by sample and then by node, and the sample of each.
    """
    require_floats(game)
    batch, count = len(game.present), len(nodes)
    width, depth = max(1, rows // count), min(count, rows)
    for start in range(0, batch, width):
        some = slice(start, min(start + width, batch))
        present, absent = game.present[some].unsqueeze(1), game.absent[some].unsqueeze(1)
        each = torch.arange(some.start, some.stop, device=nodes.device)
        for first in range(0, count, depth):
            part = slice(first, min(first + depth, count))
            t = nodes[part].view(1, -1, *(1 for _ in present.shape[2:]))
            inputs = absent.lerp(present, t).flatten(0, 1)
            yield some, part, inputs, each.repeat_interleave(part.stop - part.start)
            if game.progress is not None:
                game.progress(len(inputs))


def path_payoffs(game: MaskedGame, nodes: Tensor, rows: int) -> Tensor:
    """Payoffs ``(B, P)`` at b + t d of nodes t ``(P,)``; without gradient."""
    with evaluation_mode(game.owner), without_grad():
        blocks = path_points(game, nodes.to(game.present), rows)
        values = torch.cat([payoffs_at(game, x, samples) for _, _, x, samples in blocks])
    return values.view(len(game.present), -1)


def path_gradients(game: MaskedGame, nodes: Tensor, weights: Tensor) -> Tensor:
    """Σ_p w_p d ⊙ ∂v/∂x at b + t_p d, with d = x − b, for every element: ``(B, ...)``.

    Nodes t_p and weights are ``(P,)``; memory is flat in their number.
    """
    rows = pass_rows(game, len(game.present) * len(nodes))
    # Tensors made in inference mode cannot take part in a backward pass; their copies can.
    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(game.owner):
        dtype = torch.promote_types(game.present.dtype, torch.float32)
        total = torch.zeros_like(game.present, dtype=dtype)
        nodes, weights = nodes.to(game.present), weights.to(total)
        for some, part, inputs, samples in path_points(game, nodes, rows):
            _, found = payoff_gradients(game, inputs, samples)
            by_node = found.to(dtype).unflatten(0, (-1, part.stop - part.start))
            total[some] += weighted_sum(weights[part], by_node)
        return total * (game.present - game.absent)


def weighted_sum(weights: Tensor, by_node: Tensor) -> Tensor:
    """Σ_p w_p of ``(S, P, ...)``; no matrix product, which may be rounded to TF32 on GPUs."""
    return (weights.view(1, -1, *(1 for _ in by_node.shape[2:])) * by_node).sum(1)


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
