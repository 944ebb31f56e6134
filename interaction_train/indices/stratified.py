"""Means over contexts whose keep rates are stratified, one from each slice of an interval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from interaction_train.indices.curve import require_finite


def stratified_mean(blocks: Iterable[Tensor], slices: int) -> tuple[Tensor, Tensor]:
    """The mean and its standard error, ``(B, ...)`` each; InputError where it is not finite.

    Args:
        blocks: values ``(B, k, ...)`` of the next k slices each, in their order.
        slices: how many there are in all, at least 2.
    """
    last: Tensor | None = None
    sums: Any = (0, 0)
    for values in blocks:
        # Neighbours differ by as much as two draws from one slice, all together by more.
        steps = (values if last is None else torch.cat([last, values], 1)).diff(dim=1)
        sums = sums[0] + values.sum(1), sums[1] + steps.square().sum(1)
        last = values[:, -1:]
    mean = sums[0] / slices
    require_finite(mean)
    return mean, (sums[1] / (2 * (slices - 1) * slices)).sqrt()
