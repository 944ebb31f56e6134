"""A loss that encourages or penalises one band of orders, and no order outside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from interaction_train.errors import InputError
from interaction_train.game.layers import ForwardRecord
from interaction_train.game.players import Players
from interaction_train.losses.difference import DifferenceLoss, DifferenceSettings, Mode
from interaction_train.losses.groups import (
    check_groups,
    group_coalitions,
    group_differences,
    row_count,
)
from interaction_train.losses.order_weights import OrderWeights, order_weights
from interaction_train.sampling import coalitions


class BandLoss(DifferenceLoss):
    """Classification by the interaction of groups at fixed sizes: a band-pass over the orders.

    Disjoint S, A, B of c−h, h and h of the n players are drawn per sample, and on all logits

        Δ = v(S∪A∪B) − v(S∪A) − v(S∪B) + v(S).

    It is the difference of :class:`~interaction_train.losses.InteractionLoss` at fixed sizes. With
    f(s) the mean of v over the coalitions of size s,

        E Δ = f(c+h) − 2 f(c) + f(c−h) = Σ_m (h − |m − (c−1)|)_+ Ī^(m),

    a triangle over the orders, centred at m = c−1, that is 0 at and beyond c−1 ± h: no order
    outside takes part, while Δu of :class:`~interaction_train.losses.OrderLoss` keeps all low ones.
    Main effects and v(∅) cancel in every single draw, so Δ = 0 for a network that is additive over
    the players.

    Rows per step for a batch of B, one draw and two groups: 4B; v(∅) for c = h is a single row, and
    v(N) for c + h = n is the main forward pass's where the network is known to
    compute the same in training and eval.

    Args:
        center: c as a fraction of the players.
        half_width: h as a fraction of the players (at least one player), at most ``center`` and
            1 − ``center``.
        mode: ``"encourage"``: cross entropy of softmax(Δ). ``"penalize"``: minus its entropy.
        players: how the input, or the layer's output, splits into players.
        layer: dotted name of the layer whose units are the players; default: the input's parts.
        groups: groups per draw. More than two share their evaluations: 4 groups give 6
            differences for 11 rows instead of 24. They need c + (groups − 1)·h ≤ n players.
        **shared: the settings of :class:`~interaction_train.losses.difference.DifferenceLoss`, such
            as ``n_draws`` and ``expectation``.

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
        **shared: Unpack[DifferenceSettings],
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
        """c and h for n players.

        Raises:
            InputError: fewer than 2 players, or too few for the groups.
        """
        if n < 2:
            raise InputError("players", f"{n} of them", "at least 2")
        half = min(max(1, round(self.half_width * n)), n // 2)
        # Rounding may push an edge of the band over the end by one player.
        middle = min(max(half, round(self.center * n)), n - half)
        if middle + (self.groups - 1) * half > n:
            raise InputError(
                "groups",
                f"{self.groups} groups of {half} players, beside {middle - half} in the context",
                f"at most {n} players in all",
            )
        return middle, half

    def order_weights(self, n: int) -> OrderWeights:
        middle, half = self.sizes(n)
        return order_weights(n, {middle + half: 1.0, middle: -2.0, middle - half: 1.0})

    def differences(self, model: nn.Module, x: Tensor, forward: ForwardRecord, step: int) -> Tensor:
        """Δ of every sample, draw and pair of groups.

        Returns:
            ``(n_samples, n_draws · pairs, classes)``.
        """
        x = x[: self.n_samples(len(x))]
        place = self.place(model, x, forward)
        n = self.players.count(place[1].shape[1:])
        middle, half = self.sizes(n)
        empty, everyone = middle == half, middle + half == n
        group, context = self._draw(x, n, middle - half, half, step)
        masks = group_coalitions(group, context, self.groups)
        first, last = int(empty), row_count(self.groups) - int(everyone)
        masks = masks[:, :, first:last]  # ∅ is the first row, N (of two groups only) the last
        rows, v_empty, v_all = self._evaluate(
            model, place, forward, masks.flatten(1, 2), empty=empty, everyone=everyone
        )
        assert rows is not None  # S∪A is neither ∅ nor N
        parts = [
            None if v_empty is None else v_empty.unsqueeze(1).expand(len(x), self.n_draws, 1, -1),
            rows.unflatten(1, masks.shape[1:3]),
            None if v_all is None else v_all.unsqueeze(1).expand(-1, self.n_draws, 1, -1),
        ]
        values = torch.cat([part for part in parts if part is not None], 2)
        return group_differences(values, self.groups).flatten(1, 2)

    def _draw(self, x: Tensor, n: int, context: int, half: int, step: int) -> tuple[Tensor, Tensor]:
        """A player's group (``groups`` where in none) and the context, ``(B, n_draws, n)``."""
        keys = self._keys(x, n, step)
        sizes = [half] * self.groups + ([context] if context else [])
        group = coalitions.disjoint_groups(keys, sizes)
        inside = group == self.groups if context else torch.zeros_like(group, dtype=torch.bool)
        return group.clamp(max=self.groups), inside
