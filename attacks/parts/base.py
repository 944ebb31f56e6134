"""What an attack is put together from: parts that each change one place of its loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from interaction_train.attacks.norms import Norm
from interaction_train.sampling.random import Draws

Memory: TypeAlias = "defaultdict[object, dict[str, Any]]"


@dataclass
class Step:
    """One step of an attack on a batch, as its parts see it."""

    number: int  # 1 for the first step
    steps: int  # number of the last
    clean: Tensor  # (B, C, H, W)
    labels: Tensor  # (B,), or the classes aimed at
    start: Tensor  # the images before the first step
    adversarial: Tensor  # the images so far
    point: Tensor  # where the gradient is taken, once all parts have looked ahead
    eps: float
    alpha: float
    norm: Norm
    targeted: bool
    parts: Sequence[Part]  # all of the attack's
    draws: Draws  # random numbers of this step
    gradients_at: Callable[[Tensor, Step], Tensor]
    """The classification loss's gradients at points ``(B, P, C, H, W)``, of the same shape."""
    memory: Memory  # what each part or objective keeps between the steps of a call

    @property
    def pixel_eps(self) -> float:
        """ε per pixel; in L2 that of a perturbation of length ε which is as large everywhere."""
        return self.eps if self.norm == "Linf" else self.eps / self.clean[0].numel() ** 0.5

    def by_part(self) -> Iterator[tuple[Part, Step]]:
        """Each part with the step as it sees it: with random numbers of its place in the list."""
        for place, part in enumerate(self.parts):
            name = f"attack {place}" if place else "attack"
            yield part, replace(self, draws=replace(self.draws, name=name))

    def directed(self, gradient: Tensor) -> tuple[Tensor, float | Tensor]:
        """The direction that parts turn the gradient into, and the length of the step."""
        alpha: float | Tensor = self.alpha
        for part, seen in self.by_part():
            gradient = part.update(gradient, seen)
            alpha = part.step_size(alpha, seen)
        return gradient, alpha

    def noise(self, stream: str, copies: int | range | Tensor) -> Tensor:
        """Uniform in [-1, 1), ``(B, copies, C, H, W)``; of numbers, those copies of the whole."""
        shape = self.clean.shape[1:]
        # 64 bits make four numbers of 2^16 levels.
        bits = self.draws.bits(stream, copies, -(-shape.numel() // 4)).view(torch.int16)
        noise = bits[..., : shape.numel()].to(self.clean)
        return noise.mul_(2**-15).unflatten(-1, shape)


def settings_repr(self: object) -> str:
    """A ``__repr__`` that shows all public attributes, of tensors the shape."""
    settings = (
        f"{k}={tuple(v.shape) if isinstance(v, Tensor) else v!r}"
        for k, v in vars(self).items()
        if not k.startswith("_")
    )
    return f"{type(self).__name__}({', '.join(settings)})"


class Part:
    """A change to one place of the attack's loop; parts apply in the order they are listed.

    A subclass overrides the places it changes, and keeps what it needs from step to step in
    ``step.memory[self]``. Settings out of their range raise InputError.
    """

    copies: int = 1
    """Copies of every adversarial image at which the classification gradient is averaged.

    Those of several parts multiply: a part of one copy changes all those of others alike.
    """

    spatial: bool = False
    """Whether the part moves or smooths pixels, which only images ``(B, C, H, W)`` have."""

    shared: bool = False
    """Whether masked images are changed too, all as the first copy, to stay comparable."""

    compares: bool = False
    """Whether the clean images pass before, changed alike and under ``no_grad``, for hooks."""

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
        """What the network sees, ``(B, k, C, H, W)``; ``copy`` ``(k,)``: the number of each."""
        return rows

    def observe(self, logits: Tensor, step: Step) -> None:
        """See the logits ``(B, k, classes)`` of copies or masked images whose gradient is taken.

        Detached, of all passes of a step and of every network whose loss is averaged.
        """

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        """Change the gradient of the classification loss, before interactions join it."""
        return gradient

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        """Turn the whole gradient into the direction of the step."""
        return gradient

    def step_size(self, alpha: float | Tensor, step: Step) -> float | Tensor:
        """The length of the step, one number or ``(B, C, H, W)``."""
        return alpha

    def settle(self, adversarial: Tensor, step: Step) -> Tensor:
        """Where the next step begins, given where this one led."""
        return adversarial
