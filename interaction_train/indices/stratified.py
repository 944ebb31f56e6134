"""Means over contexts whose keep rates are stratified, one from each slice of an interval."""

from __future__ import annotations

import torch
from torch import Tensor


class StratifiedMean:
    """The mean of values that come block by block, in the order of their slices, and its error.

    Args:
        slices: how many values there will be in all, at least 2.
    """

    def __init__(self, slices: int) -> None:
        self.slices = slices
        self._sums: tuple[Tensor, Tensor] | None = None
        self._last: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Values of the next k slices, ``(B, k, ...)``."""
        before = values[:, :0] if self._last is None else self._last
        # Neighbours differ by as much as two draws from one slice, all together by more.
        steps = torch.cat([before, values], 1).diff(dim=1)
        self._last = values[:, -1:]
        total, square = self._sums or (0, 0)
        self._sums = total + values.sum(1), square + steps.square().sum(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """The mean and its standard error, ``(B, ...)`` each."""
        assert self._sums is not None
        total, square = self._sums
        return total / self.slices, (square / (2 * (self.slices - 1) * self.slices)).sqrt()
