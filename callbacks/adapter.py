"""Where a LightningModule has its network, and a batch its inputs and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
from torch import Tensor, nn

from interaction_train.errors import InputError

FindModel = Callable[[L.LightningModule], nn.Module]
FindBatch = Callable[[Any], tuple[Tensor, Tensor]]
Keys = Sequence[int | str]
_MODELS = ("model", "net", "network")


def find_model(pl_module: L.LightningModule, model: str | FindModel | None = None) -> nn.Module:
    """The network of a module.

    Args:
        pl_module: the module.
        model: the name of an attribute (dots allowed), or a function of the module. Default: its
            attribute ``model``, ``net`` or ``network``, else the module itself if it has a
            ``forward``.

    Raises:
        InputError: there is none.
    """
    if callable(model):
        return model(pl_module)
    found: Any = None
    if model is not None:
        found = pl_module
        for name in model.split("."):
            found = getattr(found, name, None)
    elif type(pl_module).forward is not L.LightningModule.forward:
        found = pl_module
    for name in _MODELS if model is None else ():
        if isinstance(getattr(pl_module, name, None), nn.Module):
            found = getattr(pl_module, name)
            break
    if not isinstance(found, nn.Module):
        names = ", ".join(name for name, _ in pl_module.named_children())
        raise InputError(
            "model",
            repr(model),
            f"the attribute of {type(pl_module).__name__} that is the network; "
            f"its submodules are: {names}",
        )
    return found


def check_keys(batch: Keys | FindBatch) -> None:
    """Refuse what :func:`find_batch` could not use.

    Raises:
        InputError: neither a function nor two indices or keys.
    """
    if not callable(batch) and (isinstance(batch, str) or len(batch) != 2):
        raise InputError("batch", batch, "two indices or keys, of inputs and labels")


def find_batch(batch: Any, keys: Keys | FindBatch = (0, 1)) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch.

    Args:
        batch: what the loader gives.
        keys: two indices or keys, or a function of the batch.

    Raises:
        InputError: there are no tensors at these places.
    """
    if callable(keys):
        return keys(batch)
    try:
        x, y = (batch[key] for key in keys)
    except (KeyError, IndexError, TypeError):
        there = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
        raise InputError("batch", tuple(keys), f"indices or keys of {there}") from None
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise InputError("batch", tuple(keys), "indices or keys of two tensors")
    return x, y


def with_inputs(batch: Any, key: int | str, x: Tensor) -> Any:
    """The same batch with other inputs; the batch itself stays as it is.

    Args:
        batch: a mapping, a named tuple, a tuple or a list.
        key: where the inputs lie.
        x: the inputs to put there.
    """
    if isinstance(batch, Mapping):
        return {**batch, key: x}
    parts = list(batch)
    parts[int(key)] = x
    if hasattr(batch, "_fields"):
        return type(batch)(*parts)
    return tuple(parts) if isinstance(batch, tuple) else parts
