"""Weights of a network: read from a file or from the package, and named by their content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.evaluation import unwrap

_OPTIONAL = re.compile(r"(^|\.)(num_batches_tracked|normalize\.(mean|std))$")
_WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load weights into a network; it changes only if all of them fit.

    Prefixes of wrappers (``module.``, ``_orig_mod.``) are dropped. Counters of batches and the
    constants of :class:`Normalize` may be left out: the network keeps its own.

    Args:
        model: the network, which is returned; wrappers are looked through.
        path: a ``.safetensors`` file or a ``torch.save``d state dict with the network's own names;
            a checkpoint of Lightning, of which the network's part is taken, that below ``model.``
            or whatever the module calls it; or, where no such file is, the name of weights of this
            package: ``digits_cnn``, ``table_cancer``.

    Raises:
        InputError: no such file, an unreadable one, or one with other entries or shapes.
    """
    network = unwrap(model)
    with as_file(_find(path)) as file:
        state = _read(file)
    own = network.state_dict()
    optional = {key: value for key, value in own.items() if _OPTIONAL.search(key)}
    if "state_dict" in state:
        state = _network_part(state["state_dict"], own.keys() - optional.keys())
    state = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    state = {**optional, **state}
    check_entries("weights", Path(path).name, state, own)
    network.load_state_dict(state)
    return model


def pretrained(model: nn.Module, weights: str) -> nn.Module:
    """:func:`load_weights` for YAML.

    ::

        class_path: interaction_train.models.weights.pretrained
        init_args: {model: {class_path: DigitsNet}, weights: digits_cnn}

    Args:
        model: the network.
        weights: a file or the name of packaged weights.
    """
    return load_weights(model, weights)


def weights_tag(model: nn.Module) -> str:
    """16 hexadecimal digits that depend on the names, shapes, dtypes and values of all weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(unwrap(model).state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(content(value))
    return digest.hexdigest()


def content(value: Tensor) -> bytes:
    """The bytes of a tensor's elements."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _find(path: str | Path) -> Any:
    if Path(path).is_file():
        return Path(path)
    folder = files("interaction_train.models").joinpath("pretrained")
    packaged = sorted(file.name for file in folder.iterdir() if file.name.endswith(".safetensors"))
    for name in (str(path), f"{path}.safetensors"):
        if name in packaged:
            return folder.joinpath(name)
    expected = f"an existing file, or one of {', '.join(Path(name).stem for name in packaged)}"
    raise InputError("weights", repr(str(path)), expected)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.suffix == ".safetensors":
            loaded: Any = load_file(file)
        else:
            loaded = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a damaged or foreign file makes the readers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        expected = f"a readable file of weights ({reason})"
        raise InputError("weights", repr(str(file)), expected) from error
    if not isinstance(loaded, Mapping):
        raise InputError("weights", f"{file.name} with a {type(loaded).__name__}", "a state dict")
    return loaded


def _network_part(state: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    """Of a Lightning module's state what is below ``model.``, or the only prefix that fits."""
    parts = {"model.": _below(state, "model.")}
    some = min(wanted, default="")
    for key in (key for key in state if key.endswith(some)):
        prefix = key[: len(key) - len(some)]
        if prefix == "" or prefix.endswith("."):
            parts[prefix] = _below(state, prefix)
    fitting = [part for part in parts.values() if wanted <= {_WRAPPERS.sub("", k) for k in part}]
    return fitting[0] if len(fitting) == 1 else parts["model."]


def _below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def check_entries(
    argument: str, name: str, state: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Refuse a state, read from the file ``name``, of other entries or shapes than ``own``."""
    parts = {
        "lacks": [key for key in own if key not in state],
        "has the unknown": [key for key in state if key not in own],
    }
    if got := " and ".join(f"{kind} {_few(keys)}" for kind, keys in parts.items() if keys):
        raise InputError(argument, f"{name}, which {got}", "the network's entries")
    for key, value in own.items():
        if getattr(state[key], "shape", None) != getattr(value, "shape", None):
            got = f"{name} with {key} of shape {tuple(state[key].shape)}"
            raise InputError(argument, got, f"shape {tuple(value.shape)}")


def _few(keys: list[str], limit: int = 3) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
