"""Games at a hidden layer: record its output, and run what follows it on replaced outputs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.dataflow import check_layer
from interaction_train.game.evaluation import evaluation_mode, inner_modules, uncompiled, unwrap


@dataclass
class ForwardRecord:
    """What a step's main forward pass leaves for the terms: logits, and outputs by layer name."""

    logits: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)


class _Stop(Exception):
    pass


_legal: WeakKeyDictionary[nn.Module, set[tuple[str, ...]]] = WeakKeyDictionary()


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The submodule of that dotted name, also below ``logits_of``; the error lists near names."""
    if not isinstance(model, nn.Module):
        raise InputError("model", type(model).__name__, "an nn.Module, which has layers")
    if not isinstance(layer, str):
        raise InputError("layer", type(layer).__name__, "the layer's dotted name, a string")
    modules = inner_modules(model)
    if not layer or layer not in modules:
        names = [name for name in modules if name]
        near = difflib.get_close_matches(layer, names, n=5, cutoff=0.4) or names[:5]
        expected = f"a submodule of the network, such as {', '.join(near)}"
        raise InputError("layer", repr(layer), expected)
    return modules[layer]


@contextmanager
def record(model: nn.Module, layers: Iterable[str]) -> Iterator[ForwardRecord]:
    """Record the outputs of layers during the forward passes made inside the context.

    For a compiled model, into whose graph no hook reaches, nothing is recorded.

    Examples:
        >>> import interaction_train as it, torch
        >>> model = it.models.DigitsNet()
        >>> with record(model, ["features.2"]) as forward:
        ...     forward.logits = model(torch.rand(2, 1, 8, 8))
        >>> forward.features["features.2"].shape
        torch.Size([2, 16, 4, 4])
    """
    result = ForwardRecord()
    with ExitStack() as hooks:
        if not hasattr(model, "_orig_mod"):
            for name in dict.fromkeys(layers):

                def keep(module: nn.Module, inputs: object, output: object, n: str = name) -> None:
                    if isinstance(output, Tensor):
                        result.features[n] = output.clone()  # an in-place operation may follow

                hooks.enter_context(find_layer(model, name).register_forward_hook(keep))
        yield result


def features(model: nn.Module, layer: str, x: Tensor, **extra: Tensor) -> Tensor:
    """A layer's output on ``x`` in eval mode; the network runs no further than the layer."""
    result: list[Tensor] = []

    def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
        result.append(output)
        raise _Stop

    model = unwrap(model)
    with (
        find_layer(model, layer).register_forward_hook(stop),
        evaluation_mode(model),
        uncompiled(model),
        suppress(_Stop),
    ):
        model(x, **extra)
    if not result:
        raise InputError("layer", repr(layer), "a layer that the network's forward pass calls")
    return result[0]


class LayerPrefix:
    """A network up to a layer, as a function with outputs ``(rows, d)``.

    A :class:`~interaction_train.game.masked.MaskedGame` of it with the payoff ``"all"`` is the game
    of a feature (:func:`~interaction_train.concepts.features.feature_dividends`).
    A layer that is called several times counts as it is called first.

    Args:
        model: the network.
        layer: dotted name of the layer, whose output is a tensor of two numbers or more a sample.

    Raises:
        InputError: no such layer, here; on a call a layer with another output.

    Examples:
        >>> import interaction_train as it, torch
        >>> LayerPrefix(it.models.DigitsNet(), "features.2")(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 256])
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.model, self.layer = unwrap(model), layer
        find_layer(model, layer)

    def __call__(self, x: Tensor, **extra: Tensor) -> Tensor:
        output: object = features(self.model, self.layer, x, **extra)
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        if isinstance(output, Tensor) and shape[:1] == x.shape[:1] and math.prod(shape[1:]) > 1:
            return output.flatten(1)
        got = f"{self.layer!r}, whose output is {shape or type(output).__name__}"
        expected = f"a layer with a tensor ({len(x)}, ...) of two numbers or more a row"
        raise InputError("layer", got, expected)


class LayerSuffix:
    """What follows a layer, as a function of its output.

    The network runs on a single token input, and a hook replaces the layer's output. This is right
    only where everything after the layer depends on the input through it alone, which is shown once
    per model and layer (:func:`~interaction_train.game.dataflow.check_layer`).

    Args:
        model: the network.
        layer: dotted name of the layer; the error about a wrong one names a layer to try.
        x: inputs ``(B, ...)``, for the token and the check.
        extra: further inputs ``(B, ...)`` by their names, such as ``attention_mask``, that every
            call is given for its own rows.

    Raises:
        InputError: no such layer, or one on which the replacement would be wrong.
    """

    def __init__(
        self, model: nn.Module, layer: str, x: Tensor, extra: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model, self.layer = unwrap(model), layer
        self.module = find_layer(model, layer)
        self.token = x[:1].detach()
        extra = extra or {}
        self.inputs = tuple(extra)
        known, case = _legal.setdefault(self.model, set()), (layer, *extra)
        if case not in known and check_layer(self.model, layer, self.module, x.detach(), extra):
            known.add(case)

    def __call__(self, output: Tensor, **extra: Tensor) -> Tensor:
        calls: list[None] = []

        def replace(*_: object) -> Tensor:
            calls.append(None)
            return output.clone()  # an in-place operation may follow

        with self.module.register_forward_hook(replace):
            logits = self.model(self.token, **extra)
        if len(calls) != 1:  # fused kernels of networks in eval call no inner modules
            problem = f"{self.layer!r}, which a forward pass calls {len(calls)} times"
            raise InputError("layer", problem, "one that is called once in any mode")
        return logits
