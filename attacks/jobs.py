"""What jobs that craft or measure have in common: batches, networks' logits, attacks to be made."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.run import AttackFactory, set_epsilon, warn_of_bound
from interaction_train.attacks.targets import Targets, aim, check_targets
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


def class_logits(network: Network, x: Tensor, argument: str) -> Tensor:
    """Logits in eval, without gradient, ``(B, classes)``; refuses NaN, probabilities, one class."""
    logits = eval_logits(network, x, argument)
    if logits.shape[1] < 2:
        heads = "two classes or more: a binary head needs two logits, such as (0, z)"
        raise InputError(argument, f"an output of {tuple(logits.shape)}", heads)
    refuse_probabilities(logits, argument)
    return logits


def check_factory(argument: str, factory: Any) -> None:
    """Raise InputError, which says what to pass, for what makes no attack."""
    made = isinstance(factory, Attack)
    if made or not callable(factory):
        kind = type(factory).__name__
        got = f"an attack that is made already, {kind} itself" if made else kind
        raise InputError(argument, got, "a factory, such as lambda network: PGD(network, eps=0.1)")


def make_attack(
    factory: AttackFactory,
    network: nn.Module,
    epsilon: float | None = None,
    targets: Targets | None = None,
    seed: int = 0,
) -> Attack:
    """An attack on a network.

    Args:
        factory: what makes it.
        network: the network.
        epsilon: its bound (:func:`~interaction_train.attacks.run.set_epsilon`); None: its own.
        targets: what it aims at; None: as the factory says.
        seed: seed of the targets' draws.

    Raises:
        InputError: the factory makes no attack, or one without a bound or targets to set.
    """
    check_targets("targets", targets)
    attack = factory(network)
    if not callable(attack) or not hasattr(attack, "model"):
        raise InputError("attack", type(attack).__name__, "an attack of torchattacks' kind")
    if epsilon is not None:
        set_epsilon(attack, epsilon)
    aim(attack, targets, seed)
    warn_of_bound(attack)
    return attack


def refuse_normalization(attack: Attack) -> None:
    """Raise InputError for an attack that expects normalised images, not those in [0, 1]."""
    if getattr(attack, "_normalization_applied", None):
        got = f"{type(attack).__name__} on normalised images (set_normalization_used)"
        raise InputError("attack", got, "one on images in [0, 1], the network normalising them")
