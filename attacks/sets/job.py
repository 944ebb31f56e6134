"""A crafting job's folder: begun or gone on with, filled, checked, counted and shown."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from interaction_train.attacks.sets.manifest import first_difference
from interaction_train.attacks.sets.rounding import to_floats
from interaction_train.attacks.sets.shards import (
    joined,
    read_manifest,
    read_shard,
    read_shards,
    remove_set,
    write_manifest,
    write_pngs,
    write_shard,
)
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.errors import InputError
from interaction_train.tracking.provenance import versions


@dataclass(frozen=True)
class Counts:
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
            got = f"{str(folder)!r} with {sorted(found)[0]} and without a manifest"
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
    """Remove a set that is there, and write the manifest of a new one."""
    remove_set(folder)
    new = {"finished": False, "job": job, "counts": None, "seconds": None, "device": None}
    write_manifest(folder, {**new, "versions": versions()})


def write_batches(path: Path, batches: Sequence[Mapping[str, Tensor]], png: bool) -> None:
    """Write crafted batches as one shard, after their pictures: a whole shard has all of them."""
    shard = {name: joined([batch[name] for batch in batches]) for name in batches[0]}
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
        now = {"finished": True, "counts": asdict(counts), "seconds": seconds, "device": device}
        write_manifest(folder, {**manifest, **now})
    if not counts.correct:
        warnings.warn(
            f"the surrogate classifies none of {counts.samples} clean images in {str(folder)!r} "
            "correctly, so there is no success rate",
            stacklevel=2,
        )
    return counts


def count(folder: Path) -> Counts:
    """Count what the shards hold, one shard in memory at a time."""
    seen: set[int] = set()
    correct = successes = 0
    distances: list[float] = []
    for shard in read_shards(folder):
        new = [i for i, index in enumerate(shard["indices"].tolist()) if index not in seen]
        seen.update(shard["indices"].tolist())
        correct += int(shard["correct"][new].sum())
        successes += int((shard["correct"] & shard["success"])[new].sum())
        adversarial, clean = shard["adversarial"][new], shard["clean"][new]
        if adversarial.dtype == clean.dtype == torch.uint8:
            levels = (adversarial.int() - clean.int()).flatten(1).abs().amax(1)
            distances += [level / 255 for level in levels.tolist()]
        else:
            delta = to_floats(adversarial) - to_floats(clean)
            distances += delta.flatten(1).abs().amax(1).tolist()
    mean = sum(distances) / max(1, len(distances))
    return Counts(len(seen), correct, successes, mean, max(distances, default=0.0))


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
