"""Data modules: digits without a download, torchvision data sets, image folders and .npz files.

Batches are ``(x, y)``: x float32 ``(B, C, H, W)`` in [0, 1], y int64 ``(B,)``. The order of the
training samples depends on (seed, epoch) alone and a sample's augmentation on (seed, epoch, index)
alone, not on the global RNG state, the number of workers or the run's history. So a run resumed
from the checkpoint of an epoch's end sees what the uninterrupted run sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from lightning import LightningDataModule
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision import datasets
from torchvision.transforms.v2 import functional as TF

from interaction_train.errors import InputError
from interaction_train.sampling.random import Draws

Batch = tuple[Tensor, Tensor]
Key = int | tuple[int, int]
Split = Literal["train", "val", "test"]

SPLIT_SEED = 0
"""Splits are the same for every run's seed, so that runs share their validation and test sets."""


class KeyedSampler(DistributedSampler[tuple[int, int]]):
    """Yields ``(epoch, index)``, shuffled by (seed, epoch).

    Lightning calls :meth:`set_epoch` before every epoch; in a plain loop the caller does. Several
    processes share one order, padded by repetition to a multiple of their number; a single
    process sees every sample once.

    Args:
        dataset: what to sample from.
        seed: the run's seed.
        num_replicas: number of processes.
        rank: this process.
    """

    def __init__(
        self, dataset: Dataset[Batch], seed: int = 0, num_replicas: int = 1, rank: int = 0
    ) -> None:
        # The parent seeds an epoch with seed + epoch; apart by 2^20, the seeds share no order.
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed << 20)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        return ((epoch, index) for index in cast(Iterator[int], super().__iter__()))


