"""Where a LightningModule has its network, and a batch its inputs and labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from interaction_train.errors import InputError, checked_logits, refuse_probabilities
from interaction_train.game.evaluation import Logits, evaluation_mode, unwrap, without_grad
from interaction_train.game.normalize import Normalize

Model = str | Callable[[L.LightningModule], nn.Module] | None
"""The name of an attribute (dots allowed), or a function of the module; None: found by itself."""

FindBatch = Callable[[Any], tuple[Tensor, Tensor]]
Keys = Sequence[int | str]
Normalization = Mapping[str, Sequence[float]]
"""``{"mean": …, "std": …}``, one number per channel, of inputs that the data set normalises."""

_ROUNDING = 1e-5  # of logits, relative to the largest one, and of pixels


class BinaryHead(Logits):
    """A network with one logit z, ``(B, 1)`` or ``(B,)``, as one with the logits (0, z)."""

    def forward(self, x: Tensor, **extra: Any) -> Tensor:
        logits = super().forward(x, **extra).reshape(-1, 1)
        return torch.cat([torch.zeros_like(logits), logits], 1)


def find_model(
    pl_module: L.LightningModule, model: Model = None, x: Tensor | None = None
) -> nn.Module:
    """The network of a module, ``(B, ...)`` → logits ``(B, classes)``.

    Args:
        pl_module: the module.
        model: the name of an attribute (dots allowed), or a function of the module. Default: the
            module's attribute ``model``, ``net`` or ``network`` where it gives the same logits for
            ``x`` as the module's own ``forward``, if it has one; else the module, with a warning.
        x: inputs to try it on, in eval mode without a trace; None: the attribute is taken unseen.

    Raises:
        InputError: there is none, or one that returns no logits, or probabilities.
    """
    found: Any = pl_module
    own = has_forward(pl_module)
    if callable(model):
        found = model(pl_module)
    elif model is not None:
        for name in model.split("."):
            found = getattr(found, name, None)
    else:
        parts = (getattr(pl_module, name, None) for name in ("model", "net", "network"))
        outer = pl_module if own else None
        found = next((part for part in parts if isinstance(part, nn.Module)), outer)
    if not isinstance(found, nn.Module):
        names = ", ".join(name for name, _ in pl_module.named_children())
        expected = f"the attribute of {type(pl_module).__name__} that is the network"
        raise InputError("model", repr(model), f"{expected}; its submodules are: {names}")
    if x is None:
        return unwrap(found)
    if model is None and own and found is not pl_module:
        whole = _as_classifier(pl_module, x)
        if not _agree(found, whole, x):
            rank_zero_warn(
                f"{type(pl_module).__name__}.forward gives other logits than its "
                f"{type(found).__name__}, so the module itself is taken for the network, with its "
                "names of layers. model= says which network is meant."
            )
            return whole
    return _as_classifier(unwrap(found), x)


def has_forward(pl_module: L.LightningModule) -> bool:
    """Whether a module has a ``forward`` of its own."""
    return type(pl_module).forward is not L.LightningModule.forward


def _as_classifier(network: nn.Module, x: Tensor) -> nn.Module:
    """The network, wrapped where its output needs it."""
    try:
        output = _output(network, x)
    except (TypeError, LookupError, AttributeError) as error:  # it takes a whole batch, say
        got = f"{type(network).__name__}.forward, which fails: {error}"
        expected = "one that takes the inputs alone; model= names another network"
        raise InputError("model", got, expected) from error
    if not isinstance(output, Tensor):
        return _as_classifier(Logits(network), x)
    if output.shape in ((len(x),), (len(x), 1)):
        return BinaryHead(network)
    # NaN comes of training that diverges, which is no reason to stop it here.
    refuse_probabilities(checked_logits(output, len(x)).nan_to_num(-1.0))
    return network


def _agree(inner: nn.Module, whole: nn.Module, x: Tensor) -> bool:
    try:
        one = _output(_as_classifier(inner, x), x).nan_to_num()
        other = _output(whole, x).nan_to_num()
    except Exception:  # whatever an inner network says that does not take the inputs
        return False
    rounding = _ROUNDING * float(other.abs().max())
    return one.shape == other.shape and float((one - other).abs().max()) <= rounding


def _output(network: nn.Module, x: Tensor) -> Any:
    with isolate_rng(), evaluation_mode(network), without_grad():
        return network(x)


class Adapter:
    """Reads network, inputs and labels of a module and its batches, and turns inputs into pixels.

    Args:
        model: where the network is, as in :func:`find_model`.
        batch: two indices or keys, of inputs and labels in a batch, or a function of it.
        normalization: ``mean`` and ``std`` per channel of the inputs; None: they are in [0, 1].

    Raises:
        InputError: another kind of ``batch``, other keys, or numbers that ``Normalize`` refuses.
    """

    def __init__(
        self, model: Model, batch: Keys | FindBatch, normalization: Normalization | None = None
    ) -> None:
        if not callable(batch) and (not isinstance(batch, list | tuple) or len(batch) != 2):
            raise InputError("batch", batch, "two indices or keys, of inputs and labels")
        self.model, self.keys = model, batch
        self.layer: Normalize | None = None
        if normalization is not None:
            if not isinstance(normalization, Mapping) or set(normalization) != {"mean", "std"}:
                raise InputError("normalization", normalization, "the keys mean and std")
            self.layer = Normalize(normalization["mean"], normalization["std"])

    def network(self, pl_module: L.LightningModule, x: Tensor | None) -> nn.Module:
        """The module's network as one of pixels; ``x`` as in :func:`find_model`."""
        network = find_model(pl_module, self.model, x)
        layer = _as(self.layer, x)
        return network if layer is None else nn.Sequential(layer, network)

    def layer_name(self, layer: str) -> str:
        """The dotted name in :meth:`network` of a layer of the module's network."""
        return layer if self.layer is None else f"1.{layer}"

    def read(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Inputs and int64 labels ``(B,)`` of a batch, or InputError; 0 and 1 may be floats."""
        keys = self.keys
        if callable(keys):
            return keys(batch)
        try:
            x, y = (batch[key] for key in keys)
        except (KeyError, IndexError, TypeError):
            there = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise InputError("batch", tuple(keys), f"indices or keys of {there}") from None
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise InputError("batch", tuple(keys), "indices or keys of two tensors")
        if y.is_floating_point() and y.numel() == len(x) and bool(((y == 0) | (y == 1)).all()):
            y = y.reshape(len(x)).long()  # as the binary cross entropy takes them
        return x, y

    def pixels(self, inputs: Tensor) -> Tensor:
        """Inputs as pixels."""
        layer = _as(self.layer, inputs)
        if layer is None:
            return inputs
        pixels = inputs * layer.std + layer.mean
        # Grey levels come back to the bit, so that what is drawn by their content is the same.
        levels = (pixels * 255).round() / 255
        return torch.where((levels - pixels).abs() < _ROUNDING, levels, pixels)

    def inputs(self, pixels: Tensor) -> Tensor:
        """Pixels as inputs."""
        layer = _as(self.layer, pixels)
        return pixels if layer is None else layer(pixels)


def _as(layer: Normalize | None, like: Tensor | None) -> Normalize | None:
    """On a tensor's device, in its dtype; a copy, or half precision would round it for good."""
    if layer is None or like is None:
        return layer
    with torch.inference_mode(False):  # whose tensors, in the loops of test, admit no gradients
        return copy.deepcopy(layer).to(like)


def with_inputs(batch: Any, key: int | str, x: Tensor) -> Any:
    """The same batch with other inputs; the batch itself stays as it is."""
    if isinstance(batch, Mapping):
        return {**batch, key: x}
    parts = list(batch)
    parts[int(key)] = x
    if hasattr(batch, "_fields"):
        return type(batch)(*parts)
    return tuple(parts) if isinstance(batch, tuple) else parts
