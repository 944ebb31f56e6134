"""A loss that encourages or penalises one band of orders, and no order outside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.players import Players
from interaction_train.losses.difference import DifferenceLoss, Mode
from interaction_train.losses.groups import check_groups, group_coalitions, group_differences
from interaction_train.sampling import coalitions


class BandLoss(DifferenceLoss):
    """Classification by the interaction of groups at fixed sizes: a band-pass over the orders.

    Disjoint S, A, B of c−h, h and h of the n players are drawn per sample, and on all logits

        Δ = v(S∪A∪B) − v(S∪A) − v(S∪B) + v(S).

    With f(s) the mean of v over the coalitions of size s,

        E Δ = f(c+h) − 2 f(c) + f(c−h) = Σ_m (h − |m − (c−1)|)_+ Ī^(m),

    a triangle over the orders, centred at m = c−1, that is 0 at and beyond c−1 ± h: no order
    outside takes part, while :class:`~interaction_train.losses.OrderLoss` keeps all low ones. Main
    effects and v(∅) cancel in every draw, so Δ = 0 for a network that is additive over the players.

    Rows per step for a batch of B, one draw and two groups: 4B; v(∅) for c = h is a single row, and
    v(N) for c + h = n costs none where the main forward pass gives it.

    Args:
        center: c as a fraction of the players.
        half_width: h as a fraction of the players (at least one player), at most ``center`` and
            1 − ``center``.
        mode: ``"encourage"``: cross entropy of softmax(Δ). ``"penalize"``: minus its entropy.
        players: how the input, or the layer's output, splits into players.
        layer: dotted name of the layer whose units are the players; default: the input's parts.
        groups: groups per draw. More than two share their evaluations: 4 groups give 6
            differences for 11 rows instead of 24. They need c + (groups − 1)·h ≤ n players.
        **shared: the settings of :class:`~interaction_train.losses.difference.DifferenceLoss`.

    Raises:
        InputError: an argument out of its range, two that do not go together, or too few players.

    Examples:
        >>> from interaction_train.game.players import UnitPlayers
        >>> band = BandLoss(0.5, 0.25, players=UnitPlayers())
        >>> band.order_weights(8).orders.tolist()
        [0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        center: float,
        half_width: float,
        mode: Mode = "encourage",
        players: Players | None = None,
        layer: str | None = None,
        *,
        groups: int = 2,
        **shared: Any,
    ) -> None:
        super().__init__(mode, players, layer, **shared)
        check_groups(groups)
        if not 0 < center < 1:
            raise InputError("center", center, "between 0 and 1")
        most = min(center, 1 - center)
        if not 0 < half_width <= most + 1e-9:
            raise InputError("half_width", half_width, f"in (0, {most:g}], for center = {center}")
        self.center, self.half_width, self.groups = center, half_width, groups

    def sizes(self, n: int) -> tuple[int, int]:
        """c and h for n players; raises InputError where they are too few."""
        if n < 2:
            raise InputError("players", f"{n} of them", "at least 2")
        half = min(max(1, round(self.half_width * n)), n // 2)
        # Rounding may push an edge of the band over the end by one player.
        middle = min(max(half, round(self.center * n)), n - half)
        if middle + (self.groups - 1) * half > n:
            got = f"{self.groups} groups of {half} players, beside {middle - half} in the context"
            raise InputError("groups", got, f"at most {n} players in all")
        return middle, half

    def curve(self, n: int) -> dict[int, float]:
        middle, half = self.sizes(n)
        return {middle + half: 1.0, middle: -2.0, middle - half: 1.0}

    def draw(self, keys: Tensor) -> dict[int, Tensor]:
        n = keys.shape[-1]
        middle, half = self.sizes(n)
        sizes = [half] * self.groups + [middle - half] * (middle > half)
        group = coalitions.disjoint_groups(keys, sizes)
        context = group == (self.groups if middle > half else -1)
        masks = group_coalitions(group, context, self.groups)
        # ∅ is the first row, N (of two groups only) the last.
        masks = masks[:, :, int(middle == half) : -1 if middle + half == n else None]
        return {middle: masks.flatten(1, 2)}

    def difference(self, v: dict[int, Tensor], n: int) -> Tensor:
        middle = self.sizes(n)[0]
        rows = v[middle].unflatten(1, (self.n_draws, -1))
        shape = *rows.shape[:2], 1, -1
        parts = [rows if s == middle else v[s].unsqueeze(1).expand(shape) for s in sorted(v)]
        values = torch.cat(parts, 2)
        return group_differences(values, self.groups).flatten(1, 2)
