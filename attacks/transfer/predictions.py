"""What several networks say about the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from interaction_train.attacks.jobs import class_logits
from interaction_train.attacks.sets.dataset import AdversarialSet
from interaction_train.attacks.transfer.rates import Outcome, TransferRate
from interaction_train.errors import InputError, checked_classes, checked_images, checked_labels
from interaction_train.sampling.random import sample_hash

_SET_BATCH = 128  # images of a set predicted at once


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
    images, clean, labels, targets = found.images, found.clean, found.labels, found.targets
    # As the networks' weights are, which half precision converts.
    dtype = next((p.dtype for net in networks.values() for p in net.parameters()), torch.float32)
    for piece in torch.as_tensor(part).split(_SET_BATCH):
        if not len(piece):
            continue
        y = checked_labels(labels[piece], len(piece), f"{where}, labels").to(rate.device)
        checked_classes(y, classes, f"{where}, labels")
        known = x = checked_images(images[piece].to(rate.device, dtype), f"{where}, images")
        found_classes = predictions(networks, x)
        outcome = Outcome(found_classes != y.unsqueeze(1))
        if targets is not None:
            aims = targets[piece].to(y)
            outcome = outcome._replace(hit=found_classes == aims.unsqueeze(1))
        if clean is not None:
            known = checked_images(clean[piece].to(rate.device, dtype), f"{where}, clean images")
            outcome = outcome._replace(
                right=predictions(networks, known) == y.unsqueeze(1),
                size=(x - known).abs().flatten(1).amax(1),
            )
        rate.update(sample_hash(known, y), outcome)
