"""What jobs that craft or measure share: batches, attacks to be made, what these aim at."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.run import AttackFactory, attack_parts, set_epsilon, warn_of_bound
from interaction_train.errors import (
    InputError,
    checked_classes,
    checked_images,
    checked_labels,
    refuse_probabilities,
)
from interaction_train.game.evaluation import Network, eval_logits, evaluation_mode, without_grad
from interaction_train.sampling.random import Draws, sample_hash

Targets = Literal["random", "least_likely"] | list[int]
"""``"random"``: any class but the label; ``"least_likely"``: of these, the attacked network's
smallest logit; a list: one of these classes at random, never the label."""


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
    steps: int | None = None,
) -> Attack:
    """An attack on a network; what is None stays as the factory makes it.

    ``epsilon`` as in :func:`~interaction_train.attacks.run.set_epsilon`; ``targets`` are drawn by
    ``seed``; ``steps`` are those of it and of attacks inside of it, where they have steps.

    Raises:
        InputError: no attack is made, or one without a bound or targets to set.
    """
    check_targets("targets", targets)
    attack = factory(network)
    if not callable(attack) or not hasattr(attack, "model"):
        raise InputError("attack", type(attack).__name__, "an attack of torchattacks' kind")
    if epsilon is not None:
        set_epsilon(attack, epsilon)
    aim(attack, targets, seed)
    for part in () if steps is None else attack_parts(attack):
        if hasattr(part, "steps"):
            part.steps = steps
    warn_of_bound(attack)
    return attack


def refuse_normalization(attack: Attack) -> None:
    """Raise InputError for an attack that expects normalised images, not those in [0, 1]."""
    if getattr(attack, "_normalization_applied", None):
        got = f"{type(attack).__name__} on normalised images (set_normalization_used)"
        raise InputError("attack", got, "one on images in [0, 1], the network normalising them")


def check_targets(argument: str, targets: Targets | None) -> None:
    """Raise InputError for another word, or anything but a list of classes from 0 on."""
    if targets in (None, "random", "least_likely"):
        return
    classes = targets if isinstance(targets, list) else []
    if not classes or not all(type(c) is int and c >= 0 for c in classes):
        raise InputError(argument, repr(targets), "'random', 'least_likely' or a list of classes")


def aim(attack: Attack, targets: Targets | None, seed: int = 0) -> None:
    """Make an attack aim at the classes that a strategy names; None leaves it as it is.

    A sample's target depends on its content and the seed alone; choosing takes one forward pass.

    Raises:
        InputError: an attack that cannot aim; on a call, unknown classes, or none but the label.
    """
    if targets is None:
        return

    def choose(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        with evaluation_mode(attack.model), without_grad():
            logits = attack.get_logits(inputs)
        labels = logits.argmax(1) if labels is None else labels
        classes = torch.arange(logits.shape[1], device=logits.device)
        allowed = labels.unsqueeze(1) != classes
        if targets == "least_likely":
            return logits.masked_fill(~allowed, torch.inf).argmin(1)
        if targets != "random":
            wanted = torch.tensor(targets, device=logits.device)
            checked_classes(wanted, len(classes), "targets")
            allowed = allowed & torch.isin(classes, wanted)
        if not bool(allowed.any(1).all()):
            other = "another class for them too: nothing aims at the label"
            raise InputError("targets", f"{targets} for images of that class", other)
        draws = Draws(sample_hash(inputs, labels), seed, "attack").uniform("targets", len(classes))
        return draws.masked_fill(~allowed, -1).argmax(1)

    try:
        attack.set_mode_targeted_by_function(choose, quiet=True)
    except ValueError as error:
        name = type(attack).__name__
        raise InputError("targets", repr(targets), f"none: {name} cannot aim ({error})") from error
