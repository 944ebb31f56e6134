"""Attacks in float32 on networks and images of half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

_SCALE = 1024.0  # of gradients in float16, where those of pixels vanish
_wrapped: WeakSet[nn.Module] = WeakSet()


@contextmanager
def float32_outside(network: nn.Module) -> Iterator[None]:
    """Let a network of half precision take and give float32, with gradients scaled in float16."""
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    if dtype.itemsize >= 4 or network in _wrapped:
        yield
        return
    _wrapped.add(network)
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

    handles = network.register_forward_pre_hook(before), network.register_forward_hook(after)
    try:
        yield
    finally:
        _wrapped.discard(network)
        for handle in handles:
            handle.remove()


def rounded_inward(adversarial: Tensor, x: Tensor) -> Tensor:
    """In the dtype of the clean images, of half precision one step towards them if beyond."""
    rounded = adversarial.to(x.dtype)
    if x.element_size() >= 4:
        return rounded
    beyond = (rounded.float() - x.float()).abs() > (adversarial - x.float()).abs()
    # Numbers of one sign are ordered as their bits are.
    step = (x.float() - rounded.float()).sign() * rounded.sign() * beyond
    return (rounded.view(torch.int16) + step.to(torch.int16)).view(x.dtype)
