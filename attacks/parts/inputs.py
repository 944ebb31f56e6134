"""Parts that change what the network sees: noise, scales, resizing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import InputError, at_least, in_range, one_of, whole


class RandomNoise(Part):
    """The gradient taken at, or meaned over, copies with random noise.

    One copy a step is the cheapest way to better transfer. Twenty copies with normal noise of
    ``radius`` 1 are VR (Wu et al., "Understanding and enhancing the transferability
    of adversarial examples", 2018).

    Args:
        radius: of the noise in units of ε: its bound if uniform, its standard deviation if normal;
            copies are not clamped. In L2 the noise has about ``radius``·ε as length.
        kind: ``"uniform"`` or ``"normal"``.
        copies: number of noisy copies per step.
    """

    def __init__(
        self,
        radius: float = 1.0,
        kind: Literal["uniform", "normal"] = "uniform",
        copies: int = 1,
    ) -> None:
        at_least("radius", radius, 0)
        one_of("kind", kind, ("uniform", "normal"))
        whole("copies", copies, 1)
        self.radius, self.kind, self.copies = radius, kind, copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        if self.kind == "normal":
            noise = step.draws.normal("noise", copy, rows[0, 0].numel()).view_as(rows).to(rows)
        else:
            noise = step.noise("noise", copy)
        return torch.add(rows, noise, alpha=self.radius * step.pixel_eps)


class ScaleInvariance(Part):
    """SI: the gradient meaned over the image divided by 1, 2, 4, … (Lin et al., ICLR 2020).

    Args:
        copies: number of scales.
    """

    def __init__(self, copies: int = 5) -> None:
        whole("copies", copies, 1)
        self.copies = copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        return rows / (2**copy).to(rows).view(-1, *(1 for _ in rows.shape[2:]))


Plan = tuple[int, Tensor, Tensor]
"""Of one side: the canvas' size and, ``(B, k)`` int64, the image's new size and first pixel."""


class InputDiversity(Part):
    """DI: images resized and padded at random, each sample its own way (Xie et al., CVPR 2019).

    A size is drawn between ``resize_rate`` and 1 times the image's (above 1, as in the authors'
    code, the padded image is brought back to its own size), then a place for it on the canvas.

    Args:
        resize_rate: the extreme scale.
        probability: that an image is changed in a step.
        fill: what the padding shows: a number, one per channel, or None for the image's means.
        copies: number of copies per step, each changed in its own way.
    """

    spatial = shared = True

    def __init__(
        self,
        resize_rate: float = 0.9,
        probability: float = 0.5,
        fill: float | list[float] | None = 0.0,
        copies: int = 1,
    ) -> None:
        if not 0 < resize_rate < float("inf"):
            raise InputError("resize_rate", resize_rate, "a positive number")
        in_range("probability", probability, 0, 1)
        whole("copies", copies, 1)
        self.resize_rate, self.probability, self.fill = resize_rate, probability, fill
        self.copies = copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        scale, top, left, change = step.draws.uniform("diversity", copy, 4).unbind(2)
        vertical = self._plan(rows.shape[-2], scale, top)
        horizontal = self._plan(rows.shape[-1], scale, left)
        fill = rows.mean((-2, -1), keepdim=True)
        if self.fill is not None:
            fill = torch.as_tensor(self.fill).to(rows).view(-1, 1, 1)
            if len(fill) not in (1, channels := rows.shape[-3]):
                raise InputError("fill", self.fill, f"one number, or {channels}, one per channel")
        changed = resize_and_pad(rows, vertical, horizontal, fill)
        return torch.where((change < self.probability)[..., None, None, None], changed, rows)

    def _plan(self, size: int, scale: Tensor, place: Tensor) -> Plan:
        low, canvas = sorted((size, max(1, int(size * self.resize_rate))))
        new = low + (scale * (canvas - low)).long()
        return canvas, new, (place * (canvas - new + 1)).long()


def resize_and_pad(rows: Tensor, vertical: Plan, horizontal: Plan, fill: Tensor) -> Tensor:
    """Resize rows ``(B, k, C, H, W)``, place them on a canvas, and bring that to the rows' size.

    A matrix per side and row does it, as bilinear resizing is linear.
    """
    up, left = (
        _side(rows, size, *plan).unsqueeze(2)
        for size, plan in zip(rows.shape[-2:], (vertical, horizontal), strict=True)
    )
    placed = up @ rows @ left.transpose(-2, -1)
    # The matrices' rows sum to the share of a pixel that the image covers.
    cover = up.sum(-1, keepdim=True) @ left.sum(-1, keepdim=True).transpose(-2, -1)
    return placed + (1 - cover) * fill


def _side(like: Tensor, size: int, canvas: int, new: Tensor, first: Tensor) -> Tensor:
    """Of one side, per row: old pixels → canvas pixels (→ old size), ``(B, k, size, size)``."""
    new, first = new.unsqueeze(-1), first.unsqueeze(-1)
    place = torch.arange(canvas, device=like.device) - first
    matrix = _interpolation(like, place, new, size)
    matrix = matrix * ((place >= 0) & (place < new)).unsqueeze(-1)
    if canvas == size:
        return matrix
    back = torch.arange(size, device=like.device)
    return _interpolation(like, back, torch.full_like(back[:1], size), canvas) @ matrix


def _interpolation(like: Tensor, place: Tensor, new: Tensor, old: int) -> Tensor:
    """Weights ``(..., places, old)`` by which pixels of a side of ``new`` pixels read the old."""
    # Where the new pixel's centre lies on the old side (torch's align_corners=False), in units of
    # 1 / (2·new): whole numbers need no float64, which devices may lack.
    at = ((2 * place + 1) * old - new).clamp(min=0).minimum(2 * new * (old - 1)).unsqueeze(-1)
    distance = (at - 2 * new.unsqueeze(-1) * torch.arange(old, device=like.device)).abs()
    return (1 - distance.to(like) / (2 * new.unsqueeze(-1))).clamp(min=0)
