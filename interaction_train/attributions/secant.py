"""Backward passes in which every nonlinearity is the secant between an input and its baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attributions.decompositions import decomposition
from interaction_train.attributions.functions import (
    MAXIMA,
    PRODUCTS,
    Call,
    Rules,
    is_affine,
    without_rule,
)
from interaction_train.errors import InputError


class Slope(torch.autograd.Function):
    """Given numbers, whose gradient is that of slope · z, by sample; the halves of a pair share it.

    Value and slope come in a tuple, so that they count as constants. ``in_place``: written to z.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, given: tuple[Tensor, Tensor], in_place: bool) -> Tensor:
        value, slope = given
        ctx.save_for_backward(slope)
        if not in_place:
            return value
        ctx.mark_dirty(z)
        return z.copy_(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,), (slope,) = gradients, ctx.saved_tensors
        return by_halves(gradient, slope), None, None


class Relu(torch.autograd.Function):
    """ReLU of a pair with its secant for the slope; nothing is written but once."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, in_place: bool) -> Tensor:
        high, low = halves(z)
        ctx.save_for_backward(relu_secant(low, high))
        if not in_place:
            return z.relu()
        ctx.mark_dirty(z)
        return z.relu_()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,), (slope,) = gradients, ctx.saved_tensors
        return by_halves(gradient, slope), None


def by_halves(gradient: Tensor, slope: Tensor) -> Tensor:
    """Gradients of a pair, or of as many rows as the slopes have, times the slopes."""
    if len(gradient) == len(slope):
        return gradient * slope
    return (gradient.unflatten(0, (2, -1)) * slope).flatten(0, 1)


class Maxima(torch.autograd.Function):
    """Given maxima of a pair; in the first half, shares of their gradient go to two places each."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        value, *shared = given
        ctx.save_for_backward(*shared)
        ctx.shape, ctx.strides = z.shape, torch.empty_like(z).stride()
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,), (here, there, share) = gradients, ctx.saved_tensors
        dims = len(ctx.shape) - share.dim() + 1
        found = gradient.new_empty_strided(ctx.shape, ctx.strides).zero_().flatten(-dims)
        first, rows = found[: len(share)], gradient[: len(share)].flatten(-dims)
        moved = rows * share
        first.scatter_add_(-1, here, moved).scatter_add_(-1, there, rows - moved)
        return found.unflatten(-1, ctx.shape[-dims:]), None


class Given(torch.autograd.Function):
    """Given numbers of a pair, whose gradient in the first half is that of another tensor."""

    @staticmethod
    def forward(ctx: Any, like: Tensor, given: tuple[Tensor]) -> Tensor:
        ctx.rows = len(like)
        return given[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0][: ctx.rows], None


def halves(pair: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the inputs and those of the baselines."""
    if pair.dim() == 0 or len(pair) % 2:
        got = "a network that moves or mixes the samples of a batch"
        raise InputError("model", got, "one that keeps them in the first dimension")
    first, second = pair.chunk(2)
    return first, second


def secant(
    function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, rise: Tensor | None = None
) -> Tensor:
    """(σ(high) − σ(low)) / (high − low) per element; σ' where they all but agree.

    ``rise``: σ(high) − σ(low), where it is known.
    """
    run = high - low
    rise = function(high) - function(low) if rise is None else rise
    near = run.abs() <= torch.finfo(run.dtype).eps ** 0.5 * (high.abs() + low.abs())
    with torch.enable_grad():
        middle = ((low[near] + high[near]) / 2).detach().requires_grad_()
        (derivative,) = torch.autograd.grad(function(middle).sum(), middle)
    return (rise / run).masked_scatter(near, derivative)


def relu_secant(low: Tensor, high: Tensor) -> Tensor:
    """That of ReLU, in few and small tensors: the share of the way on which it rises."""
    # Of no way at all: all of it above 0, else nothing.
    way = (high - low).abs_().clamp_(min=torch.finfo(high.dtype).tiny)
    return torch.maximum(high, low).div_(way).clamp_(0, 1)


class Secant(Rules):
    """The rule Rescale of DeepLIFT, for networks that run on pairs.

    The rows are those of the inputs and then those of their baselines. A gradient of an output in
    the first half is then a multiplier m with Σ m_i (x_i − b_i) = f(x) − f(b):

    - a function of each element has the secant for its slope;
    - a product has Δ(uv) = ū Δv + v̄ Δu, with the means over the pair;
    - a maximum, at place i of the input and j of the baseline, shares its change between Δ_i and
      Δ_j as x_i − x_j to b_j − b_i, which is what the straight path from b to x gives.

    Raises:
        InputError: in a forward pass, a function that has no rule.
    """

    def rule(self, call: Call) -> Any:
        if is_affine(call):
            return self.affine(call)
        if (simpler := decomposition(call)) is not None:
            with self:
                return call.result(simpler(*call.args, **call.kwargs))
        if call.is_elementwise:
            return self.elementwise(call)
        if call.name in PRODUCTS and len(call.inputs) == 2:
            return self.product(call)
        if call.name in MAXIMA:
            return self.maximum(call)
        return without_rule(call)

    def affine(self, call: Call) -> Any:
        """A function whose gradient is right as it is."""
        return call()

    def elementwise(self, call: Call) -> Tensor:
        """A function σ of each element."""
        (z,), function = call.inputs, call.elementwise()
        if call.name == "relu":
            return cast(Tensor, Relu.apply(z, call.in_place))
        with torch.no_grad():
            (high, low), value = halves(z), function(z)
            top, bottom = halves(value)
            slope = secant(function, low, high, top - bottom)
        return cast(Tensor, Slope.apply(z, (value, slope), call.in_place))

    def product(self, call: Call) -> Tensor:
        """A function that is linear in each of two tensors."""
        with torch.no_grad():
            value = call.on(*(z.clone() for z in call.inputs))
        means = []
        for z in call.inputs:
            first, second = halves(z)
            mean = (first + second).detach() / 2
            means.append(Slope.apply(first, (mean, torch.ones_like(mean)), False))
        return call.result(Given.apply(call.on(*means), (value,)))

    def maximum(self, call: Call) -> Any:
        """Max-pooling."""
        (z,) = call.inputs
        kind = call.name.removesuffix("_with_indices")
        dims = int(kind[-2])  # the last ones; places count through them in one number
        kwargs = {name: v for name, v in call.kwargs.items() if name != "return_indices"}
        with torch.no_grad():
            value, places = getattr(F, f"{kind}_with_indices")(*call.args, **kwargs)
            first, second = halves(z.flatten(-dims))
            top, bottom = halves(value.flatten(-dims))
            here, there = halves(places.flatten(-dims))
            ahead = top - first.gather(-1, there)
            behind = bottom - second.gather(-1, here)
            share = ahead.div_(behind.add_(ahead)).nan_to_num_(0.5)  # of no change at all: half
        output = Maxima.apply(z, (value, here, there, share))
        return (output, places) if call.name.endswith("_with_indices") else output
