"""Data sets of random images, and the errors about them."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from interaction_train.errors import InputError


def raises(argument, *parts):
    """InputError about the argument, whose message is one line and names every part."""
    anywhere = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(InputError, match=rf"^{argument}: got {anywhere}.*\Z")


def epoch_of(module, epoch, loader=None):
    """All of an epoch's training batches, concatenated."""
    loader = loader or module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def rows(x):
    return {row.numpy().tobytes() for row in x}


def write_npz(path, count=40, classes=4, shape=(6, 6, 3), **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", count), ("test", count // 2)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % classes
    arrays.update(changes)
    arrays = {name: value for name, value in arrays.items() if value is not None}
    np.savez(path, **arrays)
    return arrays


def write_folder(path, splits=("train", "test"), classes=("cat", "dog"), count=10, size=(7, 6)):
    rng, written = np.random.default_rng(len(splits)), {}
    for split in splits:
        for name in classes:
            (path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / split / name / f"{i:03}.png")
                written[split, name, i] = pixels
    return written
