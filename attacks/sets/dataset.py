"""Adversarial examples from disk, in memory and as a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from interaction_train.attacks.norms import to_floats
from interaction_train.attacks.sets.shards import MANIFEST, joined, read_manifest, read_shards
from interaction_train.errors import InputError


class AdversarialSet(Dataset[tuple[Tensor, Tensor]]):
    """Adversarial examples in memory, ordered by their place in the data set, each once.

    Its items are (image ``(C, H, W)``, label). Its attributes, None where not known, are ``images``
    and ``clean`` ``(N, C, H, W)`` float32 in [0, 1]; ``labels``, ``indices`` (ascending) and
    ``targets`` ``(N,)`` int64; ``correct`` (the surrogate is right about the clean image) and
    ``success`` (it is fooled) ``(N,)`` bool.

    Args:
        tensors: as stored (:mod:`interaction_train.attacks.sets.shards`); only ``adversarial``,
            ``labels`` and ``indices`` are sure to be there.
        manifest: how it was made; empty for a file of torchattacks.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any] | None = None
    ) -> None:
        self.tensors, self.manifest = tensors, manifest or {}
        self.labels, self.indices = tensors["labels"], tensors["indices"]
        self.targets, self.correct = tensors.get("targets"), tensors.get("correct")
        self.success = tensors.get("success")

    @property
    def images(self) -> Tensor:
        return to_floats(self.tensors["adversarial"])

    @property
    def clean(self) -> Tensor | None:
        return to_floats(self.tensors["clean"]) if "clean" in self.tensors else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return to_floats(self.tensors["adversarial"][index]), self.labels[index]


def read_adversarial_set(path: str | Path, unfinished: bool = False) -> AdversarialSet:
    """Read a set into memory.

    Args:
        path: a folder that :class:`~interaction_train.callbacks.AdversarialWriter` wrote, or a file
            that torchattacks' ``Attack.save`` wrote.
        unfinished: accept a folder whose crafting is not finished.

    Raises:
        InputError: neither of the two, a damaged file, or a set that is not complete.
    """
    path = Path(path)
    if path.is_file():
        return AdversarialSet(_read_torchattacks(path))
    manifest, got = read_manifest(path), repr(str(path))
    if manifest is None:
        raise InputError("path", got, f"a folder with {MANIFEST}, or torchattacks' file")
    if not (manifest["finished"] or unfinished):
        how = "a finished set: the same command goes on with it (or pass unfinished=True)"
        raise InputError("path", f"{got}, whose crafting is not finished", how)
    shards = list(read_shards(path))
    if not shards:
        raise InputError("path", f"{got} without a shard", "at least one")
    tensors = joined(shards)
    order = tensors["indices"].argsort()
    if manifest["finished"] and len(order) != manifest["counts"]["samples"]:
        wanted = f"{manifest['counts']['samples']}, as its manifest says"
        raise InputError("path", f"{got} with {len(order)} images", wanted)
    return AdversarialSet({name: value[order] for name, value in tensors.items()}, manifest)


def _read_torchattacks(path: Path) -> dict[str, Tensor]:
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        tensors = {"adversarial": saved["adv_inputs"], "labels": saved["labels"].long()}
        if "clean_inputs" in saved:
            tensors["clean"] = saved["clean_inputs"]
        if len({len(value) for value in tensors.values()}) > 1:
            raise ValueError("its images and labels differ in number")
    except Exception as error:  # whatever a foreign file makes torch raise
        reason = str(error).strip().splitlines()[0]
        wanted = f"a file that torchattacks' Attack.save wrote ({reason})"
        raise InputError("path", repr(str(path)), wanted) from error
    return {**tensors, "indices": torch.arange(len(tensors["labels"]))}
