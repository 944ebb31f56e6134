"""Which classes a targeted attack aims at."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchattacks.attack import Attack

from interaction_train.errors import InputError, checked_classes
from interaction_train.game.evaluation import evaluation_mode, without_grad
from interaction_train.sampling.random import Draws, sample_hash

Targets = Literal["random", "least_likely"] | list[int]
"""``"random"``: any class but the label; ``"least_likely"``: of these, the attacked network's
smallest logit; a list: one of these classes at random, never the label."""


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
        InputError: an attack that cannot aim; on a call, classes that the network does not have, or
            a list of one class and a sample of that class.
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
