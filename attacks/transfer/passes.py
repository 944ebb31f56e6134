"""What an attack costs: the rows that a network really takes forward and backward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interaction_train.attacks.ensemble import Ensemble


class PassCounter:
    """Counts, while it is entered, the rows of every call of a network.

    Every call counts, whoever makes it. A backward pass counts with all rows of the logits it
    begins at, each time one is made. The members of an :class:`Ensemble` are counted one by one.
    Calls of a part of the network, and calls under ``torch.compile``, are not seen.

    Args:
        network: ``(rows, ...)`` → logits ``(rows, classes)``.

    Attributes:
        forwards: rows forward so far.
        backwards: rows backward so far.
    """

    def __init__(self, network: nn.Module) -> None:
        members = list(network.members) if isinstance(network, Ensemble) else [network]
        self.networks: list[nn.Module] = members
        self.forwards = self.backwards = 0
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> PassCounter:
        self._handles = [n.register_forward_hook(self._forward) for n in self.networks]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _forward(self, network: nn.Module, inputs: tuple[Any, ...], logits: Any) -> None:
        if not isinstance(logits, Tensor):
            return
        rows = len(logits)
        self.forwards += rows
        if logits.requires_grad:
            self._handles.append(logits.register_hook(lambda gradient: self._backward(rows)))

    def _backward(self, rows: int) -> None:
        self.backwards += rows
