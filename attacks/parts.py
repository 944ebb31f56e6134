"""What an attack is put together from: parts that each change one place of its loop."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.attacks.norms import normalize
from interaction_train.errors import InputError, at_least, in_range, one_of
from interaction_train.sampling.random import Draws


@dataclass
class Step:
    """One step of an attack on a batch, as its parts see it."""

    number: int  # 1 for the first step
    clean: Tensor  # (B, C, H, W)
    adversarial: Tensor  # the adversarial images so far
    eps: float
    alpha: float
    draws: Draws  # random numbers of this step
    gradient_at: Callable[[Tensor, Step], Tensor]
    """The classification loss's gradient, meaned over points ``(B, P, C, H, W)``."""
    memory: defaultdict[Part, dict[str, Any]]  # what each part keeps between the steps of a call


def settings_repr(self: object) -> str:
    """A ``__repr__`` that shows all public attributes."""
    settings = (f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
    return f"{type(self).__name__}({', '.join(settings)})"


class Part:
    """A change to one place of the attack's loop; parts apply in the order they are listed.

    A subclass overrides the places it changes, and keeps what it needs from step to step in
    ``step.memory[self]``. Settings out of their range raise InputError.
    """

    copies: int = 1
    """Copies of every adversarial image at which the classification gradient is averaged."""

    spatial: bool = False
    """Whether the part moves or smooths pixels, which only images ``(B, C, H, W)`` have."""

    __repr__ = settings_repr

    @property
    def varies(self) -> bool:
        """Whether the part changes the copies, be it a single one."""
        return type(self).vary is not Part.vary

    def around(self, model: nn.Module) -> AbstractContextManager[None]:
        """Entered for the time of the attack, for a change to the network."""
        return nullcontext()

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        """Where the gradient is taken, ``(B, C, H, W)`` → the same."""
        return point

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        """The copies ``(B, k, C, H, W)``, differentiable; ``copy`` ``(k,)``: the number of each."""
        return rows

    def transform(self, rows: Tensor, step: Step) -> Tensor:
        """Change what the network sees, ``(B, k, C, H, W)``, alike for all rows of a sample."""
        return rows

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        """Change the gradient of the classification loss, before interactions join it."""
        return gradient

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        """Turn the whole gradient into the direction of the step."""
        return gradient


class Momentum(Part):
    """MI: normalised gradients added up (Dong et al., CVPR 2018).

    g ← g / mean|g| + decay · g_before. A zero gradient adds nothing, and no NaN.

    Args:
        decay: of the earlier gradients; 0 only normalises.
        normalize: ``"L1"`` (to mean absolute value 1) or ``"L2"`` (to length 1), per sample.
    """

    def __init__(self, decay: float = 1.0, normalize: Literal["L1", "L2"] = "L1") -> None:
        at_least("decay", decay, 0)
        one_of("normalize", normalize, ("L1", "L2"))
        self.decay, self.normalize = decay, normalize

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        gradient = normalize(gradient, self.normalize)
        if "momentum" in step.memory[self]:
            gradient = gradient + step.memory[self]["momentum"] * self.decay
        step.memory[self]["momentum"] = gradient
        return gradient


class Nesterov(Momentum):
    """NI: :class:`Momentum` whose gradient is taken a step ahead (Lin et al., ICLR 2020)."""

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        return point + self.decay * step.alpha * step.memory[self].get("momentum", 0)


class VarianceTuning(Part):
    """VT: corrects the gradient by its variation in a neighbourhood (Wang & He, CVPR 2021).

    g + v, where v is the mean gradient of the classification loss at random neighbours of the image
    one step earlier, less the gradient there.

    Args:
        samples: number of neighbours.
        beta: their distance, uniform in ±beta·eps per pixel.
    """

    def __init__(self, samples: int = 5, beta: float = 1.5) -> None:
        at_least("samples", samples, 1)
        at_least("beta", beta, 0)
        self.samples, self.beta = samples, beta

    def noise(self, step: Step) -> Tensor:
        """The neighbours' distances, ``(B, samples, C, H, W)``, uniform in [−1, 1)."""
        shape = step.clean.shape[1:]
        unit = step.draws.uniform("variance tuning", self.samples, shape.numel())
        return (2 * unit - 1).unflatten(-1, shape).to(step.clean)

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        before = step.memory[self].get("variation", 0)
        near = step.adversarial.unsqueeze(1) + self.noise(step) * (self.beta * step.eps)
        step.memory[self]["variation"] = step.gradient_at(near, step) - gradient
        return gradient + before


class TranslationInvariance(Part):
    """TI: the gradient smoothed by a Gaussian, in any number of channels (Dong et al., CVPR 2019).

    Args:
        size: width of the kernel in pixels, odd.
        sigma: how many standard deviations the kernel's half width spans.

    Examples:
        >>> [round(weight, 2) for weight in TranslationInvariance(3, sigma=1).weights()]
        [0.27, 0.45, 0.27]
    """

    spatial = True

    def __init__(self, size: int = 15, sigma: float = 3.0) -> None:
        if size < 1 or size % 2 == 0:
            raise InputError("size", size, "a positive odd number")
        if not sigma > 0:
            raise InputError("sigma", sigma, "a positive number")
        self.size, self.sigma = size, sigma

    def weights(self) -> list[float]:
        """The kernel along one axis, with sum 1; the whole is its square."""
        half = (self.size - 1) / 2
        places = [(i - half) * self.sigma / max(half, 1) for i in range(self.size)]
        line = [math.exp(-(place**2) / 2) for place in places]
        return [value / math.fsum(line) for value in line]

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        # Separable: two passes of `size` multiplications each instead of one of size².
        line = gradient.new_tensor(self.weights()).view(1, 1, -1)
        planes = gradient.flatten(0, -3).unsqueeze(1)
        planes = F.conv2d(planes, line.unsqueeze(2), padding="same")
        planes = F.conv2d(planes, line.unsqueeze(3), padding="same")
        return planes.view_as(gradient)


class GaussianAveraging(Part):
    """VR: the gradient meaned over copies with Gaussian noise (Wu et al., 2018).

    Args:
        samples: number of noisy copies per step.
        sigma: standard deviation of the noise, in pixel values; copies are not clamped.
    """

    def __init__(self, samples: int = 20, sigma: float = 15 / 255) -> None:
        at_least("samples", samples, 1)
        at_least("sigma", sigma, 0)
        self.copies, self.sigma = samples, sigma

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        noise = step.draws.normal("gaussian", copy, rows[0, 0].numel())
        return rows + self.sigma * noise.view_as(rows).to(rows)


class ScaleInvariance(Part):
    """SI: the gradient meaned over the image divided by 1, 2, 4, … (Lin et al., ICLR 2020).

    Args:
        copies: number of scales.
    """

    def __init__(self, copies: int = 5) -> None:
        at_least("copies", copies, 1)
        self.copies = copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        return rows / (2**copy).to(rows).view(-1, *(1 for _ in rows.shape[2:]))


Plan = tuple[int, Tensor, Tensor]
"""Of one side: the canvas' size and, ``(B,)`` int64, the image's new size and first pixel."""


class InputDiversity(Part):
    """DI: images resized and padded at random, each sample its own way (Xie et al., CVPR 2019).

    A size is drawn between ``resize_rate`` and 1 times the image's (above 1, as in the authors'
    code, the padded image is brought back to its own size), then a place for it on the canvas. All
    rows of a sample share the draws of a step, so that coalitions stay comparable.

    Args:
        resize_rate: the extreme scale.
        probability: that an image is changed in a step.
        fill: what the padding shows: a number, one per channel, or None for the image's means.
    """

    spatial = True

    def __init__(
        self,
        resize_rate: float = 0.9,
        probability: float = 0.5,
        fill: float | list[float] | None = 0.0,
    ) -> None:
        if not 0 < resize_rate < float("inf"):
            raise InputError("resize_rate", resize_rate, "a positive number")
        in_range("probability", probability, 0, 1)
        self.resize_rate, self.probability, self.fill = resize_rate, probability, fill

    def transform(self, rows: Tensor, step: Step) -> Tensor:
        scale, top, left, change = step.draws.uniform("diversity", 4).unbind(1)
        vertical = self._plan(rows.shape[-2], scale, top)
        horizontal = self._plan(rows.shape[-1], scale, left)
        fill = rows.mean((-2, -1), keepdim=True)
        if self.fill is not None:
            fill = torch.as_tensor(self.fill).to(rows).view(-1, 1, 1)
            if len(fill) not in (1, channels := rows.shape[-3]):
                raise InputError("fill", self.fill, f"one number, or {channels}, one per channel")
        changed = resize_and_pad(rows, vertical, horizontal, fill)
        return torch.where((change < self.probability).view(-1, 1, 1, 1, 1), changed, rows)

    def _plan(self, size: int, scale: Tensor, place: Tensor) -> Plan:
        low, canvas = sorted((size, max(1, int(size * self.resize_rate))))
        new = low + (scale * (canvas - low)).long()
        return canvas, new, (place * (canvas - new + 1)).long()


def resize_and_pad(rows: Tensor, vertical: Plan, horizontal: Plan, fill: Tensor) -> Tensor:
    """Resize rows ``(B, k, C, H, W)``, place them on a canvas, and bring that to the rows' size.

    A matrix per side and sample does it, as bilinear resizing is linear.
    """
    up, left = (
        _side(rows, size, *plan)[:, None, None]
        for size, plan in zip(rows.shape[-2:], (vertical, horizontal), strict=True)
    )
    placed = up @ rows @ left.transpose(-2, -1)
    # The matrices' rows sum to the share of a pixel that the image covers.
    cover = up.sum(-1, keepdim=True) @ left.sum(-1, keepdim=True).transpose(-2, -1)
    return placed + (1 - cover) * fill


def _side(like: Tensor, size: int, canvas: int, new: Tensor, first: Tensor) -> Tensor:
    """Of one side, per sample: old pixels → canvas pixels (→ old size), ``(B, size, size)``."""
    place = torch.arange(canvas, device=like.device) - first[:, None]
    matrix = _interpolation(like, place, new[:, None], size)
    matrix = matrix * ((place >= 0) & (place < new[:, None])).unsqueeze(-1)
    if canvas == size:
        return matrix
    back = torch.arange(size, device=like.device).unsqueeze(0)
    return _interpolation(like, back, torch.full_like(back[:, :1], size), canvas) @ matrix


def _interpolation(like: Tensor, place: Tensor, new: Tensor, old: int) -> Tensor:
    """Weights ``(B, places, old)`` by which pixels of a side, resized to ``new``, read the old."""
    # Where the new pixel's centre lies on the old side (torch's align_corners=False), in units of
    # 1 / (2·new): whole numbers need no float64, which devices may lack.
    at = ((2 * place + 1) * old - new).clamp(min=0).minimum(2 * new * (old - 1)).unsqueeze(-1)
    distance = (at - 2 * new.unsqueeze(-1) * torch.arange(old, device=like.device)).abs()
    return (1 - distance.to(like) / (2 * new.unsqueeze(-1))).clamp(min=0)
