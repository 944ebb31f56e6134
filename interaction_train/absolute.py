"""Absolute values of estimated interactions, with a name for what each is.

|I| of an unbiased estimate is biased, and no unbiased estimator of |I| exists. So there are three
readings, of a value and of its two independent halves m1 and m2:

- ``plug_in`` |m|: biased up, by about 0.8 σ/√K where the truth is 0;
- ``split_sign`` (m1·sign m2 + m2·sign m1)/2: biased down, 0 in the mean where the truth is 0, about
  half the truth where it equals its standard error;
- ``product`` m1·m2: unbiased for I², so that the root of its mean over pairs and samples (``rms``)
  has only the small bias of the root.

The first two bracket the truth in the mean.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.estimators.multi_order import PairEstimates

Reading = Literal["plug_in", "split_sign", "rms"]
READINGS: tuple[Reading, ...] = ("plug_in", "split_sign", "rms")


def plug_in(estimates: PairEstimates) -> Tensor:
    """|value|, ``(B, M, P)``: an upper reading of |I|."""
    return estimates.value.abs()


def split_sign(estimates: PairEstimates) -> Tensor:
    """(m1·sign m2 + m2·sign m1)/2, ``(B, M, P)``: a lower reading of |I|."""
    first, second = estimates.halves
    return (first * second.sign() + second * first.sign()) / 2


def product(estimates: PairEstimates) -> Tensor:
    """m1·m2, ``(B, M, P)``, unbiased for I²."""
    first, second = estimates.halves
    return first * second


def check_reading(reading: str) -> None:
    """Refuse an unknown reading.

    Raises:
        InputError: another name than those of :data:`READINGS`.
    """
    if reading not in READINGS:
        raise InputError("reading", repr(reading), f"one of {', '.join(READINGS)}")
