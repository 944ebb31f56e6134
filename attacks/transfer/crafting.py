"""One row of a transfer matrix: crafted on a source or read from disk, judged by all targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.jobs import class_logits
from interaction_train.attacks.run import run_attack
from interaction_train.attacks.sets.dataset import AdversarialSet
from interaction_train.attacks.transfer.rates import Outcome, TransferRate
from interaction_train.errors import InputError, checked_classes, checked_images, checked_labels
from interaction_train.sampling.random import sample_hash

_SET_BATCH = 128  # images of a set predicted at once

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


def count_classes(networks: Mapping[str, nn.Module], x: Tensor) -> int:
    """The number of classes that all networks have."""
    widths = {n: class_logits(net, x, f"networks.{n}").shape[1] for n, net in networks.items()}
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{name} with {count}" for name, count in widths.items())
        raise InputError("networks", found, "networks with the same number of classes")
    return next(iter(widths.values()))


def judge_set(
    name: str,
    found: AdversarialSet,
    networks: Mapping[str, nn.Module],
    rate: TransferRate,
    classes: int,
    part: Sequence[int],
) -> None:
    """Measure how networks take the examples of a set that ``part`` lists."""
    where = f"adversarial_sets.{name}"
    images, clean, targets = found.images, found.clean, found.targets
    # As the networks' weights are, which half precision converts.
    dtype = next((p.dtype for net in networks.values() for p in net.parameters()), torch.float32)
    for piece in torch.as_tensor(part).split(_SET_BATCH):
        if not len(piece):
            continue
        y = checked_labels(found.labels[piece], len(piece), f"{where}, labels").to(rate.device)
        checked_classes(y, classes, f"{where}, labels")
        known = x = checked_images(images[piece].to(rate.device, dtype), f"{where}, images")
        seen, right, size = predictions(networks, x), None, None
        if clean is not None:
            known = checked_images(clean[piece].to(rate.device, dtype), f"{where}, clean images")
            right = predictions(networks, known) == y.unsqueeze(1)
            size = (x - known).abs().flatten(1).amax(1)
        hit = None if targets is None else seen == targets[piece].to(y).unsqueeze(1)
        rate.update(sample_hash(known, y), Outcome(seen != y.unsqueeze(1), right, hit, size=size))
