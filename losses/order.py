"""Losses that encourage or penalise interactions of chosen orders."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.players import Players
from interaction_train.losses.difference import DifferenceLoss, Mode
from interaction_train.sampling import coalitions


class OrderLoss(DifferenceLoss):
    """L+(r1, r2) and L−(r1, r2): classification by Δu (survey, Sec. 5.4, Eq. 22, 23).

    S1 ⊂ S2 are drawn per sample from one permutation of the n players, of sizes s1 = r1·n and
    s2 = r2·n (rounded, s1 at least 1 where r1 > 0), and Δu = v(S2) − (s2/s1) v(S1), on all logits.
    The factor is the exact ratio of the sizes: with r2/r1 main effects would leak in. In
    expectation over the draws,

        E Δu = (1 − s2/s1) v(∅) + Σ_m [(s2−1−m)_+ − (s2/s1)(s1−1−m)_+] Ī^(m),

    a tent over the orders 0 … s2−2 with its peak at m = s1−1: every order below s2−1 takes part
    (:meth:`order_weights`); a single draw also keeps zero-mean noise of the main effects. With
    r1 = 0 the factor is 1 and Δu = v(S2) − v(∅), main effects included. For a band of orders alone
    see :class:`~interaction_train.losses.BandLoss`.

    The reference settings: ``(0, .5, "penalize")`` for high-order models, ``(.3, .7, "encourage")``
    for middle orders and ``(.7, 1, "penalize")`` for low-order models, weight 1, input cells.

    Rows per step for a batch of B and one draw: 2B, B + 1 for r1 = 0, and B for r2 = 1 where the
    main forward pass gives v(N).

    Args:
        r1: size of the smaller coalition as a fraction of the players.
        r2: size of the larger one.
        mode: ``"encourage"``: cross entropy of softmax(Δu), L+. ``"penalize"``: minus its entropy,
            L−.
        players: how the input, or the layer's output, splits into players.
        layer: dotted name of the layer whose units are the players; default: the input's parts.
        **shared: the settings of :class:`~interaction_train.losses.difference.DifferenceLoss`.

    Raises:
        InputError: an argument out of its range, two that do not go together, or so few players
            that the sizes coincide.

    Examples:
        >>> from interaction_train.game.players import GridPlayers
        >>> loss = OrderLoss(0.3, 0.7, "encourage", GridPlayers(4, 4))
        >>> loss.order_weights(16).interval(0.5)  # half of the weight lies in these orders
        (3, 6)
    """

    def __init__(
        self,
        r1: float,
        r2: float,
        mode: Mode = "encourage",
        players: Players | None = None,
        layer: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(mode, players, layer, **shared)
        if not 0 <= r1 < r2 <= 1:
            raise InputError("r1, r2", (r1, r2), "0 <= r1 < r2 <= 1")
        self.r1, self.r2 = r1, r2

    def sizes(self, n: int) -> tuple[int, int]:
        """s1 and s2 for n players; raises InputError where they coincide."""
        small = max(1, round(self.r1 * n)) if self.r1 > 0 else 0
        large = round(self.r2 * n)
        if small >= large:
            got = f"{(self.r1, self.r2)}, coalitions of {small} and {large} of the {n} players"
            expected = "sizes that differ; more players or a larger r2 - r1 will do"
            raise InputError("r1, r2", got, expected)
        return small, large

    def curve(self, n: int) -> dict[int, float]:
        small, large = self.sizes(n)
        return {large: 1.0, small: -large / small if small else -1.0}

    def draw(self, keys: Tensor) -> dict[int, Tensor]:
        n = keys.shape[-1]
        return {size: coalitions.uniform(keys, size) for size in self.sizes(n) if 0 < size < n}

    def difference(self, v: dict[int, Tensor], n: int) -> Tensor:
        small, large = self.sizes(n)
        return v[large] - (large / small if small else 1.0) * v[small]
