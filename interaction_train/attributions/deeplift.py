"""DeepLIFT and Deep SHAP: multipliers between an input and its baseline, by secants."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.backpropagation import pair_attributions
from interaction_train.attributions.groups import GroupedSecant
from interaction_train.attributions.secant import Secant, halves
from interaction_train.attributions.weighted import Weighted
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame

_MOST = 16  # inputs of a module


def deeplift_rescale(game: MaskedGame) -> Tensor:
    """DeepLIFT with the rule Rescale, ``(B, n)``: every nonlinearity becomes its secant.

    Deng et al. 2024, (38); Shrikumar et al. 2017. The sum is f(x) − f(b) to rounding. Table IV's
    rule κ_i/Σκ holds for one module σ(Wx + s), on which this is the method of integrated gradients;
    for deeper networks it is another one, while completeness and the absence of unrelated effects
    hold for any. What has which rule: :class:`~.secant.Secant`.

    Raises:
        InputError: a payoff other than ``logit``, a function that has no rule (softmax), or a sum
            that misses f(x) − f(b) by more than 1e-4 of Σ|a|, as where a network compares numbers
            of its input.
    """
    return pair_attributions(game, Secant)


def deeplift_reveal_cancel(game: MaskedGame) -> Tensor:
    """DeepLIFT with the rule RevealCancel, ``(B, n)``: positive and negative parts apart.

    Deng et al. 2024, (40): in each module σ(Wx + s) the products W_ij Δx_i > 0 and the others each
    have the mean of two secants, with the other group present and absent. Table IV's rule holds for
    one module; sums and errors as of :func:`deeplift_rescale`, which it equals for quadratic σ, and
    in activations that follow no module (:class:`~.groups.GroupedSecant`).
    """
    return pair_attributions(game, _Signs)


def deep_shap(game: MaskedGame) -> Tensor:
    """Deep SHAP, ``(B, n)``: a module σ(Wx + s) shares its change by its inputs' Shapley values.

    Deng et al. 2024, (43), with all 2^inputs coalitions of each module. The sum is f(x) − f(b).
    Table IV's rule 1/|S| holds for one module, where this is the Shapley value; in deeper networks
    it is not. With a linear layer and its activation as separate steps, as in libraries of that
    name, it would be :func:`deeplift_rescale`.

    Raises:
        InputError: a module of more than 16 inputs; else as of :func:`deeplift_rescale`.
    """
    return pair_attributions(game, _Inputs)


class _Signs(GroupedSecant):
    """Two groups: the positive products, and the others."""

    def split(self, layer: Weighted) -> list[Tensor]:
        high, low = halves(layer.input)
        change = high - low
        rises = change.detach() > 0
        return list(layer.signed(change * rises, change * ~rises))

    def regroup(self, parts: list[Tensor]) -> list[Tensor]:
        rises = [part.detach() > 0 for part in parts]
        positive = [part * up for part, up in zip(parts, rises, strict=True)]
        other = [part * ~up for part, up in zip(parts, rises, strict=True)]
        return [torch.stack(positive).sum(0), torch.stack(other).sum(0)]


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
