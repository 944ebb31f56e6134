"""Attacks in float32 on networks and images of half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from interaction_train.attacks.ensemble import Ensemble

_SCALE = 1024.0  # of gradients in float16, where those of pixels vanish
_wrapped: WeakSet[nn.Module] = WeakSet()


@contextmanager
def float32_outside(model: nn.Module) -> Iterator[None]:
    """Let networks of half precision take and give float32, with gradients scaled in float16."""
    with ExitStack() as stack:
        for network in model.members if isinstance(model, Ensemble) else (model,):
            types = (p.dtype for p in network.parameters() if p.is_floating_point())
            dtype = next(types, torch.float32)
            if dtype.itemsize < 4 and network not in _wrapped:
                _wrapped.add(network)
                stack.callback(_wrapped.discard, network)
                before, after = _casts(dtype)
                stack.callback(network.register_forward_pre_hook(before).remove)
                stack.callback(network.register_forward_hook(after).remove)
        yield


def _casts(dtype: torch.dtype) -> tuple[Callable[..., Any], Callable[..., Any]]:
    scale = _SCALE if dtype == torch.float16 else 1.0

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = args
        if x.requires_grad:
            x = x.clone()
            x.register_hook(lambda gradient: gradient / scale)
        return x.to(dtype), *rest

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        logits = output.float()
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * scale)
        return logits

    return before, after


def rounded_inward(adversarial: Tensor, x: Tensor) -> Tensor:
    """In the dtype of the clean images, of half precision one step towards them if beyond."""
    rounded = adversarial.to(x.dtype)
    if x.element_size() >= 4:
        return rounded
    beyond = (rounded.float() - x.float()).abs() > (adversarial - x.float()).abs()
    # Numbers of one sign are ordered as their bits are.
    step = (x.float() - rounded.float()).sign() * rounded.sign() * beyond
    return (rounded.view(torch.int16) + step.to(torch.int16)).view(x.dtype)
