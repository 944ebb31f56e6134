"""Which orders of interaction a setting really weighs.

Every difference of this package is a combination Σ_k a_k v(S_k) of coalitions of sizes s_k, so its
expectation is Σ_k a_k f(s_k), with f(s) the mean of v over the coalitions of size s, and

    f(s) = v(∅) + s·μ̄ + Σ_m (s−1−m)_+ Ī^(m),

where μ̄ is the mean main effect v({i}) − v(∅) and Ī^(m) the mean order-m interaction over pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.tracking.figures import legend_below, new_figure
from interaction_train.tracking.style import styled

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 24


@dataclass(frozen=True)
class OrderWeights:
    """The expectation of a difference: ``empty``·v(∅) + ``main``·μ̄ + Σ_m ``orders[m]``·Ī^(m).

    Attributes:
        orders: ``(n − 1,)`` float64, the weights of the mean interactions of order 0 … n−2.
        main: the weight of the mean main effect.
        empty: the weight of v(∅).
    """

    orders: Tensor
    main: float
    empty: float

    def interval(self, share: float) -> tuple[int, int]:
        """The orders between which the middle ``share`` of the absolute weight lies."""
        weight = self.orders.abs().cumsum(0) / self.orders.abs().sum()
        tail = (1 - share) / 2
        first = int((weight > tail + 1e-12).nonzero()[0])
        last = int((weight >= 1 - tail - 1e-12).nonzero()[0])
        return first, last

    def __str__(self) -> str:
        n = len(self.orders) + 1
        if not self.orders.any():
            return f"no interaction at all (n = {n})"
        present = self.orders.nonzero().flatten()
        first, last = self.interval(0.5)
        peak = int(self.orders.abs().argmax())
        text = (
            f"|{self._bars()}| orders {int(present[0])}…{int(present[-1])} of 0…{n - 2}, "
            f"half of the weight in {first}…{last}, most at m = {peak}"
        )
        if n > 2:
            text += f" ({peak / (n - 2):.2f} of n−2)"
        if abs(self.main) > 1e-9:
            text += f"; and {self.main:g} × the mean main effect"
        if abs(self.empty) > 1e-9:
            text += f"; {self.empty:+.3g} × v(∅), the same for every sample"
        return text

    def _bars(self) -> str:
        height = self.orders.abs() / self.orders.abs().max()
        columns = min(_COLUMNS, len(height))
        edges = [i * len(height) // columns for i in range(columns + 1)]
        peaks = (float(height[a:b].max()) for a, b in pairwise(edges))
        return "".join(_BARS[-int(-(len(_BARS) - 1) * peak // 1)] for peak in peaks)


def order_weights(n: int, curve: Mapping[int, float]) -> OrderWeights:
    """The weights of Σ_s curve[s]·f(s) for n players, at least 2, of sizes s from 0 to n.

    Raises:
        InputError: fewer than 2 players, or a size outside 0 … n.

    Examples:
        >>> order_weights(8, {6: 1.0, 4: -2.0, 2: 1.0}).orders.tolist()  # f(6) − 2 f(4) + f(2)
        [0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0]
    """
    if n < 2:
        raise InputError("n", n, "at least 2 players")
    for size in curve:
        if not 0 <= size <= n:
            raise InputError("curve", f"a coalition of {size} players", f"between 0 and {n}")
    order = torch.arange(n - 1, dtype=torch.float64)
    weights = torch.zeros(n - 1, dtype=torch.float64)
    for size, coefficient in curve.items():
        weights += coefficient * (size - 1 - order).clamp(min=0)
    # What cancels in exact arithmetic must not show up as an order that takes part.
    weights[weights.abs() < 1e-9 * max(1.0, float(weights.abs().max()))] = 0
    main = sum(coefficient * size for size, coefficient in curve.items())
    return OrderWeights(weights, main, sum(curve.values()))


@styled()
def order_weights_figure(settings: Mapping[str, OrderWeights]) -> Figure:
    """The weights, by name, against m/(n−2), each divided by its largest absolute value."""
    figure, axes = new_figure()
    for name, setting in settings.items():
        count = len(setting.orders)
        ratio = torch.arange(count) / max(1, count - 1)
        peak = setting.orders.abs().max().clamp(min=1e-300)
        label = name if abs(setting.main) < 1e-9 else f"{name} (and main effects)"
        axes.plot(ratio.tolist(), (setting.orders / peak).tolist(), label=label)
    axes.set(xlabel="order m/(n−2)", ylabel="weight / largest weight")
    axes.set_title("Orders of interaction that the losses weigh")
    legend_below(axes)
    return figure
