"""Means over samples, their ratios, and the standard errors of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Mean = tuple[Tensor, Tensor]
"""A mean over samples ``(M,)``, and what each adds to its error (to first order, up to a constant):
``(B, M)``, whose spread over √B is the standard error."""


def ratio(top: Mean, bottom: Mean) -> Mean:
    """A ratio of means, by the delta method."""
    value = top[0] / bottom[0]
    return value, (top[1] - value * bottom[1]) / bottom[0]


def standard_error(deviations: Tensor) -> Tensor:
    """Of a mean, from what each sample adds, ``(B, ...)``; NaN for less than two."""
    if len(deviations) < 2:
        return deviations.new_full(deviations.shape[1:], torch.nan)
    return deviations.std(0) / len(deviations) ** 0.5


def told_mean(x: Tensor, unit: Tensor | None = None) -> dict[str, Any]:
    """The ``value`` of a mean over samples ``(B, ...)`` and its ``stderr``, as plain numbers.

    With a unit ``(B,)`` the ratio of the means.
    """
    mean = x.mean(0), x - x.mean(0)
    if unit is not None:
        mean = ratio(mean, (unit.mean(0), unit - unit.mean(0)))
    return {"value": mean[0].tolist(), "stderr": standard_error(mean[1]).tolist()}
