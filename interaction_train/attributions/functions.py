"""Which of torch's functions are linear, act on each element, take maxima or multiply."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.function_mode import Function, FunctionMode

_SEQUENCES = (list, tuple)

# By name: the same one has several, such as F.relu, torch.relu, Tensor.relu and Tensor.relu_.
_REFLECTED = {"iadd", "imul", "imatmul", "radd", "rmul", "rmatmul", "ipow"}
_ALIASES = {
    "absolute": "abs", "clip": "clamp", "concat": "cat", "concatenate": "cat", "divide": "div",
    "hstack": "cat", "idiv": "div", "isub": "sub", "itruediv": "div", "multiply": "mul",
    "negative": "neg", "special_expit": "sigmoid", "subtract": "sub", "swish": "silu",
    "true_divide": "div", "truediv": "div",
}  # fmt: skip


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _names(
    """abs atan celu clamp clamp_max clamp_min cos cosh elu erf exp expm1 gelu hardshrink
    hardsigmoid hardswish hardtanh leaky_relu log log1p logsigmoid mish pow prelu rdiv reciprocal
    relu relu6 rpow rrelu rsqrt rtruediv selu sigmoid silu sin sinh softplus softshrink softsign
    sqrt square tan tanh tanhshrink threshold"""
)
MOVES = _names(  # every number of the output is one of the input's, or a constant
    """alpha_dropout broadcast_to cat channel_shuffle chunk clone constant_pad_nd contiguous copy
    double dropout dropout1d dropout2d dropout3d expand expand_as feature_alpha_dropout
    feature_dropout flatten flip float gather get getitem index_select masked_fill moveaxis movedim
    narrow native_channel_shuffle pad permute pixel_shuffle pixel_unshuffle positive ravel repeat
    requires_grad reshape reshape_as roll select setitem split split_with_sizes squeeze stack
    swapaxes swapdims t take tensor_split tile to transpose type type_as unbind unflatten unfold
    unsqueeze view view_as where"""
)
SUMS = _names(  # affine, and of several of their tensors together
    """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add avg_pool1d avg_pool2d
    avg_pool3d batch_norm cumsum div fold interpolate mean neg rsub sub sum upsample
    upsample_bilinear upsample_nearest"""
)
_ALWAYS_AFFINE = MOVES | SUMS - {"batch_norm", "div"}
PRODUCTS = {"bmm", "einsum", "matmul", "mm", "mul", "mv"}  # affine in each tensor
WEIGHTED = {f"conv{how}{d}d" for how in ("", "_transpose") for d in (1, 2, 3)} | {"addmm", "linear"}
MAXIMA = {
    f"{kind}max_pool{d}d{how}" for kind in ("", "adaptive_") for d in (1, 2, 3)
    for how in ("", "_with_indices")
}  # fmt: skip


@lru_cache(maxsize=1024)
def name_of(function: Function) -> str:
    """The name that all spellings of a function share, also the one in place."""
    name = getattr(function, "__name__", str(function)).strip("_")
    return _ALIASES.get(name, name[1:] if name in _REFLECTED else name)


def dependent(value: object) -> bool:
    """Whether this is a tensor that depends on the input; weights are leaves of the graph."""
    return isinstance(value, Tensor) and value.requires_grad and not value.is_leaf


def tensors(*values: object) -> list[Tensor]:
    """The tensors in arguments, in their order, also those in lists, tuples and dictionaries."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, _SEQUENCES):
            found += tensors(*value)
        elif isinstance(value, dict) and value:
            found += tensors(*value.values())
    return found


def dependents(*values: object) -> list[Tensor]:
    """The tensors in these values that depend on the input."""
    return [tensor for tensor in tensors(*values) if dependent(tensor)]


class Call:
    """A call of one of torch's functions, which can be made with other inputs.

    Attributes:
        name: see :func:`name_of`.
        inputs: the dependent tensors, in the order of the arguments.
    """

    def __init__(
        self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.name = name_of(function)
        self.inputs = dependents(*args, *kwargs.values()) if kwargs else dependents(*args)

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def on(self, *inputs: Tensor) -> Any:
        """The same with other inputs, which must not be changed later on."""
        rest = iter(inputs)

        def other(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: other(one) for name, one in value.items()}
            if isinstance(value, list | tuple):
                named = hasattr(value, "_fields")
                return type(value)(*map(other, value)) if named else type(value)(map(other, value))
            return next(rest) if dependent(value) else value

        return self.function(*map(other, self.args), **other(self.kwargs))

    @property
    def in_place(self) -> bool:
        """Whether it writes into its first argument."""
        spelling = getattr(self.function, "__name__", "")
        if spelling.endswith("_"):
            return not spelling.endswith("__") or spelling.startswith("__i")
        flags = [*self.args, self.kwargs.get("inplace")]  # activations have no other flag
        return self.name in ELEMENTWISE and any(flag is True for flag in flags)

    @property
    def is_elementwise(self) -> bool:
        """Whether it is a function of each element of its one input, with numbers besides."""
        if self.name not in ELEMENTWISE or len(self.inputs) != 1:
            return False
        (z,) = self.inputs
        return all(t is z or t.numel() <= 1 for t in tensors(self.args, self.kwargs))

    def elementwise(self) -> Callable[[Tensor], Tensor]:
        """The function of its one input, which is left as it is."""
        if self.name == "relu":
            return torch.relu
        if self.in_place:
            return lambda z: self.on(z.clone())
        return self.on

    def result(self, output: Tensor) -> Tensor:
        """The output, written where the call would have written it."""
        return self.args[0].copy_(output) if self.in_place else output


class Rules(FunctionMode):
    """A mode in which calls that depend on the input run by a rule."""

    def call(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        call = Call(function, args, kwargs)
        if call.inputs:
            return self.rule(call)
        if any(t.requires_grad for t in tensors(args, kwargs)):
            with torch.no_grad():  # the result shall not count as dependent either
                return call()
        return call()

    @abstractmethod
    def rule(self, call: Call) -> Any:
        """What the call returns."""


def is_affine(call: Call) -> bool:
    """Whether the call is an affine function of all of its inputs together."""
    if call.name in _ALWAYS_AFFINE:
        return True
    if call.name == "batch_norm":
        return not (call.args[5] if len(call.args) > 5 else call.kwargs.get("training", False))
    if call.name in WEIGHTED or call.name in PRODUCTS:
        return len(call.inputs) == 1
    return call.name == "div" and not dependent(call.args[1])


def without_rule(call: Call) -> Any:
    """The output of a call that has no rule, if it does not depend on the input.

    Shapes, comparisons and the like do not.

    Raises:
        InputError: it does.
    """
    output = call()
    if dependents(output):
        got = f"a network that calls {call.name!r}, a function that has no rule"
        raise InputError("model", got, "linear functions, activations, max-pooling, products")
    return output
