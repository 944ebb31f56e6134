"""The base class of every loss term."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from interaction_train.game.layers import ForwardRecord


class InteractionTerm(ABC):
    """A differentiable scalar of a network and a batch, to be added to a training loss.

    In a plain loop: ``loss = criterion(model(x), y) + weight * term(model, x, y)``. Where the main
    forward pass runs inside :func:`~interaction_train.game.layers.record`, the record saves the
    term from running its own.

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
