"""What torchvision knows of its weights, and a network needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchvision.models import get_weight

from interaction_train.errors import InputError
from interaction_train.explaining.pictures import Fitting


@dataclass(frozen=True)
class Preset:
    """What pictures become for some weights, and the names of their classes.

    Attributes:
        mean: of the normalisation.
        std: likewise.
        fitting: of pictures.
        classes: names.
    """

    mean: list[float]
    std: list[float]
    fitting: Fitting
    classes: list[str]


def find_preset(name: str) -> Preset:
    """The preset of torchvision's weights for classification, ``"ResNet18_Weights.DEFAULT"``.

    Raises:
        InputError: no such weights, or weights for another task.
    """
    try:
        weights = get_weight(name)
        t: Any = weights.transforms()
        return Preset(
            list(t.mean),
            list(t.std),
            Fitting(None, t.resize_size[0], t.crop_size[0], t.interpolation),
            list(weights.meta["categories"]),
        )
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        expected = "torchvision's weights for classification, as ResNet18_Weights.IMAGENET1K_V1"
        raise InputError("preset", repr(name), expected) from error
