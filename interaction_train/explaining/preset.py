"""What torchvision knows of its weights, and a network needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchvision.models import get_weight
from torchvision.transforms import InterpolationMode

from interaction_train.errors import InputError


@dataclass(frozen=True)
class Preset:
    """What pictures become for some weights, and the names of their classes.

    Attributes:
        mean: of the normalisation.
        std: likewise.
        resize: what the shorter side of an image becomes.
        crop: side of the square in the middle.
        interpolation: of the resizing.
        classes: names.
    """

    mean: list[float]
    std: list[float]
    resize: int
    crop: int
    interpolation: InterpolationMode
    classes: list[str]


def find_preset(name: str) -> Preset:
    """The preset of torchvision's weights for classification, ``"ResNet18_Weights.DEFAULT"``.

    Raises:
        InputError: no such weights, or weights for another task.
    """
    try:
        weights = get_weight(name)
        transforms: Any = weights.transforms()
        return Preset(
            list(transforms.mean),
            list(transforms.std),
            transforms.resize_size[0],
            transforms.crop_size[0],
            transforms.interpolation,
            list(weights.meta["categories"]),
        )
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        expected = "torchvision's weights for classification, as ResNet18_Weights.IMAGENET1K_V1"
        raise InputError("preset", repr(name), expected) from error
