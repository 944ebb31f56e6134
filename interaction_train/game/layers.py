"""Games at a hidden layer: record its output, and run what follows it on replaced outputs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.evaluation import evaluation_mode, unwrap, without_grad


@dataclass
class ForwardRecord:
    """What the main forward pass of a step leaves for the loss terms.

    Attributes:
        logits: ``(B, classes)``.
        features: layer name → its output ``(B, ...)``, part of the autograd graph.
    """

    logits: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)


class _Stop(Exception):
    """Ends a forward pass once the wanted layer has run."""


_legal: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The submodule of that dotted name.

    Raises:
        InputError: there is none; the message lists near names.
    """
    modules = dict(unwrap(model).named_modules())
    if not layer or layer not in modules:
        names = [name for name in modules if name]
        near = difflib.get_close_matches(layer, names, n=5, cutoff=0.4) or names[:5]
        raise InputError(
            "layer", repr(layer), f"a submodule of the network, such as {', '.join(near)}"
        )
    return modules[layer]


@contextmanager
def record(model: nn.Module, layers: Iterable[str]) -> Iterator[ForwardRecord]:
    """Record the outputs of layers during the forward passes made inside the context.

    Outputs are cloned, because an in-place operation may follow. Hooks do not reach into compiled
    graphs: for a compiled model nothing is recorded, and a term runs its own pass.

    Examples:
        >>> from interaction_train.models import DigitsNet
        >>> model = DigitsNet()
        >>> with record(model, ["features.2"]) as forward:
        ...     forward.logits = model(torch.rand(2, 1, 8, 8))
        >>> forward.features["features.2"].shape
        torch.Size([2, 16, 4, 4])
    """
    result = ForwardRecord()
    handles = []
    try:
        if unwrap(model) is model or not hasattr(model, "_orig_mod"):
            for name in dict.fromkeys(layers):

                def keep(module: nn.Module, inputs: object, output: object, n: str = name) -> None:
                    if isinstance(output, Tensor):
                        result.features[n] = output.clone()

                handles.append(find_layer(model, name).register_forward_hook(keep))
        yield result
    finally:
        for handle in handles:
            handle.remove()


def features(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """A layer's output on ``x`` in eval mode; the network runs no further than the layer."""
    result: list[Tensor] = []

    def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
        result.append(output)
        raise _Stop

    model = unwrap(model)
    handle = find_layer(model, layer).register_forward_hook(stop)
    try:
        with evaluation_mode(model):
            model(x)
    except _Stop:
        return result[0]
    finally:
        handle.remove()
    raise InputError("layer", repr(layer), "a layer that the network's forward pass calls")


class LayerSuffix:
    """What follows a layer, as a function of its output.

    The network runs on a single token input, and a hook replaces the layer's output; the prefix
    thus costs one row a call. This is right only where everything after the layer depends on the
    input through it alone, which is checked once per model and layer.

    Args:
        model: the network.
        layer: dotted name of the layer.
        x: ``(B, ...)`` inputs; the first ones serve as token and for the check.

    Raises:
        InputError: no such layer, or one on which the replacement would be wrong; the message
            names a layer to try.
    """

    def __init__(self, model: nn.Module, layer: str, x: Tensor) -> None:
        self.model = unwrap(model)
        self.layer = layer
        self.module = find_layer(model, layer)
        self.token = x[:1].detach()
        known = _legal.setdefault(self.model, set())
        if layer not in known:
            _check(self.model, layer, x.detach())
            known.add(layer)

    def __call__(self, output: Tensor) -> Tensor:
        return _replaced(self.model, self.module, self.token, output)


def _replaced(model: nn.Module, module: nn.Module, token: Tensor, output: Tensor) -> Tensor:
    # A clone, because an in-place operation may follow: the caller keeps the output as it was.
    handle = module.register_forward_hook(lambda *_: output.clone())
    try:
        return model(token)
    finally:
        handle.remove()


# Modules in the order in which they finish, with a copy of their output where it is a tensor.
_Trace = list[tuple[str, Tensor | None]]


def _check(model: nn.Module, layer: str, x: Tensor) -> None:
    with evaluation_mode(model), without_grad(), torch.autocast(x.device.type, enabled=False):
        pair = _two_different(x)
        trace = _trace(model, pair)
        problem = _problem(model, layer, pair, trace)
        if problem:
            order = [name for name, _ in trace]
            later = order[order.index(layer) + 1 :] if layer in order else order
            legal = (name for name in later[:-1] if not _problem(model, name, pair, trace))
            hint = next(legal, None)
            raise InputError(
                "layer",
                f"{layer!r}, {problem}",
                "one that all later computation depends on alone"
                + (f"; try {hint!r}" if hint else "; or give suffix="),
            )


def _two_different(x: Tensor) -> Tensor:
    if len(x) > 1 and not torch.equal(x[0], x[1]):
        return x[:2]
    other = 1 - x[:1] + 0.125 if x.is_floating_point() else x[:1].flip(-1)
    return torch.cat([x[:1], other])


def _trace(model: nn.Module, x: Tensor) -> _Trace:
    trace: _Trace = []
    handles = []
    for name, module in model.named_modules():

        def note(module: nn.Module, inputs: object, output: object, name: str = name) -> None:
            trace.append((name, output.clone() if isinstance(output, Tensor) else None))

        handles.append(module.register_forward_hook(note))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return trace


def _problem(model: nn.Module, layer: str, pair: Tensor, plain: _Trace) -> str | None:
    """Why replacing this layer's output would be wrong; None where it is right.

    The outputs of all modules that finish after the layer are compared, not the logits alone: a
    freshly initialised network may end in a zero layer, which hides what came before.
    """
    order = [name for name, _ in plain]
    calls = order.count(layer)
    if calls != 1:
        return f"which the forward pass calls {calls} times"
    at = order.index(layer)
    output = plain[at][1]
    if output is None or output.shape[:1] != pair.shape[:1]:
        return "whose output is no tensor (B, ...)"
    handle = model.get_submodule(layer).register_forward_hook(lambda *_: output.clone())
    try:
        for token in pair.split(1):
            try:
                replaced = _trace(model, token)
            except (RuntimeError, ValueError, AssertionError, IndexError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                return f"after which the network uses the input's batch size ({reason})"
            later = zip(plain[at + 1 :], replaced[at + 1 :], strict=False)
            if len(replaced) != len(plain) or not all(_same(a, b) for (_, a), (_, b) in later):
                return "after which the network still depends on the input by another way"
    finally:
        handle.remove()
    return None


def _same(plain: Tensor | None, replaced: Tensor | None) -> bool:
    if plain is None or replaced is None:
        return plain is replaced
    if plain.shape != replaced.shape:
        return False
    if not plain.is_floating_point():
        return torch.equal(plain, replaced)
    # The same rows through the same kernels: real differences are far above this bound.
    tolerance = 64 * torch.finfo(plain.dtype).eps * float(plain.abs().max())
    return float((plain - replaced).abs().max()) <= tolerance
