"""Absolute values of estimated interactions, with a name for what each is.

No unbiased estimator of |I| exists. So there are three readings, of a mean m over contexts that
come in independent parts (two to eight):

- ``plug_in`` |m|: biased up, by about 0.8 σ/√K where the truth is 0;
- ``split_sign``: every part with the sign that the others have together. Biased down, 0 in the mean
  where the truth is 0;
- ``product``: the mean product of two different parts (m1·m2), unbiased for I², so that the root of
  its mean over pairs and samples (``rms``) has only the small bias of the root.

The first two bracket the truth in the mean.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from interaction_train.indices.sampled_pairs import PairEstimates

Reading = Literal["plug_in", "split_sign", "rms"]
READINGS: tuple[Reading, ...] = ("plug_in", "split_sign", "rms")


def plug_in(estimates: PairEstimates) -> Tensor:
    """|value|, ``(B, M, P)``: an upper reading of |I|."""
    return estimates.value.abs()


def half_plug_ins(estimates: PairEstimates) -> tuple[Tensor, Tensor]:
    """The plug-in readings of two independent halves of the contexts, ``(B, M, P)`` each.

    Biased up more than that of all, but their difference shows what the contexts drawn change.
    """
    halves = [(estimates.part_sum[k::2], estimates.part_count[k::2]) for k in (0, 1)]
    first, second = ((own.sum(0) / count.sum(0)).abs() for own, count in halves)
    return first, second


def split_sign(estimates: PairEstimates) -> Tensor:
    """Each part's sum times the others' sign, ``(B, M, P)``: a lower reading; NaN for one part."""
    own, count = estimates.part_sum, estimates.part_count
    signed = (own * (own.sum(0) - own).sign()).sum(0) / count.sum(0)
    return signed.masked_fill((count > 0).sum(0) < 2, torch.nan)


def product(estimates: PairEstimates) -> Tensor:
    """The mean product of two parts' differences, ``(B, M, P)``, unbiased for I²; NaN for one."""
    top, bottom = (
        values.sum(0).square() - values.square().sum(0)
        for values in (estimates.part_sum, estimates.part_count)
    )
    return top / bottom
