"""SSA: the spectrum of the image scaled at random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import at_least, whole


class SpectrumScaling(Part):
    """SSA: noise, then every frequency scaled by its own random number.

    Long et al., "Frequency Domain Model Augmentation for Adversarial Attack", ECCV 2022. The
    frequencies are those of the DCT of the whole image, channel by channel, as in the released
    code; each sample has its own numbers.

    Args:
        rho: ρ; frequencies are scaled by U(1 − ρ, 1 + ρ).
        radius: standard deviation of the noise in units of ε; 0 for none.
        copies: number of copies per step; 20 as published.
    """

    spatial = shared = True

    def __init__(self, rho: float = 0.5, radius: float = 1.0, copies: int = 1) -> None:
        at_least("rho", rho, 0)
        at_least("radius", radius, 0)
        whole("copies", copies, 1)
        self.rho, self.radius, self.copies = rho, radius, copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        size = rows[0, 0].numel()
        if self.radius > 0:
            noise = step.draws.normal("spectrum noise", copy, size).view_as(rows).to(rows)
            rows = rows + self.radius * step.pixel_eps * noise
        unit = 2 * step.draws.uniform("spectrum", copy, size).view_as(rows).to(rows) - 1
        up, left = cosines(rows.shape[3], rows), cosines(rows.shape[4], rows)
        # One matrix to the right of many is one product; to the left torch would copy it for each.
        waves = (rows @ left.mT).mT @ up.mT
        return (waves * (1 + self.rho * unit.mT) @ up).mT @ left


def cosines(side: int, like: Tensor) -> Tensor:
    """The orthonormal DCT of a side, ``(frequencies, pixels)``."""
    places = torch.arange(side, device=like.device)
    order = places.unsqueeze(1)
    # In quarters of a turn by 1 / side: whole numbers keep large angles exact.
    angle = order * (2 * places + 1) % (4 * side)
    size = ((1 + (order > 0)).to(like) / side).sqrt()
    return (angle.to(like) * (math.pi / 2 / side)).cos() * size
