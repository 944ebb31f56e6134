"""Deep SHAP as the paper has it: exact Shapley values of each module, chained."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.backpropagation import pair_attributions
from interaction_train.attributions.groups import GroupedSecant
from interaction_train.attributions.secant import halves
from interaction_train.attributions.weighted import Weighted
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame

_MOST = 16  # inputs of a module


def deep_shap(game: MaskedGame) -> Tensor:
    """Deep SHAP, ``(B, n)``: a module σ(Wx + s) shares its change by its inputs' Shapley values.

    Deng et al. 2024, (43), with all 2^inputs coalitions of each module. The sum is f(x) − f(b).
    Table IV's rule 1/|S| holds for one module, where this is the Shapley value; in deeper networks
    it is not. With a linear layer and its activation as separate steps, as in libraries of that
    name, it would be :func:`~.deeplift.deeplift_rescale`.

    Raises:
        InputError: a module of more than 16 inputs; else as of :func:`~.deeplift.deeplift_rescale`.
    """
    return pair_attributions(game, _Inputs)


class _Inputs(GroupedSecant):
    """A group for every input of a module."""

    def split(self, layer: Weighted) -> list[Tensor]:
        high, low = halves(layer.input)
        change, weight, axis = high - low, layer.weight, layer.axis
        if axis is not None:
            shown = _units(change.shape[axis], change)
            shape = [1] * change.dim()
            shape[axis] = -1
            return [layer.apply(change * unit.view(shape), weight) for unit in shown]
        if weight is None or not layer.filters:
            raise InputError("model", "a module of another kind", "linear layers and convolutions")
        shown = _units(weight[0].numel(), weight)
        return [layer.apply(change, weight * unit.view_as(weight[0])) for unit in shown]


def _units(count: int, like: Tensor) -> Tensor:
    if count > _MOST:
        expected = f"at most {_MOST}: its Shapley values take 2^inputs values of each output"
        raise InputError("model", f"a module with {count} inputs", expected)
    return torch.eye(count, dtype=like.dtype, device=like.device)
