"""Sets of adversarial examples on disk: a folder of shards with a manifest.

A folder holds ``manifest.json`` (what was crafted, how, and whether that is finished) and
``shard_00000.safetensors``, … with the tensors

- ``adversarial`` and ``clean`` ``(n, C, H, W)``, uint8, or float32 in [0, 1];
- ``labels`` and, where the attack was targeted, ``targets`` ``(n,)`` int64;
- ``indices`` ``(n,)`` int64, the place of each image in its data set;
- ``correct`` ``(n,)`` bool, whether the surrogate classifies the clean image correctly;
- ``success`` ``(n,)`` bool, whether it is wrong about the stored image, or sees the target.

Every file is written under another name first and then renamed, so what has its name is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.table import Table
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchattacks.attack import Attack

from interaction_train.attacks.norms import to_floats
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.errors import InputError
from interaction_train.game.evaluation import unwrap
from interaction_train.models.weights import content, weights_tag
from interaction_train.tracking.history import write_whole
from interaction_train.tracking.provenance import versions

MANIFEST = "manifest.json"
FORMAT = "interaction-train adversarial set 1"
_TENSORS = {"adversarial", "clean", "labels", "indices", "correct", "success"}
_ANEW = "delete the file, and the job's command crafts it anew"
_HASHED = 256  # samples; reading all of a large folder of images would take minutes
_NO_PARAMETERS = {"model", "device", "attack", "supported_mode", "targeted", "attack_mode"}


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
        case {"job": dict(), "finished": True, "counts": {"samples": int()}}:
            return manifest
        case {"job": dict(), "finished": False}:
            return manifest
    got = f"{str(path)!r} without one of its entries"
    raise InputError("folder", got, "a manifest with 'job', 'finished' and 'counts'")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the folder's manifest; the folder is made where it is missing."""
    text = json.dumps({"format": FORMAT, **manifest}, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / MANIFEST, text)


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


def write_batches(path: Path, batches: Sequence[Mapping[str, Tensor]], png: bool = False) -> None:
    """Write batches as one shard, after their pictures: a whole shard has all of them."""
    shard = joined(batches)
    if png:
        images, folder = shard["adversarial"], path.parent / "png"
        if images.shape[1] not in (1, 3):
            raise InputError("png", f"images of {images.shape[1]} channels", "1 or 3 channels")
        for image, index in zip(images, shard["indices"].tolist(), strict=True):
            picture = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(picture, "PNG")
            write_whole(folder / f"{index:06d}.png", picture.getvalue())
    write_whole(path, save({name: value.contiguous() for name, value in shard.items()}))


