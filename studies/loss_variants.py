"""Variants of the interaction loss that ``loss_settings.py`` tries beside the package's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import interaction_train as it
from interaction_train.game.layers import ForwardRecord
from interaction_train.sampling.random import Draws

# Of WeightedTerm are "constant", "rising" (linear) and "falling".
SCHEDULES: dict[str, Callable[[float], float]] = {  # progress, 0 to 1 → share of the weight
    "constant": lambda progress: 1.0,
    "rising": lambda progress: progress,
    "falling linearly": lambda progress: 1.0 - progress,
    "falling": lambda progress: (1.0 - progress) ** 2,
    "first half": lambda progress: float(progress < 0.5),
    "second half": lambda progress: float(progress >= 0.5),
}


@dataclass(frozen=True)
class _Between(Draws):
    """Draws whose uniform numbers lie in a range."""

    low: float = 0.0
    high: float = 1.0

    def uniform(self, stream: str, *axes: int | range | Tensor) -> Tensor:
        return self.low + (self.high - self.low) * super().uniform(stream, *axes)


class Variant(it.InteractionLoss):
    """The interaction loss with two more settings; without them it is the same, draws included.

    Args:
        layer: as in the package.
        keep: the range of the contexts' keep rate; equal ends fix it.
        relative: what Δ² is divided by, a mean over samples: ``"logits"``, the square of the
            logits less their mean over the classes, or ``"values"``, the spread of the four values
            of v around their mean, which makes a quarter of the quotient the share of that spread
            that is interaction.
        detached: whether the divisor counts as a number; with its gradient the scale of the logits
            changes nothing.
        **settings: the package's settings.
    """

    def __init__(
        self, layer: str, *, keep: tuple[float, float] = (0, 1), relative: str = "",
        detached: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(layer, **{"name": "InteractionLoss", **settings})
        self.keep, self.relative, self.detached = keep, relative, detached
        payoff = self.payoff
        self.values: list[Tensor] = []

        def kept(logits: Tensor, *classes: Tensor) -> Tensor:
            self.values.append(payoff(logits, *classes))
            return self.values[-1]

        if relative == "values":
            self.__dict__["payoff"] = kept

    def draw(self, draws: Draws, n: int) -> Tensor:
        between = _Between(draws.content, draws.seed, draws.name, draws.step, *self.keep)
        return super().draw(between, n)

    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        self.values = []
        value = super().compute(model, x, y, forward, step)
        if not self.relative:
            return value
        assert forward.logits is not None
        around, scale = forward.logits, 1
        if self.relative == "values":
            around, scale = torch.cat(self.values), 4
        spread = scale * (around - around.mean(1, keepdim=True)).square().mean()
        return value / (spread.detach() if self.detached else spread)
