"""Image files as what a network takes: pixels in [0, 1] with its channels and its size."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from interaction_train.errors import InputError, at_least
from interaction_train.game.absence import default_baseline

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Fitting:
    """How pictures become inputs: channels, then size.

    Attributes:
        channels: 1, 3 or 4; None keeps those of a picture, 1 where it is grey and 3 elsewhere.
        resize: what the shorter side becomes; None keeps it.
        crop: the side of the square that is cut out of the middle; None for no cut.
        interpolation: of the resizing.
    """

    channels: int | None = None
    resize: int | None = None
    crop: int | None = None
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __post_init__(self) -> None:
        if self.channels not in (None, *_MODES):
            raise InputError("channels", self.channels, "1 (grey), 3 (RGB) or 4 (RGBA)")
        if self.resize is not None:
            at_least("size", self.resize, 1)

    def image(self, picture: Image.Image) -> Tensor:
        """Pixels ``(C, H, W)`` in [0, 1], as torchvision's own pipelines make them of a picture."""
        channels = self.channels or (1 if picture.mode in ("1", "L", "LA") else 3)
        if picture.mode == "P":  # whose transparency only RGBA can tell
            picture = picture.convert("RGBA")
        moved = self._geometry()(picture.convert(_MODES[channels]))
        return v2.functional.pil_to_tensor(moved).float() / 255

    def labels(self, labels: Tensor, size: tuple[int, int], shape: Sequence[int]) -> Tensor:
        """A label map ``(H, W)`` of a picture of a size, moved as the picture; or of the input's.

        Raises:
            InputError: a map of neither size.
        """
        if labels.shape == size:
            mask = tv_tensors.Mask(labels[None])  # which is never interpolated
            return self._geometry()(mask)[0].as_subclass(Tensor)
        if labels.shape == tuple(shape[-2:]):
            return labels
        sizes = dict.fromkeys([size, tuple(shape[-2:])])
        expected = " or ".join(f"{height} x {width}" for height, width in sizes)
        got = f"a map of {labels.shape[0]} x {labels.shape[1]}"
        raise InputError("players", got, f"{expected} pixels (height x width), as the image")

    def _geometry(self) -> v2.Transform:
        steps: list[v2.Transform] = []
        if self.resize is not None:
            steps.append(v2.Resize([self.resize], self.interpolation, antialias=True))
        if self.crop is not None:
            steps.append(v2.CenterCrop(self.crop))
        return v2.Compose(steps) if steps else v2.Identity()


def read_picture(path: str | Path, argument: str = "image") -> Image.Image:
    """A PNG, JPEG or the like, turned as its EXIF data say; the first frame of several.

    Raises:
        InputError: no such file, one that is no image or damaged, or more than 8 bits per channel.
    """
    if not Path(path).is_file():
        raise InputError(argument, repr(str(path)), "an existing image file")
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file.load()
            picture = ImageOps.exif_transpose(file)
    except Exception as error:  # whatever a damaged file makes PIL raise
        reason = " ".join(str(error).split()) or type(error).__name__
        expected = f"a readable image, such as a PNG or JPEG ({reason})"
        raise InputError(argument, repr(str(path)), expected) from error
    if picture.mode[0] in ("IF" if argument == "image" else "F"):  # PIL would cut it off at 255
        got = f"{str(path)!r} of mode {picture.mode}"
        raise InputError(argument, got, "an image of at most 8 bits per channel")
    return picture


def read_labels(path: str | Path) -> Tensor:
    """A label map, int64 ``(H, W)``: a ``.npy`` file of integers, or an image.

    Each grey value or palette index of an image is a label, each colour of a colour image is one.

    Raises:
        InputError: a file that is neither, or damaged.
    """
    if Path(path).suffix != ".npy":
        picture = read_picture(path, "players")
        one = picture if picture.mode in ("1", "L", "P", "I", "I;16") else picture.convert("RGB")
        array = np.asarray(one).astype(np.int64)
        if array.ndim == 2:
            return torch.from_numpy(array)
        colours = torch.from_numpy(array) @ torch.tensor([1 << 16, 1 << 8, 1])
        return colours.unique(return_inverse=True)[1]
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever a damaged file makes numpy raise
        raise InputError("players", repr(str(path)), f"a readable .npy file ({error})") from error
    whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    if array.ndim != 2 or 0 in array.shape or not whole:
        got = f"{str(path)!r} of {array.dtype} {array.shape}"
        raise InputError("players", got, "integers (height, width), one per segment")
    return torch.from_numpy(array.astype(np.int64))


def channels_of(network: nn.Module) -> int | None:
    """The channels that a network takes: those of its Normalize, else of its first convolution.

    None where there is neither; InputError for a number that no picture has.
    """
    mean = default_baseline(network)
    first: Any = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    found = len(mean) if mean is not None else first and first.in_channels
    if found not in (None, *_MODES):
        raise InputError("model", f"a network of {found} channels", "1, 3 or 4, as images have")
    return found
