"""Data modules: a named data set, a folder of images or an .npz file; digits without a download."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from interaction_train.data.keyed import (
    Augmentation,
    Cutout,
    KeyedDataset,
    RandomCropFlip,
    per_sample,
)
from interaction_train.data.parts import PartsDataModule
from interaction_train.data.sources import NAMES, Split, images, labels, load, resize
from interaction_train.errors import InputError, at_least

_LEAST = {"padding": 0, "image_size": 1, "num_classes": 1}


@dataclass(eq=False)
class ImageDataModule(PartsDataModule):
    """Batches ``(x, y)``: x float32 ``(B, C, H, W)`` in [0, 1], y int64 ``(B,)``.

    Args:
        source: digits, MNIST, FashionMNIST, CIFAR10, CIFAR100 or SVHN (of torchvision); a folder
            with ``train`` and ``test``, or ``val``, that hold a folder of images, read as RGB, per
            class; or an .npz file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``, images
            ``(N, H, W)`` or ``(N, H, W, C)``, uint8 or float in [0, 1].
        root: where torchvision's data sets are, or are downloaded to.
        batch_size: samples per batch and process.
        val_fraction: part of the training samples held out for validation, stratified by class; not
            used for a folder that has all of ``train``, ``val`` and ``test``.
        train_fraction: part of the remaining training samples that is used, stratified too.
        augment: whether training images are cropped at random after zero padding, and flipped.
        flip: by default not digits, MNIST, SVHN and .npz files of one channel.
        padding: zeros on each side before the crop.
        transform: in place of crop and flip: a transform of each image ``(C, H, W)``, of v2 say.
        cutout: a square of training images that is covered, also without ``augment``.
        image_size: what the shorter side is resized to, and the other cropped to at the centre;
            needed for a folder of images that differ in size.
        num_classes: by default the named data set's, or after ``setup()`` the highest label plus 1.
        seed: of the order and the augmentation; the splits are always the same.
        num_workers: processes that load data beside the main one.
        predict_split: the part that ``predict`` goes over, in order and without augmentation.
        test_fraction: part of all digits that is their test set; other sources have one.

    Raises:
        InputError: an argument out of its range, or a source that does not exist.
    """

    source: str | Path
    root: str | Path = "data"
    batch_size: int = 128
    val_fraction: float = 0.1
    train_fraction: float = 1.0
    augment: bool = True
    flip: bool | None = None
    padding: int = 4
    transform: nn.Module | None = None
    cutout: Cutout | None = None
    image_size: int | None = None
    num_classes: int | None = None
    seed: int = 0
    num_workers: int = 0
    predict_split: Split = "test"
    test_fraction: float = 0.2
    parts: dict[Split, KeyedDataset] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in _LEAST.items():
            if (value := getattr(self, name)) is not None:
                at_least(name, value, least)
        self.source, self.root = str(self.source), str(self.root)
        is_file = self.source.endswith(".npz") and os.path.isfile(self.source)
        if not (self.source in NAMES or os.path.isdir(self.source) or is_file):
            expected = f"one of {', '.join(NAMES)}, an existing folder or an existing .npz file"
            raise InputError("source", repr(self.source), expected)
        self.num_classes = self.num_classes or NAMES.get(self.source)

    def prepare_data(self) -> None:
        """Download a data set of torchvision that is not in ``root`` yet."""
        if self.source in NAMES:
            load(str(self.source), str(self.root), self.image_size, download=True)

    def setup(self, stage: str | None = None) -> None:
        """Load everything, once; InputError for data that is malformed or too small to split."""
        if self.parts:
            return
        found = load(str(self.source), str(self.root), self.image_size)
        highest = max(int(labels(source).max()) for source in found.values())
        self.num_classes = self.num_classes or highest + 1
        if highest >= self.num_classes:
            expected = f"at least {highest + 1}: a label is {highest}"
            raise InputError("num_classes", self.num_classes, expected)
        indices = self.divide({name: labels(source) for name, source in found.items()})
        source = found["train"]
        augmentations = self._augmentations(images(source, torch.tensor([0])).shape[1])
        size = resize(self.image_size)
        self.parts = {
            name: KeyedDataset(found[file], index, size) for name, (file, index) in indices.items()
        }
        _, train = indices["train"]
        self.parts["train"] = KeyedDataset(source, train, size, augmentations, self.seed)

    def _augmentations(self, channels: int) -> list[Augmentation]:
        likely = self.source == "FashionMNIST" or (channels > 1 and self.source != "SVHN")
        moved = RandomCropFlip(self.padding, likely if self.flip is None else self.flip)
        own = moved if self.transform is None else partial(per_sample, self.transform)
        found: list[Augmentation] = [own] if self.augment else []
        return found if self.cutout is None else [*found, self.cutout.keyed]


@dataclass(eq=False)
class DigitsDataModule(ImageDataModule):
    """The 1797 handwritten 8x8 digits that come with scikit-learn, ``(1, 8, 8)``; no download.

    As :class:`ImageDataModule`, with other defaults: images are shifted by up to one pixel if they
    are to be augmented.
    """

    source: str | Path = field(default="digits", init=False)
    root: str | Path = field(default="data", init=False)
    batch_size: int = 64
    augment: bool = False
    flip: bool | None = False
    padding: int = 1
