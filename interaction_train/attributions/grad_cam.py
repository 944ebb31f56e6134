"""Grad-CAM: a layer's channels, weighted by their mean gradients."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.attributions.backpropagation import (
    game_parts,
    gradient_of,
    label_logits,
    plain_network,
)
from interaction_train.attributions.gradients import pass_rows, player_sums
from interaction_train.errors import InputError
from interaction_train.game.evaluation import (
    evaluation_mode,
    inner_modules,
    uncompiled,
    without_grad,
)
from interaction_train.game.layers import find_layer
from interaction_train.game.masked import MaskedGame


@torch.inference_mode(False)
def grad_cam(game: MaskedGame, layer: str | None = None) -> Tensor:
    """Grad-CAM, ``(B, n)``: Σ_k α_k A_k before its ReLU, summed over each player's pixels.

    Deng et al. 2024, (22) and (23); A are the outputs ``(B, K, h, w)`` of a layer and α_k the mean
    over positions of ∂f/∂A_k. The map is resized to the input, with bilinear weights and divided by
    the growth in area, so that it keeps its sum; no baseline enters. α_k A = A ∂f/∂A, as Table IV
    has it, if the gradient is the same at all positions: for a head with global average pooling,
    not for one that flattens.

    Args:
        game: inputs ``(B, C, H, W)`` of a network.
        layer: dotted name. Default: the last layer with an output of more than one position.

    Raises:
        InputError: a payoff other than ``logit``; inputs of another shape; a layer that does not
            exist, runs other than once, or whose output has no positions.
    """
    network = plain_network(game)
    if game.present.dim() != 4 or not isinstance(network, nn.Module):
        got = f"{type(network).__name__} with inputs {tuple(game.present.shape)}"
        raise InputError("game", got, "a network with inputs (B, C, H, W)")
    layer = _last_spatial(network, game.present[:1]) if layer is None else layer
    module, found = find_layer(network, layer), []
    for present, _, labels in game_parts(game, pass_rows(game, len(game.present))):
        outputs: list[Tensor] = []
        keep = partial(_keep, outputs)
        with torch.enable_grad(), module.register_forward_hook(keep), uncompiled(network):
            values = label_logits(network, present, labels, game.owner)
        if len(outputs) != 1 or outputs[0].dim() != 4:
            shapes = [tuple(output.shape) for output in outputs]
            raise InputError("layer", f"{layer!r} with outputs {shapes}", "one output (B, K, h, w)")
        (output,) = outputs
        weights = gradient_of(values, output, torch.ones_like(values)).mean((2, 3), keepdim=True)
        cam = (weights * output.detach()).sum(1, keepdim=True).to(values.dtype)
        found.append(_resized(cam, present))
    return player_sums(game, torch.cat(found))


def _keep(
    outputs: list[Tensor], module: nn.Module, inputs: object, output: object
) -> Tensor | None:
    if not isinstance(output, Tensor):
        return None
    outputs.append(output.detach().requires_grad_())
    return outputs[-1].clone()  # an in-place operation may follow


def _resized(map_: Tensor, like: Tensor) -> Tensor:
    """A map ``(B, 1, h, w)`` over all elements of inputs ``(B, C, H, W)``, with its sum."""
    wide = F.interpolate(map_, like.shape[2:], mode="bilinear", align_corners=False)
    growth = like[0].numel() / map_[0].numel()
    return (wide / growth).expand_as(like)


def _last_spatial(network: nn.Module, x: Tensor) -> str:
    seen: list[str] = []

    def note(name: str, module: nn.Module, inputs: object, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1:
            seen.append(name)

    with ExitStack() as hooks, evaluation_mode(network), uncompiled(network), without_grad():
        for name, module in inner_modules(network).items():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(note, name)))
        network(x)
    if not seen:
        raise InputError("layer", None, "a name, as no layer has an output (B, K, h, w)")
    return seen[-1]
