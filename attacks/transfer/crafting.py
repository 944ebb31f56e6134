"""One row of a transfer matrix: an attack on a source, run on batches and judged by all targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.jobs import make_attack, refuse_normalization
from interaction_train.attacks.run import AttackFactory, attack_parts, run_attack
from interaction_train.attacks.targets import Targets
from interaction_train.attacks.transfer.passes import PassCounter
from interaction_train.attacks.transfer.rates import Outcome, TransferRate
from interaction_train.errors import InputError, checked_images

Predict = Callable[[Tensor], Tensor]
"""Images ``(B, ...)`` → the classes that the T targets predict, ``(B, T)`` int64."""


@dataclass
class Row:
    """An attack on a source, of which so many steps are looked at, and its outcomes so far."""

    source: str
    name: str
    eps: float | None
    network: nn.Module
    attack: Attack
    steps: int
    rate: TransferRate

    @property
    def title(self) -> str:
        return f"{self.name} on {self.source}"

    def craft(self, x: Tensor, y: Tensor, predict: Predict, seed: int) -> tuple[Tensor, Outcome]:
        """Adversarial examples of a batch, and how the targets take them."""
        at_step: list[Tensor] = []
        attack: Any = self.attack
        if self.steps:
            attack.on_step = lambda number, adversarial: at_step.append(adversarial.clone())
        try:
            with _named(self.name, self.source), PassCounter(self.network) as passes:
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
            forwards=passes.forwards / len(x),
            backwards=passes.backwards / len(x),
        )


def prepared_attack(
    factory: AttackFactory,
    network: nn.Module,
    name: str,
    source: str,
    eps: float | None = None,
    steps: int | None = None,
    targets: Targets | None = None,
    seed: int = 0,
) -> Attack:
    """An attack on a network, with another bound (alpha/eps stays), number of steps or aim.

    The number is that of attacks inside of it too; what has no steps stays as it is.

    Raises:
        InputError: what is no attack, or one that has no bound or cannot aim; it names both.
    """
    with _named(name, source):
        attack = make_attack(factory, network, eps, targets, seed)
        refuse_normalization(attack)
        for part in attack_parts(attack):
            if steps is not None and hasattr(part, "steps"):
                part.steps = steps
    return attack


@contextmanager
def _named(attack: str, source: str) -> Iterator[None]:
    """Errors in here say which attack on which network they are about."""
    try:
        yield
    except InputError as error:
        where = f"attacks.{attack} on {source}, {error.argument}"
        raise InputError(where, error.got, error.expected) from error
