"""What the data modules share: parts that are loaded in a keyed order, and stratified splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning import LightningDataModule
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader

from interaction_train.data.keyed import Batch, KeyedLoader, KeyedPart, KeyedSampler, as_is
from interaction_train.data.sources import Split
from interaction_train.errors import InputError, at_least, one_of

_LEAST = {"batch_size": 1, "num_workers": 0}
_SPLIT_SEED = 0  # of every run, so that runs share their validation and test sets


class PartsDataModule(LightningDataModule, ABC):
    """Loads the parts that ``setup()`` of a subclass, a dataclass with these fields, puts there."""

    if TYPE_CHECKING:  # jsonargparse would look these types up in a subclass's file
        batch_size: int
        val_fraction: float
        test_fraction: float
        train_fraction: float
        seed: int
        num_workers: int
        predict_split: Split
        parts: Mapping[Split, KeyedPart]

    def __post_init__(self) -> None:
        super().__init__()
        for name, least in _LEAST.items():
            at_least(name, getattr(self, name), least)
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(name, getattr(self, name), "a number strictly between 0 and 1")
        if not 0 < self.train_fraction <= 1:
            raise InputError("train_fraction", self.train_fraction, "a number above 0 and up to 1")
        if not 0 <= self.seed < 1 << 32:
            raise InputError("seed", self.seed, "an integer from 0 to 2^32 - 1")
        one_of("predict_split", self.predict_split, ("train", "val", "test"))

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Make the parts, once."""

    def divide(self, labels: Mapping[Split, Tensor]) -> dict[Split, tuple[Split, Tensor]]:
        """Each part: which of the sets with these labels it comes from, and the indices in it.

        Every set is a part, "train" less what is split off it for the parts that have no set.
        """
        found = {name: (name, torch.arange(len(own))) for name, own in labels.items()}
        train = found["train"][1]
        fractions: dict[Split, float] = {"test": self.test_fraction, "val": self.val_fraction}
        for name, fraction in fractions.items():
            if name not in labels:
                argument = f"{name}_fraction"
                train, part = _stratified(labels["train"], train, fraction, argument)
                found[name] = "train", part
        if self.train_fraction < 1:
            _, train = _stratified(labels["train"], train, self.train_fraction, "train_fraction")
        return {**found, "train": ("train", train)}

    def train_dataloader(self) -> DataLoader[Batch]:
        self.setup()
        ranks = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = self._sampler(*ranks)
        if self.trainer and self.trainer.training:
            sampler.go_on(self.trainer, self.batch_size)
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.predict_split)

    def _sampler(self, world_size: int, rank: int) -> KeyedSampler:
        return KeyedSampler(self.parts["train"], self.seed, world_size, rank)

    def _loader(self, name: Split, sampler: KeyedSampler | None = None) -> DataLoader[Batch]:
        self.setup()
        cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return KeyedLoader(
            self.parts[name],
            batch_size=self.batch_size,
            sampler=sampler,  # without one Lightning may put in its own
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=cast(Any, as_is),
            pin_memory=cuda,
            # Otherwise each pass over the loader takes a number from the global generator.
            generator=torch.Generator().manual_seed(self.seed),
        )


def _stratified(
    labels: Tensor, indices: Tensor, fraction: float, argument: str
) -> tuple[Tensor, Tensor]:
    """Split a fraction off, with the classes in proportion: (the rest, the fraction), in order."""
    own = labels[indices]
    classes, counts = own.unique(return_counts=True)
    size = round(fraction * len(own))
    if counts.min() < 2 or min(size, len(own) - size) < len(classes):
        raise InputError(
            argument,
            f"{fraction} of {len(own)} samples in {len(classes)} classes",
            "enough samples to stratify: two per class, and as many as classes on both sides"
            f" (the smallest class, {int(classes[counts.argmin()])}, has {int(counts.min())})",
        )
    rest, part = train_test_split(
        indices.numpy(), test_size=size, stratify=own.numpy(), random_state=_SPLIT_SEED
    )
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(part))
