"""Secants by groups of a module's inputs, which take turns: their Shapley values."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from math import comb
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from interaction_train.attributions.functions import Call
from interaction_train.attributions.secant import Given, Secant, halves, secant
from interaction_train.attributions.weighted import Weighted, weighted
from interaction_train.errors import InputError
from interaction_train.indices.exact import all_coalitions

Groups = Callable[[], list[Tensor]]  # Δz as a sum of parts (B, ...), once an activation asks

_ALONE = (
    "the activation {!r} follows no module, as behind a sum of branches or a pooling: "
    "there the method is DeepLIFT with the rule Rescale"
)

_ELEMENTS = 2**23  # of activations at once


class GroupedSecant(Secant):
    """Secants of modules σ(Wx + s) in which each group of products W_ij Δx_i has its own slope.

    It is the mean secant over the orders in which the groups come in, so that a group's
    contribution to Δσ is its Shapley value. Affine functions of Wx + s alone, such as a BatchNorm
    in eval, belong to the module. An activation elsewhere, for instance behind the sum of a
    residual block, has its input for its only group, which is Rescale: a UserWarning names it. What
    a neuron that does not change in sum passes on by its groups, which the ratios of (40) and (43)
    leave open, is their limit's.

    Raises:
        InputError: in a forward pass, a module's input that is changed in place before the
            activation; what the split of a module refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known = WeakTensorKeyDictionary()

    @abstractmethod
    def split(self, layer: Weighted) -> list[Tensor]:
        """WΔx as a sum of parts ``(B, ...)``, differentiable with respect to x."""

    def regroup(self, parts: list[Tensor]) -> list[Tensor]:
        """Parts of what an affine function made of parts."""
        return parts

    def affine(self, call: Call) -> Any:
        groups = self._groups(call)
        output = call()
        if groups is not None and isinstance(output, Tensor):
            self._known[output] = (output._version, groups)
        return output

    def _groups(self, call: Call) -> Groups | None:
        if (layer := weighted(call)) is not None:
            _check_samples(call, layer)
            version = layer.input._version
            return lambda: self.split(_unchanged(layer, version))
        if len(call.inputs) > 1 or (known := self._of(call.inputs[0])) is None:
            return None
        return lambda: self.regroup([_moved(call, part) for part in known()])

    def _of(self, z: Tensor) -> Groups | None:
        version, groups = self._known.get(z, (None, None))
        return groups if version == z._version else None

    def elementwise(self, call: Call) -> Tensor:
        (z,) = call.inputs
        groups = self._of(z)
        if groups is None:
            warnings.warn(_ALONE.format(call.name), UserWarning, stacklevel=2)
            return super().elementwise(call)
        function, parts = call.elementwise(), groups()
        with torch.no_grad():
            value = function(z)
            slopes = shapley_slopes(function, halves(z)[1], torch.stack(parts))
        routed = sum(slope * part for slope, part in zip(slopes, parts, strict=True))
        return call.result(Given.apply(routed, (value,)))


def shapley_slopes(function: Callable[[Tensor], Tensor], base: Tensor, parts: Tensor) -> Tensor:
    """Shapley values of n parts ``(n, B, ...)`` in σ(base + Σ parts), per unit of each part."""
    samples = max(1, (_ELEMENTS >> len(parts)) // base[0].numel())
    pieces = zip(base.split(samples), parts.split(samples, 1), strict=True)
    return torch.cat([_slopes(function, start, some) for start, some in pieces], 1)


def _slopes(function: Callable[[Tensor], Tensor], base: Tensor, parts: Tensor) -> Tensor:
    count = len(parts)
    coalitions = all_coalitions(count).to(base.device)
    sums = base + torch.einsum("kn,nb...->kb...", coalitions.to(base), parts)
    weights = base.new_tensor([1 / (count * comb(count - 1, others)) for others in range(count)])
    found = []
    for player in range(count):
        out = ~coalitions[:, player]
        low, high = sums[out], sums[out.roll(2**player)]
        slopes = secant(function, low.flatten(0, 1), high.flatten(0, 1)).view_as(low)
        found.append(torch.einsum("k,kb...->b...", weights[coalitions[out].sum(1)], slopes))
    return torch.stack(found)


def _moved(call: Call, part: Tensor) -> Tensor:
    """The linear share of an affine function, of a part."""
    first, second = halves(call.on(torch.cat([part, torch.zeros_like(part)])))
    return first - second


def _check_samples(call: Call, layer: Weighted) -> None:
    if call.name == "bmm" or (layer.axis == -2 and layer.input.dim() == 2):
        got = f"a network that calls {call.name!r} with samples that have weights or rows elsewhere"
        raise InputError("model", got, "one that keeps them in the first dimension of its modules")


def _unchanged(layer: Weighted, version: int) -> Weighted:
    if layer.input._version != version:
        got = "a network that changes a module's input in place before its activation"
        raise InputError("model", got, "one that leaves it as it is")
    return layer
