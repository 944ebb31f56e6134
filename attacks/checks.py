"""What every attack asks of images and labels, said before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.errors import InputError

_ROUNDING = 1e-5  # beyond [0, 1], of images that come back from a normalisation


def checked_images(images: Tensor) -> Tensor:
    """Images ``(B, ...)``, clamped to [0, 1] where rounding has left it.

    Raises:
        InputError: no batch, integers, NaN, or values outside [0, 1].
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InputError("images", got, "floating point values in [0, 1]")
    if images.dim() < 2 or len(images) == 0:
        raise InputError("images", f"shape {tuple(images.shape)}", "a batch (B, C, H, W)")
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also when NaN
        raise InputError("images", f"values from {low:.6g} to {high:.6g}", "values in [0, 1]")
    return images.clamp(0, 1)


def checked_labels(labels: Tensor | None, batch: int, argument: str = "labels") -> Tensor:
    """Labels, if they are int64 ``(batch,)``.

    Raises:
        InputError: they are not.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (batch,):
        got = type(labels).__name__
        if isinstance(labels, Tensor):
            got = f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(argument, got, f"int64 ({batch},), one per image")
    return labels
