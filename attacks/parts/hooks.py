"""Hooks on a network for the time of an attack, gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.errors import InputError
from interaction_train.game.evaluation import uncompiled, unwrap
from interaction_train.game.layers import find_layer

Hooks = Iterable[tuple[nn.Module, Callable[..., Any]]]


@contextmanager
def hooked(model: nn.Module, after: Hooks = (), before: Hooks = ()) -> Iterator[None]:
    """Forward hooks, and pre-hooks with keyword arguments; compiled parts run eagerly meanwhile."""
    with ExitStack() as stack:
        for module, hook in before:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        for module, hook in after:
            stack.callback(module.register_forward_hook(hook).remove)
        stack.enter_context(uncompiled(model))
        yield


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The plain networks of a surrogate: itself, or the members of an :class:`Ensemble`."""
    model = unwrap(model)
    return [unwrap(m) for m in model.members] if isinstance(model, Ensemble) else [model]


def layers_of(model: nn.Module, layer: str | Sequence[str]) -> list[nn.Module]:
    """The layer of every network of a surrogate, by one dotted name or by one per member.

    Raises:
        InputError: a name that a network does not have, which lists near ones; too many or too few.
    """
    networks = networks_of(model)
    names = [layer] * len(networks) if isinstance(layer, str) else list(layer)
    if len(names) != len(networks):
        raise InputError("layer", f"{len(names)} names", f"one, or {len(networks)}, one per member")
    return [find_layer(network, name) for network, name in zip(networks, names, strict=True)]
