"""Gradients of a game's payoff at inputs, and their sums on the way from absent to present."""

from __future__ import annotations

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


def path_gradients(game: MaskedGame, nodes: Tensor, weights: Tensor) -> Tensor:
    """Σ_p w_p d ⊙ ∂v/∂x at b + t_p d, with d = x − b, for every element: ``(B, ...)``.

    Memory is flat in the number of nodes t_p.
    """
    batch, count = len(game.present), len(nodes)
    rows = game.chunk_size or gradient_rows(game.present[0], batch * count)
    width, depth = max(1, rows // count), min(count, rows)
    parts = []
    # Tensors made in inference mode cannot take part in a backward pass; their copies can.
    with torch.inference_mode(False), torch.no_grad():
        dtype = torch.promote_types(game.present.dtype, torch.float32)
        for block in torch.arange(batch, device=game.present.device).split(width):
            present, absent = game.present[block], game.absent[block]
            total = torch.zeros_like(present, dtype=dtype)
            for t, w in zip(nodes.to(present).split(depth), weights.split(depth), strict=True):
                shape = (1, len(t), *(1 for _ in present.shape[1:]))
                points = absent.unsqueeze(1).lerp(present.unsqueeze(1), t.view(shape))
                samples = block.repeat_interleave(len(t))
                _, found = payoff_gradients(game, points.flatten(0, 1), samples)
                w = w.to(total).view(shape)
                total += (w * found.unflatten(0, points.shape[:2]).to(dtype)).sum(1)
                if game.progress is not None:
                    game.progress(len(samples))
            parts.append(total * (present - absent))
        return torch.cat(parts)
