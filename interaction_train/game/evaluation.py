"""Running a network on coalitions without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, checked_logits

Network = Callable[[Tensor], Tensor]


def unwrap(model: nn.Module) -> nn.Module:
    """The plain module under ``torch.compile`` and data-parallel wrappers."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = cast(nn.Module, model._orig_mod)
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        else:
            return model


class Logits(nn.Module):
    """What :func:`logits_of` gives."""

    def __init__(self, model: nn.Module, key: str | int | None = None) -> None:
        super().__init__()
        self.model, self.key = model, key

    def forward(self, x: Tensor, **extra: Any) -> Tensor:
        output, key = self.model(x, **extra), self.key
        if isinstance(output, Tensor):
            return output
        name = "logits" if key is None else key
        found: Any = None
        if isinstance(output, Mapping):
            found = output.get(name)
        elif isinstance(name, str) and (key is not None or hasattr(output, name)):
            found = getattr(output, name, None)
        elif isinstance(output, tuple | list):
            found = dict(enumerate(output)).get(int(key or 0))
        if not isinstance(found, Tensor):
            there = list(output) if isinstance(output, Mapping) else type(output).__name__
            raise InputError("key", repr(key), f"where the logits are in an output of {there}")
        return found


def logits_of(model: nn.Module, key: str | int | None = None) -> nn.Module:
    """A network ``(B, ...)`` → ``(B, classes)`` of the logits in another one's outputs.

    Args:
        model: returns an object with ``.logits``, a mapping, or a tuple; its weights are shared.
        key: where the logits lie in a mapping or tuple, or the attribute's name. Default: the
            attribute or key ``"logits"``, else the first part of a tuple.

    Raises:
        InputError: on a call, an output without logits at that place.

    Examples:
        >>> class Both(nn.Linear):
        ...     def forward(self, x):
        ...         return {"logits": super().forward(x), "features": x}
        >>> logits_of(Both(4, 3))(torch.rand(2, 4)).shape
        torch.Size([2, 3])
    """
    return model if key is None and isinstance(model, Logits) else Logits(model, key)


def inner_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Submodules of the plain module by dotted name, also by that below :func:`logits_of`."""
    model = unwrap(model)
    inner = inner_modules(model.model) if isinstance(model, Logits) else {}
    return {**inner, **dict(model.named_modules())}


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Compiled parts of a network run eagerly meanwhile: hooks do not reach into their graphs."""
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in model.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def evaluation_mode(model: object) -> Iterator[None]:
    """Put every submodule, if this is a module, in eval, and each back as it was in any case."""
    # Flags are set directly: train() may be overridden, and restores no mixture of modes.
    modes = [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []
    try:
        for module, training in modes:
            if training:
                module.training = False
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training


@contextmanager
def without_grad() -> Iterator[None]:
    """``torch.no_grad`` after which autocast keeps no copies of weights without gradient."""
    try:
        with torch.no_grad():
            yield
    finally:
        if torch.is_autocast_cache_enabled():
            torch.clear_autocast_cache()


def eval_logits(network: Network, x: Tensor, argument: str = "model") -> Tensor:
    """The checked logits of a network in eval, without gradient; its modes are put back."""
    with evaluation_mode(network), without_grad():
        return checked_logits(network(x), len(x), argument)
