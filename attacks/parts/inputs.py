"""Parts that work on inputs: Gaussian averaging, scale invariance, input diversity."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import InputError, at_least, in_range


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


class InputDiversity(Part):
    """DI: images resized and padded at random, each sample its own way (Xie et al., CVPR 2019).

    A size is drawn between ``resize_rate`` and 1 times the image's (above 1: between 1 and
    ``resize_rate`` times, and the padded image is brought back to its own size, as in the authors'
    code), the same along both sides, then a place for it on the canvas. All rows of a sample share
    the draws of a step, so that differences between coalitions keep their meaning.

    Args:
        resize_rate: the extreme scale.
        probability: that an image is changed in a step.
        fill: what the padding shows: a number, one per channel, or None for the image's own mean
            per channel.
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
            if len(fill) not in (1, rows.shape[-3]):
                wanted = f"one number, or {rows.shape[-3]}, one per channel"
                raise InputError("fill", self.fill, wanted)
        changed = resize_and_pad(rows, vertical, horizontal, fill)
        return torch.where((change < self.probability).view(-1, 1, 1, 1, 1), changed, rows)

    def _plan(self, size: int, scale: Tensor, place: Tensor) -> tuple[int, Tensor, Tensor]:
        """Of one side: the canvas, the image's new size and its first pixel, ``(B,)`` each."""
        low, canvas = sorted((size, max(1, int(size * self.resize_rate))))
        new = low + (scale * (canvas - low)).long()
        return canvas, new, (place * (canvas - new + 1)).long()


def resize_and_pad(
    rows: Tensor,
    vertical: tuple[int, Tensor, Tensor],
    horizontal: tuple[int, Tensor, Tensor],
    fill: Tensor,
) -> Tensor:
    """Resize rows ``(B, k, C, H, W)``, place them on a canvas, and bring that to the rows' size.

    Bilinear resizing is linear along each side, so that every sample has its own matrix per side
    and the whole batch is two matrix products. Each side's plan is the canvas' size, and per sample
    ``(B,)`` int64 the image's new size and first pixel. ``fill``, what the rest shows, broadcasts.
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
