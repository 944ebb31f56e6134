"""One row of a transfer matrix: crafted on a source or read from disk, judged by all targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.jobs import class_logits
from interaction_train.attacks.run import run_attack
from interaction_train.attacks.transfer.rates import Outcome, TransferRate
from interaction_train.errors import InputError, checked_images

Predict = Callable[[Tensor], Tensor]
"""Images ``(B, ...)`` → the classes that the T targets predict, ``(B, T)`` int64."""


@contextmanager
def counted_passes(network: nn.Module) -> Iterator[Counter[str]]:
    """Count the rows ``forwards`` of every call of a network, and ``backwards`` of its logits.

    The members of an :class:`Ensemble` are counted one by one. Calls of a part of the network, and
    calls under ``torch.compile``, are not seen.
    """
    passes: Counter[str] = Counter()

    def count(_: nn.Module, __: Any, logits: Any) -> None:
        if isinstance(logits, Tensor):
            rows = len(logits)
            passes.update(forwards=rows)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: passes.update(backwards=rows))

    with ExitStack() as stack:
        for member in network.members if isinstance(network, Ensemble) else [network]:
            stack.callback(member.register_forward_hook(count).remove)
        yield passes


@dataclass
class Row:
    """An attack on a source, of which ``steps`` steps are looked at, and its outcomes so far."""

    source: str
    name: str
    eps: float | None
    network: nn.Module
    attack: Attack
    steps: int
    rate: TransferRate

    def craft(self, x: Tensor, y: Tensor, predict: Predict, seed: int) -> tuple[Tensor, Outcome]:
        """Adversarial examples of a batch, and how the targets take them."""
        at_step: list[Tensor] = []
        attack: Any = self.attack
        if self.steps:
            attack.on_step = lambda number, adversarial: at_step.append(adversarial.clone())
        try:
            with named(self.name, self.source), counted_passes(self.network) as passes:
                adversarial, aims = run_attack(attack, x, y, seed=seed)
        finally:
            if self.steps:
                attack.on_step = None
        adversarial = checked_images(adversarial, f"attacks.{self.name}, its images")
        wanted = (y if aims is None else aims).unsqueeze(1)
        found = predict(adversarial)
        reached = [(predict(images) == wanted) == (aims is not None) for images in at_step]
        return adversarial, Outcome(
            fooled=found != y.unsqueeze(1),
            hit=None if aims is None else found == wanted,
            at_step=torch.stack(reached, 1) if reached else None,
            size=(adversarial.float() - x.float()).abs().flatten(1).amax(1),
            forwards=passes["forwards"] / len(x),
            backwards=passes["backwards"] / len(x),
        )


@contextmanager
def named(attack: str, source: str) -> Iterator[None]:
    """Errors in here say which attack on which network they are about."""
    try:
        yield
    except InputError as error:
        where = f"attacks.{attack} on {source}, {error.argument}"
        raise InputError(where, error.got, error.expected) from error


def predictions(networks: Mapping[str, nn.Module], x: Tensor) -> Tensor:
    """The classes that T networks predict for images ``(B, ...)``: ``(B, T)`` int64."""
    found = (class_logits(net, x, f"networks.{name}") for name, net in networks.items())
    return torch.stack([logits.argmax(1) for logits in found], 1)
