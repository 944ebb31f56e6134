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
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from rich.table import Table
from safetensors.torch import load_file, save
from torch import Tensor

from interaction_train.attacks.sets.manifest import first_difference
from interaction_train.attacks.sets.rounding import to_floats
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.errors import InputError
from interaction_train.tracking.provenance import versions

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
    match manifest:
        case {"job": dict(), "finished": False}:
            return manifest
        case {"job": dict(), "finished": True, "counts": {"samples": int()}}:
            return manifest
    got = f"{str(path)!r} without one of its entries"
    raise InputError("folder", got, "a manifest with 'job', 'finished' and 'counts'")


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
    """All shards, one after another, each image once: processes may share some."""
    first: dict[str, Any] = {}
    seen: set[int] = set()
    for path in sorted(folder.glob("shard_*.safetensors")):
        shard = read_shard(path)
        shapes = {name: value.shape[1:] for name, value in shard.items()}
        first = first or shapes
        if shapes != first:
            raise InputError("path", f"{str(path)!r}, unlike the first shard", f"a like: {_ANEW}")
        places = shard["indices"].tolist()
        new = [i for i, place in enumerate(places) if place not in seen]
        seen.update(places)
        yield {name: value[new] for name, value in shard.items()}


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one shard."""
    content = save({name: value.contiguous() for name, value in tensors.items()})
    _whole(path, lambda file: file.write_bytes(content))


def write_pngs(folder: Path, images: Tensor, indices: Tensor) -> None:
    """Write ``png/<index>.png`` for each image, ``(n, C, H, W)`` uint8; indices ``(n,)`` int64."""
    if images.shape[1] not in (1, 3):
        raise InputError("png", f"images of {images.shape[1]} channels", "1 or 3 channels")
    (folder / "png").mkdir(exist_ok=True)
    for image, index in zip(images, indices.tolist(), strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())
        _whole(folder / "png" / f"{index:06d}.png", partial(picture.save, format="PNG"))


def joined(shards: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors ``(n_k, ...)`` put together: floats where uint8 and floats meet.

    A shard keeps its clean images as bytes where they are; another may not have been able to.
    """
    whole = {}
    for name in shards[0]:
        parts = [shard[name] for shard in shards]
        same = len({part.dtype for part in parts}) == 1
        whole[name] = torch.cat(parts if same else [to_floats(part) for part in parts])
    return whole


class Counts(NamedTuple):
    """Of a folder's images: those right when clean, and the attack's successes among these."""

    samples: int
    correct: int
    successes: int
    mean_linf: float
    max_linf: float


def can_go_on(folder: Path, job: Mapping[str, Any], overwrite: bool = False) -> bool:
    """Whether the folder holds this job's set, to go on with; else a new set can begin there."""
    manifest = read_manifest(folder)
    if manifest is None:
        found = [path.name for path in folder.glob("*") if not path.name.endswith(".tmp")]
        if found:
            got = f"{str(folder)!r} with {min(found)} and without a manifest"
            raise InputError("folder", got, "a new or empty folder, or one of this job")
        return False
    difference = first_difference(manifest["job"], job)
    if difference is not None and not overwrite and next(folder.glob("shard_*"), None):
        place, old, new = difference
        raise InputError(
            "folder",
            f"{str(folder)!r}, crafted with {place} = {old}",
            f"{place} = {new}; or another folder, or overwrite: true",
        )
    return difference is None


def begin_set(folder: Path, job: Mapping[str, Any]) -> None:
    """Remove the files of a set that is there, its manifest last, and write a new one's."""
    for pattern in ("png/*.png", "shard_*.safetensors", MANIFEST):
        for path in folder.glob(pattern):
            path.unlink()
    new = {"finished": False, "job": job, "counts": None, "seconds": None, "device": None}
    write_manifest(folder, {**new, "versions": versions()})


def write_batches(path: Path, batches: Sequence[Mapping[str, Tensor]], png: bool) -> None:
    """Write crafted batches as one shard, after their pictures: a whole shard has all of them."""
    shard = joined(batches)
    if png:
        write_pngs(path.parent, shard["adversarial"], shard["indices"])
    write_shard(path, shard)


def check_stored(path: Path, indices: Tensor, images: Tensor) -> None:
    """Check that a shard was crafted from these images at these places of the data set."""
    shard = read_shard(path)
    place = torch.isin(shard["indices"], indices)
    same = torch.equal(shard["indices"][place], indices)
    if not same or not torch.equal(to_floats(shard["clean"][place]), images.float().cpu()):
        raise InputError("folder", f"{str(path)!r} with other images", "those of the data set")


def finish_set(folder: Path, seconds: float, device: str) -> Counts:
    """Count what is there, and say in the manifest that the set is finished."""
    counts, manifest = count(folder), read_manifest(folder)
    if manifest is not None and not manifest["finished"]:
        now = {"finished": True, "counts": counts._asdict(), "seconds": seconds, "device": device}
        write_manifest(folder, {**manifest, **now})
    if not counts.correct:
        warnings.warn(
            f"the surrogate classifies none of {counts.samples} clean images in {str(folder)!r} "
            "correctly, so there is no success rate",
            stacklevel=2,
        )
    return counts


def count(folder: Path) -> Counts:
    """Count what the shards hold, with one shard in memory at a time."""
    samples = correct = successes = 0
    sizes: list[float] = []
    for shard in read_shards(folder):
        samples += len(shard["labels"])
        correct += int(shard["correct"].sum())
        successes += int((shard["correct"] & shard["success"]).sum())
        adversarial, clean = shard["adversarial"], shard["clean"]
        if adversarial.dtype == clean.dtype == torch.uint8:
            delta, unit = adversarial.int() - clean.int(), 255
        else:
            delta, unit = to_floats(adversarial) - to_floats(clean), 1
        sizes += [size / unit for size in delta.flatten(1).abs().amax(1).tolist()]
    mean = sum(sizes) / max(1, samples)
    return Counts(samples, correct, successes, mean, max(sizes, default=0.0))


def counts_table(folder: Path, counts: Counts) -> Table:
    """The counts for people."""
    clean = Proportion(counts.correct, counts.samples)
    fooled = Proportion(counts.successes, counts.correct)
    low, high = fooled.interval
    table = Table(title="Adversarial examples", show_header=False)
    table.add_row("images", str(counts.samples))
    table.add_row("clean accuracy", f"{clean.rate:.4f}")
    interval = f"{fooled.rate:.4f} (95 % interval {low:.4f} to {high:.4f})"
    table.add_row("white-box success", interval if counts.correct else "– (no image is right)")
    for name, value in (("mean", counts.mean_linf), ("maximum", counts.max_linf)):
        table.add_row(f"‖δ‖∞, {name}", f"{value:.4f} ({255 * value:.2f}/255)")
    table.add_row("folder", str(folder))
    table.caption = "success among the images that the surrogate classifies correctly"
    return table


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)
