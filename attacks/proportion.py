"""A share of a count, with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Proportion:
    """So many successes out of so many trials.

    Args:
        successes: how many.
        total: out of how many; where it is 0 all numbers below are NaN.

    Examples:
        >>> none = Proportion(0, 20)
        >>> none.rate, [round(bound, 3) for bound in none.interval]
        (0.0, [0.0, 0.161])
    """

    successes: int
    total: int

    @property
    def rate(self) -> float:
        """Successes over trials, in [0, 1]."""
        return self.successes / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927), which also holds near 0 and 1.

        It is where the trials' rate is less than 1.96 standard errors from p, with the standard
        error that p would give.
        """
        if not self.total:
            return math.nan, math.nan
        shrink = 1 + _Z95**2 / self.total
        centre = (self.rate + _Z95**2 / (2 * self.total)) / shrink
        spread = self.rate * (1 - self.rate) / self.total + (_Z95 / (2 * self.total)) ** 2
        half = _Z95 * math.sqrt(spread) / shrink
        low = centre - half if self.successes else 0.0  # exactly
        return low, centre + half if self.successes < self.total else 1.0
