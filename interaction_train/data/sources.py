"""Named data sets and .npz files as TensorDataset, folders of images as ImageFolder."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision import datasets
from torchvision.transforms import v2

from interaction_train.errors import InputError, reason

Split = Literal["train", "val", "test"]
Source: TypeAlias = TensorDataset | datasets.ImageFolder
NAMES = {"MNIST": 10, "FashionMNIST": 10, "CIFAR10": 10, "CIFAR100": 100, "SVHN": 10, "digits": 10}
"""Named data sets and their numbers of classes."""
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def images(source: Source, index: Tensor) -> Tensor:
    """``(B, C, H, W)``, uint8 or float32, by indices ``(B,)``."""
    if isinstance(source, TensorDataset):
        return source[index][0]
    return torch.stack([source[i][0] for i in index.tolist()])


def labels(source: Source) -> Tensor:
    """``(N,)`` int64."""
    return source.tensors[1] if isinstance(source, TensorDataset) else torch.tensor(source.targets)


def resize(size: int | None) -> v2.Transform:
    """The shorter side fits, the rest is cropped at the centre."""
    return v2.Identity() if size is None else v2.Compose([v2.Resize([size]), v2.CenterCrop(size)])


def load(source: str, root: str, size: int | None, download: bool = False) -> dict[Split, Source]:
    """The parts of a source: "train" alone, or with "test", or with "test" and "val".

    ``root`` is where torchvision's data sets are, or go; ``size`` is what images of folders get.
    """
    if source == "digits":
        digits = load_digits()
        x = torch.from_numpy(digits.images).float().div_(16).unsqueeze(1)
        return {"train": TensorDataset(x, torch.from_numpy(digits.target).long())}
    if source not in NAMES and os.path.isdir(source):
        return _folder(source, size)
    arrays = _torchvision(source, root, download) if source in NAMES else _npz(source)
    found: dict[Split, Source] = {}
    for split in ("train", "test"):
        x = _pixels(f"x_{split}", arrays[f"x_{split}"])
        found[split] = TensorDataset(x, _labels(f"y_{split}", arrays[f"y_{split}"], len(x)))
    train, test = (
        tuple(resize(size)(images(part, torch.tensor([0]))).shape[1:]) for part in found.values()
    )
    if train != test:
        raise InputError("x_test", f"images (C, H, W) = {test}", f"{train}, as in x_train")
    return found


def _torchvision(name: str, root: str, download: bool) -> dict[str, np.ndarray]:
    """The data set as an .npz file would hold it."""
    arrays = {}
    try:
        for part in ("train", "test"):
            which = {"split": part} if name == "SVHN" else {"train": part == "train"}
            data = getattr(datasets, name)(root, **which, download=download)
            x = np.asarray(data.data)
            arrays[f"x_{part}"] = x.transpose(0, 2, 3, 1) if name == "SVHN" else x
            arrays[f"y_{part}"] = np.asarray(data.labels if name == "SVHN" else data.targets)
    except Exception as error:  # whatever damaged files make torchvision raise
        raise _refused(name, f"a data set in {root!r} or a way to download it", error) from error
    return arrays


def _npz(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            there = file.files
            arrays = {name: file[name] for name in _ARRAYS if name in there}
    except Exception as error:  # whatever a damaged file makes numpy, zipfile or zlib raise
        raise _refused(repr(path), "a readable .npz file", error) from error
    if missing := [name for name in _ARRAYS if name not in arrays]:
        got = f"{path!r} with {', '.join(there) or 'no arrays'}"
        raise InputError("source", got, f"{', '.join(missing)} in it too")
    return arrays


def _folder(path: str, size: int | None) -> dict[Split, Source]:
    val, test = (os.path.isdir(os.path.join(path, name)) for name in ("val", "test"))
    names: dict[Split, str] = {"train": "train", "test": "test" if test or not val else "val"}
    names |= {"val": "val"} if val and test else {}
    transform = v2.Compose([v2.PILToTensor(), resize(size)])
    try:
        found = {
            split: datasets.ImageFolder(os.path.join(path, name), transform, loader=_read_image)
            for split, name in names.items()
        }
    except OSError as error:
        expected = "a folder with train/ and test/ (or val/), each with one folder per class"
        raise _refused(repr(path), expected, error) from error
    classes, sizes = found["train"].classes, dict[tuple[int, int], str]()
    for folder in found.values():
        if folder.classes != classes:
            got = f"{folder.root} with the classes {', '.join(folder.classes)}"
            raise InputError("source", got, f"those of train: {', '.join(classes)}")
        for file, _ in folder.samples if size is None else ():
            sizes.setdefault(_read_image(file, header=True).size, file)
            if len(sizes) > 1:
                said = ", ".join(f"{name} has {found}" for found, name in sizes.items())
                raise InputError("image_size", None, f"an integer, for images of two sizes: {said}")
    return found


def _read_image(path: str, header: bool = False) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # PIL would cut it off at 255
                raise ValueError(f"{image.mode} has more than 8 bits per channel")
            return image if header else image.convert("RGB")
    except Exception as error:  # whatever a damaged file makes PIL raise
        raise _refused(repr(path), "a readable image", error) from error


def _pixels(name: str, x: np.ndarray) -> Tensor:
    if x.ndim not in (3, 4) or 0 in x.shape or (x.ndim == 4 and x.shape[-1] > 4):
        expected = "(N, H, W) or channels-last (N, H, W, C) with C from 1 to 4"
        raise InputError(name, f"shape {x.shape}", expected)
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.floating):
            raise InputError(name, x.dtype, "uint8, or float in [0, 1]")
        low, high = float(x.min()), float(x.max())
        if not (low >= 0 and high <= 1):
            raise InputError(name, f"values from {low} to {high}", "floats in [0, 1], or uint8")
        x = x.astype(np.float32)
    pixels = torch.from_numpy(x.reshape(*x.shape[:3], -1))
    return pixels.permute(0, 3, 1, 2).contiguous()


def _labels(name: str, y: np.ndarray, count: int) -> Tensor:
    if y.shape != (count,):
        expected = f"({count},), one label per image (of one-hot rows, y.argmax(1))"
        raise InputError(name, f"shape {y.shape}", expected)
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(name, y.dtype, "integers")
    y = y.astype(np.int64)
    if y.min() < 0:
        raise InputError(name, f"the label {y.min()}", "labels from 0 on")
    return torch.from_numpy(y)


def _refused(got: str, expected: str, error: Exception) -> InputError:
    return InputError("source", got, f"{expected} ({reason(error)})")
