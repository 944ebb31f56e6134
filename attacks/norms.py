"""The two norms that bound a perturbation: steps, projections, random starts and 8-bit pixels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interaction_train.errors import InputError, one_of
from interaction_train.sampling.random import Draws

Norm = Literal["Linf", "L2"]
NORMS = ("Linf", "L2")

_SNAP = 1e-7  # 8/255 written with six digits, or kept in float32, still means 8 levels
_SHRINKS = 256


def step_and_project(
    adversarial: Tensor,
    direction: Tensor,
    clean: Tensor,
    norm: Norm,
    eps: float,
    alpha: float | Tensor,
) -> Tensor:
    """One step of steepest ascent of images ``(B, ...)``, kept near the clean ones and in [0, 1].

    L∞: a step of ``alpha`` per pixel; L2: of length ``alpha`` per sample; an ``alpha``
    of the images' shape scales pixels. A zero direction leaves the sample where it is.
    """
    step = steepest(direction, norm).mul_(alpha)
    return project(step.add_(adversarial), clean, norm, eps)


def steepest(direction: Tensor, norm: Norm) -> Tensor:
    """Per sample, the step of size 1 in the norm that goes furthest along a direction."""
    return direction.sign() if norm == "Linf" else normalize(direction, "L2")


def project(adversarial: Tensor, clean: Tensor, norm: Norm, eps: float) -> Tensor:
    """The nearest images within ``eps`` of the clean ones, then clamped to [0, 1].

    Examples:
        >>> clean = torch.tensor([[0.5, 0.02]])
        >>> project(clean + torch.tensor([[0.3, -0.3]]), clean, "Linf", 0.1)
        tensor([[0.6000, 0.0000]])
    """
    return within(adversarial - clean, norm, eps).add_(clean).clamp_(0, 1)


def within(delta: Tensor, norm: Norm, eps: float) -> Tensor:
    """The nearest perturbations ``(B, ...)`` of size ``eps`` at most."""
    if norm == "Linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / _size(delta, "L2")).clamp(max=1)


def random_start(clean: Tensor, norm: Norm, eps: float, draws: Draws) -> Tensor:
    """Uniform in the cube (L∞); in the ball, in a random direction at a uniform radius (L2)."""
    size = clean[0].numel()
    if norm == "Linf":
        delta = (2 * draws.uniform("start", size) - 1) * eps
    else:
        delta = normalize(draws.normal("start", size), "L2") * eps * draws.uniform("radius", 1)
    return project(clean + delta.view_as(clean).to(clean), clean, norm, eps)


def normalize(gradient: Tensor, by: Literal["L1", "L2"]) -> Tensor:
    """Per sample: to a mean absolute value of 1 (L1), or to length 1 (L2); zero stays zero."""
    return gradient / _size(gradient, by)


def _size(values: Tensor, by: Literal["L1", "L2"]) -> Tensor:
    flat = values.flatten(1)
    size = flat.abs().mean(1) if by == "L1" else flat.norm(dim=1)
    return torch.where(size == 0, 1, size).view(-1, *(1 for _ in values.shape[1:]))


def to_floats(pixels: Tensor) -> Tensor:
    """uint8 ``(...)`` → float32 in [0, 1] on the CPU; floats pass through.

    On the CPU, because CUDA divides by 255 another way, which differs in the last bit.
    """
    return pixels.cpu().float().div_(255) if pixels.dtype == torch.uint8 else pixels


def exact_bytes(images: Tensor) -> Tensor | None:
    """The uint8 pixels that ``images`` (floats) were made from; None if they were not."""
    images = images.cpu()
    pixels = images.mul(255).round_().clamp_(0, 255).to(torch.uint8)
    return pixels if torch.equal(to_floats(pixels), images) else None


def round_to_bytes(
    adversarial: Tensor, clean: Tensor, eps: float | None, norm: Norm = "Linf"
) -> Tensor:
    """Round adversarial images to 8 bits without leaving the ball around the clean images.

    L∞: a pixel that is k/255 in the clean image becomes one of the levels k ± floor(255·eps); any
    other becomes the nearest level within ``eps`` of the clean value. L2: to the nearest levels;
    where that leaves the ball, the sample's perturbation is first shrunk, in steps of 1/256.

    Args:
        adversarial: ``(B, ...)`` in [0, 1].
        clean: ``(B, ...)`` in [0, 1], float32 or less precise.
        eps: the bound, in units of a pixel value in [0, 1]; None for an attack without a bound.
        norm: ``"Linf"`` per pixel or ``"L2"`` per sample.

    Returns:
        uint8 of the same shape, on the CPU. The distances hold for :func:`to_floats` of it.

    Raises:
        InputError: an unknown norm, values that are not finite, or a bound that 8 bits cannot keep.

    Examples:
        >>> clean = torch.tensor([[100 / 255]])
        >>> round_to_bytes(clean + 8.4 / 255, clean, eps=8.4 / 255)  # 8 levels, not 8.4
        tensor([[108]], dtype=torch.uint8)
    """
    one_of("norm", norm, NORMS)
    if not bool(adversarial.isfinite().all()):
        raise InputError("adversarial", "NaN or infinite values", "values in [0, 1]")
    wanted, origin = _doubles(adversarial), _doubles(clean.float())
    if eps is None:
        result = _nearest(wanted)
    else:
        result = (_in_box if norm == "Linf" else _in_ball)(wanted, origin, eps)
    if result is None:
        wider = "a bound that 8-bit images can keep, or pixels kept as float32"
        raise InputError("eps", eps, wider)
    return torch.from_numpy(result.astype(np.uint8))


# In NumPy's float64, which devices may lack; arrays have the images' shape.


def _in_box(wanted: Any, origin: Any, eps: float) -> Any:
    at, count = _nearest(origin), int(255 * (eps + _SNAP))
    on_level = _LEVELS[at] == origin
    first_inside = np.searchsorted(_LEVELS, origin - eps)
    last_inside = np.searchsorted(_LEVELS, origin + eps, side="right") - 1
    lowest = np.where(on_level, at - count, first_inside).clip(min=0)
    highest = np.where(on_level, at + count, last_inside).clip(max=255)
    return None if (lowest > highest).any() else _nearest(wanted).clip(lowest, highest)


def _in_ball(wanted: Any, origin: Any, eps: float) -> Any:
    result, outside = _nearest(wanted), np.arange(len(wanted))
    for shrunk in range(1, _SHRINKS + 2):
        delta = _LEVELS[result[outside]] - origin[outside]
        outside = outside[np.linalg.norm(delta.reshape(len(outside), -1), axis=1) > eps]
        if not len(outside):
            return result
        near = origin[outside]
        result[outside] = _nearest(near + (wanted[outside] - near) * (1 - shrunk / _SHRINKS))
    return None


def _doubles(images: Tensor) -> Any:
    images = images.detach().cpu()
    return (images.float() if images.dtype.itemsize < 4 else images).numpy().astype(np.float64)


def _nearest(images: Any) -> Any:
    return np.rint(images * 255).clip(0, 255).astype(np.int64)


_LEVELS = _doubles(to_floats(torch.arange(256, dtype=torch.uint8)))