@dataclass(frozen=True)
class RandomCropFlip:
    """Crop at a random place after zero padding, and mirror half of the images if wanted.

    Args:
        padding: zeros added on each side before the crop.
        flip: whether to flip horizontally with probability 1/2.
    """

    padding: int
    flip: bool

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """``(B, C, H, W)`` → the same shape and dtype; the draws are one per sample."""
        size = 2 * self.padding + 1
        row, column, side = (draws.uniform("crop and flip", 3) * torch.tensor([size, size, 2])).T
        windows = F.pad(x, [self.padding] * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
        x = windows[torch.arange(len(x)), :, row.long(), column.long()]
        if not self.flip:
            return x
        return torch.where((side < 1)[:, None, None, None], x.flip(-1), x)


@dataclass(frozen=True)
class PerSample:
    """Apply a random transform, such as one of torchvision.transforms.v2, sample by sample.

    The transform draws from torch's global CPU generator, which is seeded for every sample and put
    back afterwards.

    Args:
        transform: ``(C, H, W)`` → the same for all samples of a batch, uint8 or float in [0, 1].
    """

    transform: nn.Module

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """``(B, C, H, W)`` → ``(B, ...)``; the draws are one per sample."""
        out = []
        with torch.random.fork_rng(devices=[]):
            for sample, seed in zip(x, draws.bits("transform").tolist(), strict=True):
                # torch.manual_seed would reseed the accelerators too.
                torch.default_generator.manual_seed(seed)
                out.append(self.transform(sample))
        return torch.stack(out)


@dataclass(frozen=True)
class Cutout:
    """Cover a square at a random place (DeVries and Taylor, 2017).

    The centre is any pixel with equal probability, so that squares may reach over the border.

    Args:
        size: the square's side in pixels.
        fill: what it shows, in [0, 1]. (The paper's zeros come after the normalisation, which here
            is the network's: they are the training mean.)

    Raises:
        InputError: a size below 1 or a fill outside [0, 1].
    """

    size: int
    fill: float = 0.5

    def __post_init__(self) -> None:
        _at_least("size", self.size, 1)
        if not 0 <= self.fill <= 1:
            raise InputError("fill", self.fill, "a number in [0, 1]")

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """``(B, C, H, W)`` → the same shape and dtype; the draws are one per sample."""
        places = draws.uniform("cutout", 2) * torch.tensor(x.shape[2:])
        row, column = (
            (torch.arange(length) - (centre.long() - self.size // 2)[:, None])
            for length, centre in zip(x.shape[2:], places.T, strict=True)
        )
        covered = [(part >= 0) & (part < self.size) for part in (row, column)]
        square = covered[0][:, None, :, None] & covered[1][:, None, None, :]
        fill = round(self.fill * 255) if x.dtype == torch.uint8 else self.fill
        return x.masked_fill(square, fill)


@dataclass(frozen=True)
class InTurn:
    """Several augmentations, one after the other.

    Args:
        parts: the augmentations.
    """

    parts: Sequence[Augmentation]

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """``(B, C, H, W)`` → ``(B, ...)``; the draws are one per sample."""
        for part in self.parts:
            x = part(x, draws)
        return x


Augmentation = Callable[[Tensor, Draws], Tensor]


@dataclass(frozen=True)
class MemoryImages:
    """Images held in memory.

    Args:
        pixels: ``(N, C, H, W)``, uint8 or float32 in [0, 1].
        image_size: height and width to resize to.
    """

    pixels: Tensor
    image_size: int | None = None

    def __call__(self, indices: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` by their indices ``(B,)``."""
        return _resize(self.pixels[indices], self.image_size)


@dataclass(frozen=True)
class FileImages:
    """Images decoded from files when they are asked for, in RGB.

    Args:
        paths: the N files.
        image_size: height and width to resize to; needed where the images differ in size.
    """

    paths: Sequence[str]
    image_size: int | None = None

    def __call__(self, indices: Tensor) -> Tensor:
        """Images uint8 ``(B, 3, H, W)`` by their indices ``(B,)``."""
        images = (datasets.folder.default_loader(self.paths[i]) for i in indices.tolist())
        return torch.stack([_resize(TF.pil_to_tensor(image), self.image_size) for image in images])


class LabelledImages(NamedTuple):
    """A source's images and labels.

    Attributes:
        images: indices ``(B,)`` → ``(B, C, H, W)``.
        labels: ``(N,)`` int64.
    """

    images: MemoryImages | FileImages
    labels: Tensor


class KeyedDataset(Dataset[Batch]):
    """A part of a source; items by ``(epoch, index)`` are augmented, items by index are not.

    Args:
        source: images and labels.
        indices: ``(n,)`` int64, which of them belong to the part.
        augmentation: applied to the items asked for by ``(epoch, index)``.
        seed: the run's seed.
    """

    def __init__(
        self,
        source: LabelledImages,
        indices: Tensor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.source, self.indices = source, indices
        self.augmentation, self.seed = augmentation, seed

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """``(n,)`` int64."""
        return self.source.labels[self.indices]

    def __getitem__(self, key: Key) -> Batch:
        x, y = self.__getitems__([key])
        return x[0], y[0]

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """A finished batch, which a DataLoader passes on with ``collate_fn=as_is``."""
        table = torch.tensor(keys)
        index = self.indices[table if table.dim() == 1 else table[:, 1]]
        x = self.source.images(index)
        if self.augmentation is not None and table.dim() == 2:
            content = (table[:, 0] << 40) | index
            x = self.augmentation(x, Draws(content, self.seed, "augmentation"))
        x = x.float().div_(255) if x.dtype == torch.uint8 else x
        return x, self.source.labels[index]


def as_is(batch: Batch) -> Batch:
    """The collate function for a dataset that returns finished batches."""
    return batch


class ImageSplits(LightningDataModule, ABC):
    """Training, validation and test loaders over sources that a subclass provides.

    Args:
        batch_size: samples per batch and process.
        val_fraction: part of the training samples held out for validation, stratified by class.
        train_fraction: part of the remaining training samples that is used, stratified too.
        seed: seed of the order and the augmentation, not of the splits (see ``SPLIT_SEED``).
        num_workers: processes that load data beside the main one.
        predict_split: the part that ``predict`` goes over, in order and without augmentation.

    Raises:
        InputError: an argument out of its range.
    """

    num_classes: int | None

    def __init__(
        self,
        batch_size: int,
        val_fraction: float,
        train_fraction: float,
        seed: int,
        num_workers: int,
        predict_split: Split = "test",
    ) -> None:
        super().__init__()
        _at_least("batch_size", batch_size, 1)
        _at_least("num_workers", num_workers, 0)
        _part("val_fraction", val_fraction)
        if not 0 < train_fraction <= 1:
            raise InputError("train_fraction", train_fraction, "a number above 0 and up to 1")
        if not 0 <= seed < 1 << 32:
            raise InputError("seed", seed, "an integer from 0 to 2^32 - 1")
        if predict_split not in ("train", "val", "test"):
            raise InputError("predict_split", repr(predict_split), "'train', 'val' or 'test'")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.predict_split: Split = predict_split
        self.val_fraction, self.train_fraction = val_fraction, train_fraction
        self.parts: dict[Split, KeyedDataset] = {}

    @abstractmethod
    def load(self) -> dict[Split, tuple[LabelledImages, Tensor]]:
        """Sources and indices for "train" and "test"; for "val" too if it is given apart."""

    @abstractmethod
    def augmentation(self, train: LabelledImages) -> Augmentation | None:
        """What is applied to the training images."""

    def setup(self, stage: str | None = None) -> None:
        """Load everything, once.

        Raises:
            InputError: data that is missing or malformed, or too small for the splits.
        """
        if self.parts:
            return
        loaded = self.load()
        source, train = loaded["train"]
        if "val" not in loaded:
            train, val = _stratified(source.labels, train, self.val_fraction, "val_fraction")
            loaded["val"] = source, val
        if self.train_fraction < 1:
            _, train = _stratified(source.labels, train, self.train_fraction, "train_fraction")
        highest = max(int(part.labels.max()) for part, _ in loaded.values())
        if self.num_classes is None:
            self.num_classes = highest + 1
        if highest >= self.num_classes:
            raise InputError(
                "num_classes", self.num_classes, f"at least {highest + 1}: a label is {highest}"
            )
        self.parts = {name: KeyedDataset(*loaded[name]) for name in ("val", "test")}
        self.parts["train"] = KeyedDataset(source, train, self.augmentation(source), self.seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", shuffled=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.predict_split)

    def _loader(self, name: Split, shuffled: bool = False) -> DataLoader[Batch]:
        self.setup()
        part, sampler, pin = self.parts[name], None, False
        world, rank = 1, 0
        if self.trainer is not None:
            world, rank = self.trainer.world_size, self.trainer.global_rank
            pin = self.trainer.strategy.root_device.type == "cuda"
        if shuffled:
            sampler = KeyedSampler(part, self.seed, world, rank)
        return DataLoader(
            part,
            batch_size=self.batch_size,
            sampler=sampler,  # without one Lightning may put in its own
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=cast(Callable[[list[object]], Batch], as_is),
            pin_memory=pin,
            # Otherwise each pass over the loader takes a number from the global generator.
            generator=torch.Generator().manual_seed(self.seed),
        )


class DigitsDataModule(ImageSplits):
    """The 1797 handwritten 8x8 digits that come with scikit-learn; nothing is downloaded.

    Images are ``(1, 8, 8)``.

    Args:
        batch_size: samples per batch and process.
        val_fraction: part of the samples left after the test split that is held out for validation.
        test_fraction: part of all samples that is the test set.
        train_fraction: part of the remaining training samples that is used.
        seed: seed of the order and the augmentation; the splits are always the same.
        num_workers: processes that load data beside the main one.
        augment: whether training images are shifted by up to one pixel.
        cutout: a square of training images that is covered, after the shift.
        predict_split: the part that ``predict`` goes over, in order and without augmentation.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        train_fraction: float = 1.0,
        seed: int = 0,
        num_workers: int = 0,
        augment: bool = False,
        cutout: Cutout | None = None,
        predict_split: Split = "test",
    ) -> None:
        super().__init__(batch_size, val_fraction, train_fraction, seed, num_workers, predict_split)
        _part("test_fraction", test_fraction)
        self.test_fraction, self.augment, self.cutout = test_fraction, augment, cutout
        self.num_classes = 10

    def load(self) -> dict[Split, tuple[LabelledImages, Tensor]]:
        digits = load_digits()
        pixels = torch.from_numpy(digits.images).float().div_(16).unsqueeze(1)
        source = LabelledImages(MemoryImages(pixels), torch.from_numpy(digits.target).long())
        everything = torch.arange(len(pixels))
        train, test = _stratified(source.labels, everything, self.test_fraction, "test_fraction")
        return {"train": (source, train), "test": (source, test)}

    def augmentation(self, train: LabelledImages) -> Augmentation | None:
        return _in_turn(
            RandomCropFlip(padding=1, flip=False) if self.augment else None, self.cutout
        )


class _Known(NamedTuple):
    num_classes: int
    flip: bool


_TORCHVISION = {
    "MNIST": _Known(10, flip=False),
    "FashionMNIST": _Known(10, flip=True),
    "CIFAR10": _Known(10, flip=True),
    "CIFAR100": _Known(100, flip=True),
    "SVHN": _Known(10, flip=False),
}


class ImageDataModule(ImageSplits):
    """Images from torchvision, a folder or an .npz file.

    The source is one of:

    - a torchvision data set: MNIST, FashionMNIST, CIFAR10, CIFAR100 or SVHN, downloaded into
      ``root`` if it is not there;
    - a folder with the subfolders ``train`` and ``test`` (or ``val`` in its place), which hold one
      folder of images per class. With all three, ``val`` is the validation set and
      ``val_fraction`` is not used. Images are read when they are needed, always as RGB;
    - an ``.npz`` file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``. The images are
      ``(N, H, W)`` or channels-last ``(N, H, W, C)``, uint8 or float in [0, 1].

    The standard augmentation is a random crop after zero padding, and a horizontal flip.

    Args:
        source: name or path, see above.
        root: folder for downloads.
        batch_size: samples per batch and process.
        val_fraction: part of the training samples held out for validation, stratified by class.
        train_fraction: part of the remaining training samples that is used, stratified too.
        augment: whether training images are augmented.
        flip: whether the augmentation flips; by default it does, except for MNIST, SVHN and .npz
            files of one channel, which are likely to hold digits.
        padding: zeros on each side before the crop.
        transform: augmentation in place of the standard one, applied to every training image
            ``(C, H, W)`` apart; a transform of ``torchvision.transforms.v2``, for instance.
        cutout: a square of training images that is covered, after the other augmentation; also
            without ``augment``.
        image_size: height and width; images are resized so that the shorter side fits, and cropped
            at the centre. Needed for folders of images that differ in size.
        num_classes: number of classes; by default the number of torchvision's data set, or after
            ``setup()`` the highest label plus one.
        seed: seed of the order and the augmentation; the splits are always the same.
        num_workers: processes that load data beside the main one.
        predict_split: the part that ``predict`` goes over, in order and without augmentation.

    Raises:
        InputError: an argument out of its range, or a source that does not exist.
    """

    def __init__(
        self,
        source: str | Path,
        root: str | Path = "data",
        batch_size: int = 128,
        val_fraction: float = 0.1,
        train_fraction: float = 1.0,
        augment: bool = True,
        flip: bool | None = None,
        padding: int = 4,
        transform: nn.Module | None = None,
        cutout: Cutout | None = None,
        image_size: int | None = None,
        num_classes: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        predict_split: Split = "test",
    ) -> None:
        super().__init__(batch_size, val_fraction, train_fraction, seed, num_workers, predict_split)
        _at_least("padding", padding, 0)
        for name, value in (("image_size", image_size), ("num_classes", num_classes)):
            if value is not None:
                _at_least(name, value, 1)
        self.source, self.root = str(source), str(root)
        self.augment, self.flip, self.padding = augment, flip, padding
        self.transform, self.cutout, self.image_size = transform, cutout, image_size
        self.known = _TORCHVISION.get(self.source)
        self.num_classes = num_classes
        if num_classes is None and self.known is not None:
            self.num_classes = self.known.num_classes
        path = Path(self.source)
        if self.known is None and not (path.is_dir() or (path.suffix == ".npz" and path.is_file())):
            raise InputError(
                "source",
                repr(self.source),
                f"one of {', '.join(_TORCHVISION)}, an existing folder or an existing .npz file",
            )

    def prepare_data(self) -> None:
        """Download a torchvision data set that is not in ``root`` yet."""
        if self.known is not None:
            for train in (True, False):
                self._torchvision(train, download=True)

    def load(self) -> dict[Split, tuple[LabelledImages, Tensor]]:
        sources: dict[Split, LabelledImages]
        if self.known is not None:
            sources = {name: self._torchvision(name == "train") for name in ("train", "test")}
        elif Path(self.source).is_dir():
            sources = _read_folder(Path(self.source), self.image_size)
        else:
            sources = _read_npz(self.source, self.image_size)
        return {name: (part, torch.arange(len(part.labels))) for name, part in sources.items()}

    def augmentation(self, train: LabelledImages) -> Augmentation | None:
        return _in_turn(self._standard(train) if self.augment else None, self.cutout)

    def _standard(self, train: LabelledImages) -> Augmentation:
        if self.transform is not None:
            return PerSample(self.transform)
        flip = self.flip
        if flip is None and self.known is not None:
            flip = self.known.flip
        if flip is None:
            flip = train.images(torch.tensor([0])).shape[1] > 1
        return RandomCropFlip(self.padding, flip)

    def _torchvision(self, train: bool, download: bool = False) -> LabelledImages:
        which: dict[str, object] = {"train": train}
        if self.source == "SVHN":
            which = {"split": "train" if train else "test"}
        try:
            data = getattr(datasets, self.source)(self.root, **which, download=download)
        except (OSError, RuntimeError) as error:
            raise InputError(
                "source",
                self.source,
                f"a data set that is in {self.root!r} or can be downloaded there ({error})",
            ) from error
        pixels = torch.as_tensor(data.data)
        if pixels.dim() == 3:
            pixels = pixels.unsqueeze(1)
        elif self.source != "SVHN":  # whose channels are first already
            pixels = pixels.permute(0, 3, 1, 2)
        labels = torch.as_tensor(data.labels if self.source == "SVHN" else data.targets)
        return LabelledImages(MemoryImages(pixels.contiguous(), self.image_size), labels.long())


def _read_folder(path: Path, image_size: int | None) -> dict[Split, LabelledImages]:
    names: dict[Split, str] = {"train": "train"}
    if (path / "test").is_dir():
        names["test"] = "test"
        if (path / "val").is_dir():
            names["val"] = "val"
    else:
        names["test"] = "val"
    try:
        folders = {split: datasets.ImageFolder(str(path / name)) for split, name in names.items()}
    except FileNotFoundError as error:
        raise InputError(
            "source",
            repr(str(path)),
            "a folder with train/ and test/ (or val/), each with a folder of images per class"
            f" ({str(error).rstrip('.')})",
        ) from error
    classes = folders["train"].classes
    for split, folder in folders.items():
        if folder.classes != classes:
            raise InputError(
                "source",
                f"{path / names[split]} with the classes {', '.join(folder.classes)}",
                f"those of train: {', '.join(classes)}",
            )
    paths = [file for folder in folders.values() for file, _ in folder.samples]
    if image_size is None:
        first = _size(paths[0])
        other = next((file for file in paths if _size(file) != first), None)
        if other is not None:
            raise InputError(
                "image_size",
                None,
                f"an integer, for images of different sizes: {paths[0]} has {first},"
                f" {other} has {_size(other)}",
            )
    return {
        split: LabelledImages(
            FileImages([file for file, _ in folder.samples], image_size),
            torch.tensor(folder.targets),
        )
        for split, folder in folders.items()
    }


def _size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:  # reads the header only
        return image.size


def _read_npz(path: str, image_size: int | None) -> dict[Split, LabelledImages]:
    needed = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = list(file.files)
            arrays = {name: file[name] for name in needed if name in found}
    except Exception as error:  # whatever a damaged file makes numpy, zipfile or zlib raise
        raise InputError("source", repr(path), f"a readable .npz file ({error})") from error
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise InputError(
            "source", f"{path!r} with {', '.join(found)}", f"{', '.join(missing)} in it too"
        )
    sources: dict[Split, LabelledImages] = {}
    for split in ("train", "test"):
        pixels = _pixels(f"x_{split}", arrays[f"x_{split}"])
        labels = _labels(f"y_{split}", arrays[f"y_{split}"], len(pixels))
        sources[split] = LabelledImages(MemoryImages(pixels, image_size), labels)
    first = torch.tensor([0])
    train, test = (tuple(part.images(first).shape[1:]) for part in sources.values())
    if train != test:
        raise InputError("x_test", f"images (C, H, W) = {test}", f"{train}, as in x_train")
    return sources


def _pixels(name: str, x: np.ndarray) -> Tensor:
    ok = x.ndim == 3 or (x.ndim == 4 and 1 <= x.shape[-1] <= 4)
    if not ok or 0 in x.shape:
        raise InputError(
            name, f"shape {x.shape}", "(N, H, W) or channels-last (N, H, W, C) with C from 1 to 4"
        )
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.floating):
            raise InputError(name, x.dtype, "uint8, or float in [0, 1]")
        low, high = float(x.min()), float(x.max())
        if not (low >= 0 and high <= 1):
            raise InputError(name, f"values from {low} to {high}", "floats in [0, 1], or uint8")
        x = x.astype(np.float32)
    x = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x))


def _labels(name: str, y: np.ndarray, count: int) -> Tensor:
    if y.shape != (count,):
        raise InputError(name, f"shape {y.shape}", f"({count},), one label per image")
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(name, y.dtype, "integers")
    if y.min() < 0:
        raise InputError(name, f"the label {y.min()}", "labels from 0 on")
    return torch.from_numpy(y.astype(np.int64))


def _resize(x: Tensor, size: int | None) -> Tensor:
    if size is None or x.shape[-2:] == (size, size):
        return x
    return TF.center_crop(TF.resize(x, [size], antialias=True), [size, size])


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
        indices.numpy(), test_size=size, stratify=own.numpy(), random_state=SPLIT_SEED
    )
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(part))


def _in_turn(*parts: Augmentation | None) -> Augmentation | None:
    there = [part for part in parts if part is not None]
    return InTurn(there) if len(there) > 1 else next(iter(there), None)


def _at_least(argument: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(argument, value, f"at least {least}")


def _part(argument: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(argument, value, "a number strictly between 0 and 1")
