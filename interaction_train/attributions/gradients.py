"""Gradients of a game's payoff at inputs, and their sums on the way from absent to present."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from interaction_train.errors import InputError, checked_logits
from interaction_train.game.chunks import gradient_rows
from interaction_train.game.evaluation import evaluation_mode
from interaction_train.game.masked import MaskedGame


def payoffs_at(game: MaskedGame, inputs: Tensor, samples: slice | Tensor) -> Tensor:
    """Payoffs ``(R,)`` of inputs ``(R, ...)`` with these samples' labels; differentiable, in eval.

    Raises:
        InputError: a payoff of more than one number, such as ``"all"``.
    """
    with evaluation_mode(game.owner):
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

    ``again``: differentiable once more. The network is left without a trace.

    Raises:
        InputError: a network through which no gradient comes.
    """
    with torch.enable_grad():
        leaves = inputs.detach().clone().requires_grad_()
        values = payoffs_at(game, leaves, samples)
        if not values.requires_grad:
            got = "a network whose logits have no gradient with respect to its input"
            raise InputError("game", got, "a network that can be differentiated")
        # A network may be constant in some inputs.
        return leaves, torch.autograd.grad(
            values.sum(), leaves, create_graph=again, materialize_grads=True
        )[0]


def path_points(
    game: MaskedGame, nodes: Tensor, rows: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Inputs b + t d in blocks of about ``rows``, for all samples and nodes t ``(P,)``.

    Of each block the samples, the nodes, the inputs ``(S·P, ...)`` by sample and then by node, and
    the sample of each.
    """
    batch, count = len(game.present), len(nodes)
    width, depth = max(1, rows // count), min(count, rows)
    for start in range(0, batch, width):
        some = slice(start, min(start + width, batch))
        present, absent = game.present[some].unsqueeze(1), game.absent[some].unsqueeze(1)
        each = torch.arange(some.start, some.stop, device=nodes.device)
        for first in range(0, count, depth):
            part = slice(first, min(first + depth, count))
            t = nodes[part].to(present).view(1, -1, *(1 for _ in present.shape[2:]))
            inputs = absent.lerp(present, t).flatten(0, 1)
            yield some, part, inputs, each.repeat_interleave(part.stop - part.start)
            if game.progress is not None:
                game.progress(len(inputs))


def path_gradients(game: MaskedGame, nodes: Tensor, weights: Tensor) -> Tensor:
    """Σ_p w_p d ⊙ ∂v/∂x at b + t_p d, with d = x − b, for every element: ``(B, ...)``.

    Memory is flat in the number of nodes t_p.
    """
    rows = game.chunk_size or gradient_rows(game.present[0], len(game.present) * len(nodes))
    # Tensors made in inference mode cannot take part in a backward pass; their copies can.
    with torch.inference_mode(False), torch.no_grad():
        dtype = torch.promote_types(game.present.dtype, torch.float32)
        total = torch.zeros_like(game.present, dtype=dtype)
        for some, part, inputs, samples in path_points(game, nodes, rows):
            _, found = payoff_gradients(game, inputs, samples)
            found = found.to(dtype).unflatten(0, (-1, part.stop - part.start))
            total[some] += torch.einsum("p,sp...->s...", weights[part].to(dtype), found)
        return total * (game.present - game.absent)
