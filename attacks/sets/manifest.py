"""What identifies a crafting job, as plain values that JSON can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchattacks.attack import Attack

from interaction_train.errors import InputError
from interaction_train.game.evaluation import unwrap
from interaction_train.models import weights_tag

_HASHED = 256  # samples; reading all of a large folder of images would take minutes
_NO_PARAMETERS = {"model", "device", "attack", "supported_mode", "targeted", "attack_mode"}


def describe_attack(attack: Attack) -> dict[str, Any]:
    """Its class and all its public attributes, parts and inner attacks included."""
    return {**_described(attack), "mode": attack.attack_mode}


def describe_network(model: nn.Module) -> dict[str, str]:
    """Its class and the tag of its weights."""
    return {"class": _name(type(unwrap(model))), "weights": weights_tag(model)}


def describe_data(dataset: Dataset[Any]) -> dict[str, Any]:
    """Length and a hash of 256 samples, spread evenly (fewer samples are hashed entirely).

    Raises:
        InputError: a data set without a length, items by index or pairs (image, label).
    """
    data: Any = dataset
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        wanted = "a data set with a length and items by index"
        raise InputError("predict_dataloader", type(data).__name__, wanted)
    count, digest = min(_HASHED, len(data)), hashlib.blake2b(digest_size=8)
    with torch.random.fork_rng(devices=[]):
        for i in range(count):
            item = data[i * len(data) // count]
            if not isinstance(item, tuple | list) or not isinstance(item[0], Tensor):
                raise InputError("predict_dataloader", type(item).__name__, "items (tensor, label)")
            x, y = item
            digest.update(f"{tuple(x.shape)} {x.dtype} {int(y)}".encode())
            digest.update(_bytes(x))
    return {"samples": len(data), "hash": digest.hexdigest()}


def first_difference(old: Any, new: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """Where two descriptions differ first; None where they are equal.

    Returns:
        (path with dots, old value, new value); "nothing" stands for what one of them lacks.
    """
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return None if old == new else (place, old, new)
    pairs = {k: (old.get(k, "nothing"), new.get(k, "nothing")) for k in {**new, **old}}
    found = (first_difference(*pairs[k], f"{place}.{k}".lstrip(".")) for k in pairs)
    return next(filter(None, found), None)


def _described(value: Any, above: tuple[Any, ...] = ()) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return _name(value)
    if isinstance(value, Tensor):
        digest = hashlib.blake2b(_bytes(value), digest_size=8).hexdigest()
        return {"shape": list(value.shape), "values": digest}
    if isinstance(value, nn.Module):
        return describe_network(value)
    if any(value is outer for outer in above):
        return "…"
    above = (*above, value)
    if isinstance(value, Mapping):
        return {str(key): _described(inner, above) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_described(inner, above) for inner in value]
    left_out = _NO_PARAMETERS if isinstance(value, Attack) else ()
    settings = {
        name: _described(inner, above)
        for name, inner in sorted(getattr(value, "__dict__", {}).items())
        if not name.startswith("_") and name not in left_out
    }
    return {"class": _name(type(value)), **settings}


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
