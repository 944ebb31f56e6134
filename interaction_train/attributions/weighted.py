"""Linear layers as weights between inputs and outputs, without their biases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from interaction_train.attributions.functions import Call, dependent


@dataclass(frozen=True)
class Weighted:
    """What a linear layer, a convolution, a product with weights or a sum multiplies.

    Attributes:
        input: the tensor that depends on the network's input.
        weight: the weights; None for a sum.
        apply: the function of an input and weights, without bias.
        axis: the input's dimension that is summed over, if that is all.
        filters: whether the weights ``(outputs, ...)`` hold a filter for every output.
    """

    input: Tensor
    weight: Tensor | None
    apply: Callable[..., Tensor]
    axis: int | None = None
    filters: bool = False

    def signed(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the positive and of the other products, of inputs split by their sign."""
        if self.weight is None:
            return self.apply(positive, None), self.apply(negative, None)
        up, down = self.weight.clamp(min=0), self.weight.clamp(max=0)
        return (
            self.apply(positive, up) + self.apply(negative, down),
            self.apply(positive, down) + self.apply(negative, up),
        )


def weighted(call: Call) -> Weighted | None:
    """The layer that an affine call is, if it is one."""
    if call.name == "linear" or call.name.startswith("conv"):
        return _layer(call)
    if call.name in ("matmul", "mm", "bmm"):
        a, b = call.args
        if dependent(a):
            return Weighted(a, b.detach(), lambda x, w: call.function(x, w), -1)
        axis = -2 if b.dim() > 1 else None
        return Weighted(b, a.detach(), lambda x, w: call.function(w, x), axis)
    if call.name == "addmm" and not call.kwargs:
        _, x, weight = call.args
        return Weighted(x, weight.detach(), lambda x, w: x @ w, -1) if dependent(x) else None
    if call.name == "sum":
        (x, *rest), kwargs = call.args, call.kwargs
        dims = rest[0] if rest else kwargs.get("dim")
        one = dims if isinstance(dims, int) else dims[0] if dims and len(dims) == 1 else None
        return Weighted(x, None, lambda x, _: call.function(x, *rest, **kwargs), one)
    return None


def _layer(call: Call) -> Weighted:
    names, rest = ("input", "weight", "bias"), call.args[3:]
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    others = {name: value for name, value in call.kwargs.items() if name not in names}

    def apply(x: Tensor, weight: Tensor | None) -> Tensor:
        result: Tensor = call.function(x, weight, None, *rest, **others)
        return result

    axis = -1 if call.name == "linear" else None
    filters = call.name in ("conv1d", "conv2d", "conv3d")
    return Weighted(given["input"], given["weight"].detach(), apply, axis, filters)
