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
    """One step of an attack on a batch, as its parts see it.

    Args:
        number: 1 for the first step.
        clean: the clean images ``(B, C, H, W)``.
        adversarial: the adversarial images so far.
        eps: bound on the perturbation.
        alpha: step size.
        draws: random numbers of this step.
        gradient_at: the classification loss's gradient, meaned over points ``(B, P, C, H, W)``:
            ``(B, C, H, W)``.
        memory: what each part keeps between the steps of one call.
    """

    number: int
    clean: Tensor
    adversarial: Tensor
    eps: float
    alpha: float
    draws: Draws
    gradient_at: Callable[[Tensor, Step], Tensor]
    memory: defaultdict[Part, dict[str, Any]]


class Part:
    """A change to one place of the attack's loop; parts apply in the order they are listed.

    A part keeps no state of its own between calls, so one may serve several attacks.
    """

    copies: int = 1
    """Copies of every adversarial image at which the classification gradient is averaged."""

    spatial: bool = False
    """Whether the part moves or smooths pixels, which only images ``(B, C, H, W)`` have."""

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
        """The copies, differentiable.

        Args:
            rows: ``(B, k, C, H, W)``.
            copy: ``(k,)`` int64, which of this part's copies each row is.
            step: the present step.
        """
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
