"""Sets of adversarial examples on disk: a folder of shards with a manifest.

A folder holds ``manifest.json`` (what was crafted, how, and whether that is finished) and
``shard_00000.safetensors``, … with the tensors

- ``adversarial`` and ``clean`` ``(n, C, H, W)``, uint8, or float32 in [0, 1];
- ``labels`` and, where the attack was targeted, ``targets`` ``(n,)`` int64;
- ``indices`` ``(n,)`` int64, the place of each image in its data set;
- ``correct`` ``(n,)`` bool, whether the surrogate classifies the clean image correctly;
- ``success`` ``(n,)`` bool, whether it is wrong about the adversarial one as stored (untargeted),
  or sees the target in it.

Every file is written under another name first and then renamed, so what has its name is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from interaction_train.attacks.sets.rounding import to_floats
from interaction_train.errors import InputError

MANIFEST = "manifest.json"
FORMAT = "interaction-train adversarial set 1"
_TENSORS = {"adversarial", "clean", "labels", "indices", "correct", "success"}
_ANEW = "delete the file, and the job's command crafts it anew"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest; None if there is none."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError("folder", f"{str(path)!r}", f"a manifest in JSON ({error})") from error
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != FORMAT:
        raise InputError("folder", f"{str(path)!r} of the format {found!r}", repr(FORMAT))
    kinds = {
        "job": dict,
        "finished": bool,
        **({"counts": dict} if manifest.get("finished") else {}),
    }
    broken = [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]
    if broken or (manifest["finished"] and not isinstance(manifest["counts"].get("samples"), int)):
        got = f"{str(path)!r} without one of its entries"
        raise InputError("folder", got, "a manifest with 'job', 'finished' and 'counts'")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the folder's manifest; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **manifest}, indent=2, ensure_ascii=False) + "\n"
    _whole(folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard_{number:05d}.safetensors"


def read_shard(path: Path) -> dict[str, Tensor]:
    """One shard's tensors."""
    try:
        shard = load_file(path)
    except Exception as error:  # safetensors has an exception of its own
        raise InputError("path", repr(str(path)), f"a whole shard ({error}): {_ANEW}") from error
    lengths = {len(value) if value.dim() else None for value in shard.values()}
    if not shard.keys() >= _TENSORS or len(lengths) != 1:
        got = f"{str(path)!r} with {', '.join(sorted(shard)) or 'nothing'}"
        wanted = f"{', '.join(sorted(_TENSORS))} of one length: {_ANEW}"
        raise InputError("path", got, wanted)
    return shard


def read_shards(folder: Path) -> Iterator[dict[str, Tensor]]:
    """All shards, one after another."""
    first: dict[str, Tensor] = {}
    for path in sorted(folder.glob("shard_*.safetensors")):
        shard = read_shard(path)
        first = first or shard
        alike = all(v.shape[1:] == first[k].shape[1:] for k, v in shard.items() if k in first)
        if shard.keys() != first.keys() or not alike:
            raise InputError("path", f"{str(path)!r}, unlike the first shard", f"a like: {_ANEW}")
        yield shard


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one shard."""
    content = save({name: value.contiguous() for name, value in tensors.items()})
    _whole(path, lambda file: file.write_bytes(content))


def write_pngs(folder: Path, images: Tensor, indices: Tensor) -> None:
    """Write ``png/<index>.png`` for each image.

    Args:
        folder: the set's folder.
        images: ``(n, C, H, W)`` uint8 with 1 (grey) or 3 channels (RGB).
        indices: ``(n,)`` int64.

    Raises:
        InputError: another number of channels.
    """
    if images.shape[1] not in (1, 3):
        raise InputError("png", f"images of {images.shape[1]} channels", "1 or 3 channels")
    (folder / "png").mkdir(exist_ok=True)
    for image, index in zip(images, indices.tolist(), strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())
        _whole(folder / "png" / f"{index:06d}.png", partial(picture.save, format="PNG"))


def remove_set(folder: Path) -> None:
    """Remove a set's own files, the manifest last; others stay."""
    for pattern in ("png/*.png", "shard_*.safetensors", MANIFEST):
        for path in folder.glob(pattern):
            path.unlink()


def joined(parts: list[Tensor]) -> Tensor:
    """Parts ``(n_k, ...)`` as one ``(N, ...)``: floats where uint8 and floats come together."""
    # A shard keeps its clean images as bytes where they are; another may not have been able to.
    same = len({part.dtype for part in parts}) == 1
    return torch.cat(parts if same else [to_floats(part) for part in parts])


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)
