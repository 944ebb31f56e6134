"""Functions that are several simpler ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from interaction_train.attributions.functions import Call, dependent


def decomposition(call: Call) -> Callable[..., Any] | None:
    """The same function of simpler ones, if this is the way to a rule for it."""
    if call.name == "div" and not (dependent(call.args[1]) and not call.kwargs):
        return None
    return _SIMPLER.get(call.name)


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() > 1:  # one for every channel
        weight = weight.view(-1, *(1 for _ in input.shape[2:]))
    return input.relu() - (-input).relu() * weight


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _scaled(_standardized(input, dims, eps), weight, bias)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    groups = input.reshape(len(input), num_groups, -1)
    output = _standardized(groups, (-1,), eps).reshape(input.shape)
    wide = (-1, *(1 for _ in input.shape[2:]))
    return _scaled(output, *(None if t is None else t.view(wide) for t in (weight, bias)))


def _standardized(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    variance = (centred * centred).mean(dims, keepdim=True)
    return centred * (variance + eps).rsqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


_SIMPLER: dict[str, Callable[..., Any]] = {
    "div": lambda a, b: b.reciprocal() * a,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "maximum": lambda a, b: (a - b).relu() + b,
    "minimum": lambda a, b: (b - a).relu() * -1 + b,
    "prelu": _prelu,
}
