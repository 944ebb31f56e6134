"""What an attack is put together from: parts that each change one thing about its loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from interaction_train.sampling.random import Draws


@dataclass
class Step:
    """One step of an attack on a batch, as its parts see it."""

    number: int  # 1 for the first step
    clean: Tensor  # (B, C, H, W)
    adversarial: Tensor  # the adversarial images so far
    eps: float
    alpha: float
    draws: Draws  # random numbers of this step
    gradient_at: Callable[[Tensor, Step], Tensor]
    """The classification loss's gradient, meaned over points ``(B, P, C, H, W)``."""
    memory: defaultdict[Part, dict[str, Any]]  # what each part keeps between the steps of a call


def settings_repr(self: object) -> str:
    """A ``__repr__`` that shows all public attributes."""
    settings = (f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
    return f"{type(self).__name__}({', '.join(settings)})"


class Part:
    """A change to one place of the attack's loop; parts apply in the order they are listed.

    A subclass overrides the places it changes. It keeps nothing between calls, and what it needs
    from step to step in ``step.memory[self]``. Settings out of their range raise InputError.
    """

    copies: int = 1
    """Copies of every adversarial image at which the classification gradient is averaged."""

    spatial: bool = False
    """Whether the part moves or smooths pixels, which only images ``(B, C, H, W)`` have."""

    __repr__ = settings_repr

    @property
    def varies(self) -> bool:
        """Whether the part changes the copies, be it a single one."""
        return type(self).vary is not Part.vary

    def around(self, model: nn.Module) -> AbstractContextManager[None]:
        """Entered for the time of the attack, for a change to the network."""
        return nullcontext()

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        """Where the gradient is taken, ``(B, C, H, W)`` → the same."""
        return point

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        """The copies ``(B, k, C, H, W)``, differentiable; ``copy`` ``(k,)``: the number of each."""
        return rows

    def transform(self, rows: Tensor, step: Step) -> Tensor:
        """Change what the network sees, ``(B, k, C, H, W)``, alike for all rows of a sample."""
        return rows

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        """Change the gradient of the classification loss, before interactions join it."""
        return gradient

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        """Turn the whole gradient into the direction of the step."""
        return gradient