def joined(shards: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors ``(n_k, ...)`` put together: floats where uint8 and floats (of other shards) meet."""
    whole = {}
    for name in shards[0]:
        parts = [shard[name] for shard in shards]
        same = len({part.dtype for part in parts}) == 1
        whole[name] = torch.cat(parts if same else [to_floats(part) for part in parts])
    return whole


def can_go_on(folder: Path, job: Mapping[str, Any], overwrite: bool = False) -> bool:
    """Whether the folder holds this job's set, to go on with; else a new set can begin there."""
    manifest = read_manifest(folder)
    if manifest is None:
        if found := [path.name for path in folder.glob("*") if not path.name.endswith(".draft")]:
            got = f"{str(folder)!r} with {min(found)} and without a manifest"
            raise InputError("folder", got, "a new or empty folder, or one of this job")
        return False
    difference = first_difference(manifest["job"], job)
    if difference is not None and not overwrite and next(folder.glob("shard_*"), None):
        place, old, new = difference
        got = f"{str(folder)!r}, crafted with {place} = {old}"
        raise InputError("folder", got, f"{place} = {new}; or another folder, or overwrite: true")
    return difference is None


def begin_set(folder: Path, job: Mapping[str, Any]) -> None:
    """Remove the files of a set that is there, its manifest last, and write a new one's."""
    for pattern in ("png/*.png", "shard_*.safetensors", MANIFEST):
        for path in folder.glob(pattern):
            path.unlink()
    new = {"finished": False, "job": job, "counts": None, "seconds": None, "device": None}
    write_manifest(folder, {**new, "versions": versions()})


def check_stored(path: Path, indices: Tensor, images: Tensor) -> None:
    """Check that a shard was crafted from these images at these places of the data set."""
    shard = read_shard(path)
    place = torch.isin(shard["indices"], indices)
    same = torch.equal(shard["indices"][place], indices)
    if not same or not torch.equal(to_floats(shard["clean"][place]), images.float().cpu()):
        raise InputError("folder", f"{str(path)!r} with other images", "those of the data set")


def finish_set(folder: Path, seconds: float, device: str) -> dict[str, Any]:
    """Count what is there, and say in the manifest that the set is finished."""
    counts, manifest = count(folder), read_manifest(folder)
    if manifest is not None and not manifest["finished"]:
        now = {"finished": True, "counts": counts, "seconds": seconds, "device": device}
        write_manifest(folder, {**manifest, **now})
    if not counts["correct"]:
        of = f"none of {counts['samples']} clean images in {str(folder)!r} correctly"
        warnings.warn(f"the surrogate classifies {of}, so there is no success rate", stacklevel=2)
    return counts


def count(folder: Path) -> dict[str, Any]:
    """Count images, those right when clean, and the successes among these, shard by shard."""
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
    mean, most = sum(sizes) / max(1, samples), max(sizes, default=0.0)
    counts = {"samples": samples, "correct": correct, "successes": successes}
    return {**counts, "mean_linf": mean, "max_linf": most}


def counts_table(folder: Path, counts: Mapping[str, Any]) -> Table:
    """The counts for people."""
    clean = Proportion(counts["correct"], counts["samples"])
    fooled = Proportion(counts["successes"], counts["correct"])
    low, high = fooled.interval
    table = Table(title="Adversarial examples", show_header=False)
    table.add_row("images", str(counts["samples"]))
    table.add_row("clean accuracy", f"{clean.rate:.4f}")
    interval = f"{fooled.rate:.4f} (95 % interval {low:.4f} to {high:.4f})"
    table.add_row("white-box success", interval if fooled.total else "– (no image is right)")
    for name, value in (("mean", counts["mean_linf"]), ("maximum", counts["max_linf"])):
        table.add_row(f"‖δ‖∞, {name}", f"{value:.4f} ({255 * value:.2f}/255)")
    table.add_row("folder", str(folder))
    table.caption = "success among the images that the surrogate classifies correctly"
    return table


def describe_attack(attack: Attack) -> dict[str, Any]:
    """Its class and all its public attributes, parts and inner attacks included."""
    return {**_described(attack), "mode": attack.attack_mode}


def describe_network(model: nn.Module) -> dict[str, str]:
    """Its class and the tag of its weights."""
    return {"class": _name(type(unwrap(model))), "weights": weights_tag(model)}


def describe_data(dataset: Dataset[Any]) -> dict[str, Any]:
    """Length and a hash of 256 samples, spread evenly; refuses what are no pairs."""
    data: Any = dataset
    count, digest = min(_HASHED, len(data)), hashlib.blake2b(digest_size=8)
    with torch.random.fork_rng(devices=[]):
        for i in range(count):
            item = data[i * len(data) // count]
            if not isinstance(item, tuple | list) or not isinstance(item[0], Tensor):
                raise InputError("predict_dataloader", type(item).__name__, "items (tensor, label)")
            x, y = item
            digest.update(f"{tuple(x.shape)} {x.dtype} {int(y)}".encode())
            digest.update(content(x))
    return {"samples": len(data), "hash": digest.hexdigest()}


def first_difference(old: Any, new: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """Where descriptions differ first, as (path with dots, old, new); "nothing": one lacks it."""
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
        digest = hashlib.blake2b(content(value), digest_size=8).hexdigest()
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


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
