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
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import Dataset

from interaction_train.attacks.sets.rounding import to_floats
from interaction_train.errors import InputError

MANIFEST = "manifest.json"
FORMAT = "interaction-train adversarial set 1"


@dataclass(frozen=True, eq=False)
class AdversarialSet(Dataset[tuple[Tensor, Tensor]]):
    """Adversarial examples in memory, ordered by their place in the data set, each once.

    As a data set its items are (image ``(C, H, W)`` float32 in [0, 1], label).

    Args:
        tensors: as stored, see the module; only ``adversarial``, ``labels`` and ``indices`` are
            sure to be there.
        manifest: how it was made; empty for a file of torchattacks.
    """

    tensors: Mapping[str, Tensor]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> Tensor:
        """Adversarial images ``(N, C, H, W)`` float32 in [0, 1]."""
        return to_floats(self.tensors["adversarial"])

    @property
    def clean(self) -> Tensor | None:
        """Clean images ``(N, C, H, W)`` float32 in [0, 1], where they are known."""
        return to_floats(self.tensors["clean"]) if "clean" in self.tensors else None

    @property
    def labels(self) -> Tensor:
        """``(N,)`` int64."""
        return self.tensors["labels"]

    @property
    def indices(self) -> Tensor:
        """``(N,)`` int64, ascending."""
        return self.tensors["indices"]

    @property
    def targets(self) -> Tensor | None:
        """``(N,)`` int64 for a targeted attack."""
        return self.tensors.get("targets")

    @property
    def correct(self) -> Tensor | None:
        """``(N,)`` bool, whether the surrogate classifies the clean images correctly."""
        return self.tensors.get("correct")

    @property
    def success(self) -> Tensor | None:
        """``(N,)`` bool, whether the surrogate is fooled."""
        return self.tensors.get("success")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return to_floats(self.tensors["adversarial"][index]), self.labels[index]


@dataclass(frozen=True)
class Counts:
    """What a folder's shards hold, each image counted once.

    Args:
        samples: number of images.
        correct: those whose clean version the surrogate classifies correctly.
        successes: the attack's successes among the correct ones.
        mean_linf: mean over images of the largest change of a pixel.
        max_linf: the largest of all.
    """

    samples: int
    correct: int
    successes: int
    mean_linf: float
    max_linf: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_adversarial_set(path: str | Path, unfinished: bool = False) -> AdversarialSet:
    """Read a set into memory.

    Args:
        path: a folder of this format, or a file that torchattacks' ``Attack.save`` wrote.
        unfinished: accept a folder whose crafting is not finished.

    Raises:
        InputError: neither of the two, a damaged file, or a set that is not complete.
    """
    path = Path(path)
    if path.is_file():
        return AdversarialSet(_read_torchattacks(path))
    manifest = read_manifest(path)
    if manifest is None:
        raise InputError(
            "path", repr(str(path)), f"a folder with {MANIFEST}, or torchattacks' file"
        )
    if not (manifest["finished"] or unfinished):
        raise InputError(
            "path",
            f"{str(path)!r}, whose crafting is not finished",
            "a finished set: the same command goes on with it (or pass unfinished=True)",
        )
    shards = list(_shards(path))
    if not shards:
        raise InputError("path", f"{str(path)!r} without a shard", "at least one")
    tensors = {name: joined([shard[name] for shard in shards]) for name in shards[0]}
    order = tensors["indices"].argsort(stable=True)
    ordered = tensors["indices"][order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]  # processes may share a sample
    tensors = {name: value[order[first]] for name, value in tensors.items()}
    if manifest["finished"] and len(tensors["labels"]) != manifest["counts"]["samples"]:
        raise InputError(
            "path",
            f"{str(path)!r} with {len(tensors['labels'])} images",
            f"{manifest['counts']['samples']}, as its manifest says",
        )
    return AdversarialSet(tensors, manifest)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest; None if there is none.

    Raises:
        InputError: a file of that name which is no such manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("folder", f"{str(path)!r}", f"a manifest in JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise InputError("folder", f"{str(path)!r} of the format {found!r}", repr(FORMAT))
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
    """One shard's tensors.

    Raises:
        InputError: a file that cannot be read.
    """
    try:
        return load_file(path)
    except Exception as error:  # safetensors has an exception of its own
        raise InputError("path", repr(str(path)), f"a whole shard ({error})") from error


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


def count(folder: Path) -> Counts:
    """Count what the shards hold, one shard in memory at a time."""
    seen: set[int] = set()
    correct = successes = 0
    distances: list[float] = []
    for shard in _shards(folder):
        new = [i for i, index in enumerate(shard["indices"].tolist()) if index not in seen]
        seen.update(shard["indices"].tolist())
        correct += int(shard["correct"][new].sum())
        successes += int((shard["correct"] & shard["success"])[new].sum())
        adversarial, clean = shard["adversarial"][new], shard["clean"][new]
        if adversarial.dtype == clean.dtype == torch.uint8:
            delta = (adversarial.double() - clean.double()) / 255  # exactly so many levels
        else:
            delta = to_floats(adversarial).double() - to_floats(clean).double()
        distances += delta.flatten(1).abs().amax(1).tolist()
    mean = sum(distances) / max(1, len(distances))
    return Counts(len(seen), correct, successes, mean, max(distances, default=0.0))


def _shards(folder: Path) -> Iterator[dict[str, Tensor]]:
    return (read_shard(path) for path in sorted(folder.glob("shard_*.safetensors")))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)


def _read_torchattacks(path: Path) -> dict[str, Tensor]:
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        tensors = {"adversarial": saved["adv_inputs"], "labels": saved["labels"].long()}
    except Exception as error:  # whatever a foreign file makes torch raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            "path", repr(str(path)), f"a file that torchattacks' Attack.save wrote ({reason})"
        ) from error
    tensors["indices"] = torch.arange(len(tensors["labels"]))
    if "clean_inputs" in saved:
        tensors["clean"] = saved["clean_inputs"]
    return tensors
