"""The base class of every loss term, and its place in a training objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.layers import ForwardRecord


class InteractionTerm(ABC):
    """A differentiable scalar of a network and a batch, to be added to a training loss.

    In a plain loop: ``loss = criterion(model(x), y) + weight * term(model, x, y)``. Where the main
    forward pass runs inside :func:`~interaction_train.layers.record`, the record saves the term
    from running its own.

    Args:
        seed: seed of the term's draws.
        name: name of the term's draws; two terms of the same class need different names or seeds
            to draw independently.
    """

    def __init__(self, seed: int = 0, name: str | None = None) -> None:
        self.seed = seed
        self.name = type(self).__name__ if name is None else name
        self._calls = 0

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose outputs the term wants recorded during the main forward pass."""
        return ()

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        forward: ForwardRecord | None = None,
        step: int | None = None,
    ) -> Tensor:
        """The term's value, a scalar.

        Args:
            model: the network, ``(B, ...)`` → ``(B, classes)``.
            x: inputs ``(B, ...)``.
            y: labels ``(B,)`` int64.
            forward: record of the main forward pass on the same ``x``.
            step: the global micro-batch counter that the draws depend on; without it the term
                counts its own calls.
        """
        if step is None:
            step = self._calls
            self._calls += 1
        return self.compute(model, x, y, forward or ForwardRecord(), step)

    @abstractmethod
    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        """The value, with the record (perhaps empty) and the step given."""


@dataclass
class WeightedTerm:
    """A term's place in an objective.

    Args:
        term: the loss term.
        weight: its factor, at least 0.
        warmup_epochs: epochs at the start in which the term is left out and costs nothing.

    Raises:
        InputError: a negative weight or warm-up.
    """

    term: InteractionTerm
    weight: float = 1.0
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise InputError("weight", self.weight, "a number of at least 0")
        if self.warmup_epochs < 0:
            raise InputError("warmup_epochs", self.warmup_epochs, "at least 0")

    def active(self, epoch: int) -> bool:
        """Whether the term takes part in this epoch (counted from 0)."""
        return self.weight > 0 and epoch >= self.warmup_epochs
