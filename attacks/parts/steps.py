"""Parts that change the steps: their sizes over the run, and where a run begins."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.gradients import Momentum
from interaction_train.errors import InputError, at_least, in_range, one_of


class StepSchedule(Part):
    """Step sizes over the run: a linear warm-up to the attack's ``alpha``, then a decay.

    Of n steps of decay, step i = 0, …, n − 1 is ``alpha`` times (1 + cos(πi/n)) / 2, or 1 − i/n.

    Args:
        decay: ``"cosine"``, ``"linear"`` or ``"none"``.
        warmup: number of first steps below ``alpha``.

    Examples:
        >>> [round(StepSchedule("linear", warmup=1).factor(i, 5), 2) for i in range(1, 6)]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """

    def __init__(
        self, decay: Literal["cosine", "linear", "none"] = "cosine", warmup: int = 0
    ) -> None:
        one_of("decay", decay, ("cosine", "linear", "none"))
        at_least("warmup", warmup, 0)
        self.decay, self.warmup = decay, warmup

    def factor(self, number: int, steps: int) -> float:
        """Of step ``number``, from 1 to ``steps``."""
        if self.warmup >= steps:
            raise InputError("warmup", self.warmup, f"less than the attack's {steps} steps")
        if number <= self.warmup:
            return number / (self.warmup + 1)
        passed = (number - 1 - self.warmup) / (steps - self.warmup)
        shapes = {"cosine": (1 + math.cos(math.pi * passed)) / 2, "linear": 1 - passed, "none": 1.0}
        return shapes[self.decay]

    def step_size(self, alpha: float | Tensor, step: Step) -> float | Tensor:
        return alpha * self.factor(step.number, step.steps)


class FlipDecay(Part):
    """The decay indicator of GRA: a pixel takes shorter steps after each turn of its direction.

    Zhu et al., "Boosting Adversarial Transferability via Gradient Relevance Attack", ICCV 2023.
    Looks at the direction as the parts before it leave it, so that it goes after
    :class:`~interaction_train.attacks.parts.gradients.Momentum`. Unlike the released code, a
    direction of exactly 0 is no turn.

    Args:
        factor: of a pixel's step per turn.
    """

    def __init__(self, factor: float = 0.94) -> None:
        in_range("factor", factor, 0, 1)
        self.factor = factor

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        memory, sign = step.memory[self], gradient.sign()
        size, before = memory.get("size", torch.ones_like(sign)), memory.get("sign", sign)
        memory["size"] = torch.where(sign * before < 0, size * self.factor, size)
        memory["sign"] = sign
        return gradient

    def step_size(self, alpha: float | Tensor, step: Step) -> float | Tensor:
        size: Tensor = step.memory[self]["size"]
        return alpha * size


class GlobalMomentum(Part):
    """GI: first steps that only fill the momentum; then the images go back to their start.

    Wang et al., "Boosting the Transferability of Adversarial Attacks with Global Momentum
    Initialization", 2022. Goes with :class:`~interaction_train.attacks.parts.gradients.Momentum`
    or one of its kind. The first steps count among the attack's ``steps``: the published 5 and 10
    are ``steps=15``.

    Args:
        pre_steps: number of the first steps.
        factor: of their size.
    """

    def __init__(self, pre_steps: int = 5, factor: float = 10.0) -> None:
        at_least("pre_steps", pre_steps, 1)
        at_least("factor", factor, 0)
        self.pre_steps, self.factor = pre_steps, factor

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        if not any(isinstance(part, Momentum) for part in step.parts):
            raise InputError("parts", "GlobalMomentum alone", "a Momentum for it to fill")
        if self.pre_steps >= step.steps:
            expected = f"less than the attack's {step.steps} steps, among which they count"
            raise InputError("pre_steps", self.pre_steps, expected)
        return point

    def step_size(self, alpha: float | Tensor, step: Step) -> float | Tensor:
        return alpha * self.factor if step.number <= self.pre_steps else alpha

    def settle(self, adversarial: Tensor, step: Step) -> Tensor:
        return step.start if step.number == self.pre_steps else adversarial
