"""What jobs that craft or measure have in common: batches, networks' logits, attacks to be made."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.run import AttackFactory
from interaction_train.errors import (
    InputError,
    checked_images,
    checked_labels,
    refuse_probabilities,
)
from interaction_train.game.evaluation import Network, eval_logits


def checked_batch(batch: Any) -> tuple[Tensor, Tensor]:
    """Images ``(B, ...)`` in [0, 1] and labels ``(B,)`` int64 of a batch, or InputError."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        parts = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise InputError("batch", type(batch).__name__ + parts, "(images, labels)")
    images = checked_images(batch[0])
    return images, checked_labels(batch[1], len(images))


def checked_classes(labels: Tensor, classes: int, argument: str) -> None:
    """Refuse labels that are no classes of the networks."""
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        got = f"{classes} classes and labels from {low} to {high}"
        raise InputError(argument, got, "labels from 0 on, below the number of classes")


def class_logits(network: Network, x: Tensor, argument: str) -> Tensor:
    """Logits in eval, without gradient, ``(B, classes)``; refuses NaN, probabilities, one class."""
    logits = eval_logits(network, x, argument)
    if logits.shape[1] < 2:
        heads = "two classes or more: a binary head needs two logits, such as (0, z)"
        raise InputError(argument, f"an output of {tuple(logits.shape)}", heads)
    refuse_probabilities(logits, argument)
    return logits


def checked_factory(argument: str, factory: Any) -> AttackFactory:
    """Something that makes an attack on a network; refuses an attack that is made already."""
    made = isinstance(factory, Attack)
    if made or not callable(factory):
        kind = type(factory).__name__
        got = f"an attack that is made already, {kind}" if made else kind
        raise InputError(argument, got, "a factory, such as lambda network: PGD(network, eps=0.1)")
    return factory


def make_attack(factory: AttackFactory, network: nn.Module) -> Attack:
    """The factory's attack on a network; refuses one that expects normalised images."""
    attack = factory(network)
    if not isinstance(attack, Attack):
        raise InputError("attack", type(attack).__name__, "an attack of torchattacks' kind")
    if attack._normalization_applied:
        got = f"{type(attack).__name__} on normalised images (set_normalization_used)"
        raise InputError("attack", got, "one on images in [0, 1], the network normalising them")
    return attack
