"""The training objective: a classification loss plus weighted terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, at_least, one_of
from interaction_train.game.layers import ForwardRecord
from interaction_train.losses.base import InteractionTerm

Ramp = Literal["constant", "linear", "cosine", "falling"]
_MEMORY = 0.9  # of the running means behind an adaptive weight


@dataclass
class WeightedTerm:
    """A term's place in an objective: classification loss + Σ factor · term.

    The factor is ``weight`` · ramp(epoch), and with ``loss_ratio`` also · loss_ratio ·
    E|classification loss| / E|term|. The means are running ones over about ten micro-batches, equal
    on all processes, and the object's only state.

    Args:
        term: the loss term.
        weight: its factor, at least 0.
        warmup_epochs: epochs at the start in which the term is left out and costs nothing.
        ramp: after the warm-up, ``"constant"``: the whole weight at once; ``"linear"`` or
            ``"cosine"``: growing from 0, step by step, within ``ramp_epochs``; ``"falling"``: to
            0 within them, as the square of what is left; after them the term is left out.
        ramp_epochs: length of the ramp; 0 for a constant weight.
        loss_ratio: hold factor · |term| at ``weight`` · this times the classification loss.
        max_weight: the most that ``loss_ratio`` may multiply by: early in training terms are tiny.

    Raises:
        InputError: an argument out of its range, or a ramp without its length.

    Examples:
        >>> from interaction_train.losses import InteractionLoss
        >>> term = InteractionLoss(layer="classifier.2")
        >>> ramped = WeightedTerm(term, weight=2.0, warmup_epochs=1, ramp="linear", ramp_epochs=2)
        >>> [ramped.scheduled(epoch) for epoch in range(5)]
        [0.0, 0.0, 1.0, 2.0, 2.0]
    """

    term: InteractionTerm
    weight: float = 1.0
    warmup_epochs: int = 0
    ramp: Ramp = "constant"
    ramp_epochs: int = 0
    loss_ratio: float | None = None
    max_weight: float = 10.0

    def __post_init__(self) -> None:
        self._magnitudes: Tensor | None = None
        if not isinstance(self.term, InteractionTerm):
            got = self.term.__name__ if isinstance(self.term, type) else type(self.term).__name__
            raise InputError("term", got, "a loss term, such as InteractionLoss('classifier.2')")
        if not 0 <= self.weight < math.inf:
            raise InputError("weight", self.weight, "a number of at least 0")
        at_least("warmup_epochs", self.warmup_epochs, 0)
        one_of("ramp", self.ramp, get_args(Ramp))
        if self.ramp_epochs < 0 or (self.ramp == "constant") != (self.ramp_epochs == 0):
            expected = "0 for a constant weight" if self.ramp == "constant" else "at least 1"
            raise InputError("ramp_epochs", self.ramp_epochs, expected)
        if self.loss_ratio is not None and not 0 < self.loss_ratio < math.inf:
            raise InputError("loss_ratio", self.loss_ratio, "a positive number, or None")
        if not self.max_weight > 0:
            raise InputError("max_weight", self.max_weight, "a positive number")

    def active(self, epoch: float) -> bool:
        """Whether the term takes part at this point (epochs are counted from 0)."""
        over = self.ramp == "falling" and epoch >= self.warmup_epochs + self.ramp_epochs
        return self.weight > 0 and epoch >= self.warmup_epochs and not over

    def scheduled(self, epoch: float) -> float:
        """``weight`` · ramp(epoch); a fraction of ``epoch`` says how far it has come."""
        if not self.active(epoch):
            return 0.0
        if self.ramp == "constant":
            return self.weight
        progress = min(1.0, (epoch - self.warmup_epochs) / self.ramp_epochs)
        if self.ramp == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        elif self.ramp == "falling":
            progress = (1 - progress) ** 2
        return self.weight * progress

    def factor(self, epoch: float, value: Tensor, classification: Tensor) -> float | Tensor:
        """What the term of this value is multiplied by; with ``loss_ratio`` the means move on."""
        scheduled = self.scheduled(epoch)
        if self.loss_ratio is None:
            return scheduled
        now = torch.stack([classification.detach().float().abs(), value.detach().float().abs()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Else every process would train with a weight of its own.
            torch.distributed.all_reduce(now)
            now /= torch.distributed.get_world_size()
        old = now if self._magnitudes is None else self._magnitudes.to(now)
        # One step that overflows must not stay in the means.
        moved = torch.where(now.isfinite(), torch.lerp(now, old, _MEMORY), old)
        self._magnitudes = torch.where(old.isfinite(), moved, now)
        reference, size = self._magnitudes
        ratio = self.loss_ratio * reference / size.clamp(min=1e-12)
        return scheduled * ratio.clamp(max=self.max_weight)

    def state_dict(self) -> dict[str, Tensor]:
        """The running means ``(2,)`` of |classification loss| and |term|; empty without any."""
        return {} if self._magnitudes is None else {"magnitudes": self._magnitudes}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a :meth:`state_dict`."""
        self._magnitudes = state.get("magnitudes")


def weighted_terms(losses: Mapping[str, Any] | None) -> dict[str, WeightedTerm]:
    """The losses by name, each with its weight; a bare term has weight 1."""
    if losses is not None and not isinstance(losses, Mapping):
        raise InputError("losses", type(losses).__name__, 'terms by name, {"name": term}')
    return {
        name: w if isinstance(w, WeightedTerm) else WeightedTerm(w)
        for name, w in (losses or {}).items()
    }


def wanted_layers(losses: Mapping[str, WeightedTerm], epoch: float) -> list[str]:
    """The layers that the terms active at this point want recorded."""
    return [name for w in losses.values() if w.active(epoch) for name in w.term.layers]


def add_terms(
    losses: Mapping[str, WeightedTerm],
    classification: Tensor,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    forward: ForwardRecord | None = None,
    step: int,
    epoch: float,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The objective of a training step, classification loss + Σ factor · term, and what to log.

    The terms take the record of the main forward pass on ``x``, and the global micro-batch counter.
    Logged are ``loss/<name>``, the value of every active term, and ``weight/<name>``, its factor
    where that changes in training.
    """
    total, logs = classification, dict[str, Tensor | float]()
    for name, weighted in losses.items():
        if not weighted.active(epoch):
            continue
        value = weighted.term(model, x, y, forward=forward, step=step)
        factor = weighted.factor(epoch, value, classification)
        total = total + factor * value
        logs[f"loss/{name}"] = value.detach()
        if weighted.ramp != "constant" or weighted.loss_ratio is not None:
            logs[f"weight/{name}"] = factor
    return total, logs
