"""Attention in place of a transformer's own, and a part: gradients that do not pass its maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.attacks.parts.base import Part
from interaction_train.attacks.parts.hooks import Hooks, hooked, networks_of
from interaction_train.errors import InputError
from interaction_train.game.function_mode import FunctionMode

_PROJECTIONS = ({"qkv"}, {"to_qkv"}, {"query", "key", "value"})  # timm and Swin; MaxViT; others
_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}


class AttentionSkip(Part):
    """PNA: gradients pass a transformer's values alone, not its attention maps.

    Source: Wei et al., "Towards Transferable Adversarial Attacks on Vision Transformers", AAAI
    2022 ("pay no attention"). Forwards nothing changes, up to rounding. Found are torch's
    ``MultiheadAttention`` and ``scaled_dot_product_attention``, and softmaxes in modules with
    linear layers ``qkv``, ``to_qkv``, or ``query``, ``key`` and ``value`` (torchvision, timm).

    Raises:
        InputError: on a call, a network without such attention.
    """

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        with attending(model, _Skip()):
            yield


class Attention(FunctionMode):
    """Takes the place of attention: softmaxes only inside of modules that are known to attend."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.found = self.found_inside = 0

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        attends = function in _ATTENTION or (self.inside and function in _SOFTMAX)
        self.found += attends
        self.found_inside += attends
        if not attends:
            return function(*args, **kwargs)
        if function in _SOFTMAX:
            return self.map(function(*args, **kwargs))
        own = self.scaled if function is F.scaled_dot_product_attention else self.multihead
        return own(*args, **kwargs)

    @abstractmethod
    def map(self, attention: Tensor) -> Tensor:
        """In place of an attention map."""

    @abstractmethod
    def scaled(self, query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any) -> Tensor:
        """In place of ``scaled_dot_product_attention``."""

    @abstractmethod
    def multihead(self, *args: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
        """In place of ``multi_head_attention_forward``."""

    def begin(self, *_: Any) -> None:
        self.found = 0

    def check(self, network: nn.Module, *_: Any) -> None:
        if not self.found:
            known = "attention of a known kind: see AttentionSkip"
            raise InputError("model", f"{type(network).__name__} without any", known)

    def enter(self, *_: Any) -> None:
        self.inside, self.found_inside = True, 0

    def leave(self, module: nn.Module, *_: Any) -> None:
        self.inside = False
        if not self.found_inside:
            got = f"{type(module).__name__} without a softmax"
            raise InputError("model", got, "attention of a known kind: see AttentionSkip")


class _Skip(Attention):
    def map(self, attention: Tensor) -> Tensor:
        return attention.detach()

    def scaled(self, query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any) -> Tensor:
        # The map depends on these two alone.
        return F.scaled_dot_product_attention(query.detach(), key.detach(), value, *more, **named)

    def multihead(
        self, query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any
    ) -> tuple[Tensor, Tensor | None]:
        return F.multi_head_attention_forward(query.detach(), key.detach(), value, *more, **named)


@contextmanager
def attending(model: nn.Module, mode: Attention, hooks: Hooks = ()) -> Iterator[None]:
    """Replace the attention of a surrogate's networks, with further hooks after modules."""
    networks = networks_of(model)
    modules = [m for network in networks for m in network.modules() if projections(m)]
    before: list[tuple[nn.Module, Callable[..., Any]]]
    before = [(network, mode.begin) for network in networks]
    before += [(module, mode.enter) for module in modules]
    after: list[tuple[nn.Module, Callable[..., Any]]]
    after = [*hooks, *((module, mode.leave) for module in modules)]
    after += [(network, mode.check) for network in networks]
    with hooked(model, after, before), mode:
        yield


def projections(module: nn.Module) -> list[nn.Linear]:
    """The linear layers that make a module's queries, keys and values; none if it does not."""
    children = dict(module.named_children())
    for names in _PROJECTIONS:
        named = [children.get(name) for name in sorted(names)]
        layers = [layer for layer in named if isinstance(layer, nn.Linear)]
        if len(layers) == len(names):
            return layers
    return []
