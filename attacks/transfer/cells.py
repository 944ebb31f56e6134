"""The cells of a transfer matrix: one attack on one source, measured at one target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from interaction_train.attacks.transfer.rates import Proportion


@dataclass(frozen=True)
class TransferCell:
    """One attack on one source, measured at one target.

    Args:
        source: the attacked network's name; None for adversarial sets from disk.
        attack: the attack's name, or the set's.
        eps: bound on the perturbation; None where not known.
        target: the name of the network that is to be fooled.
        white_box: the target is the source, or part of it.
        is_targeted: whether the attack aims at classes.
        images: number of samples.
        clean: correct predictions of the target on clean images.
        fooled: wrong predictions on adversarial examples, of all samples.
        fooled_correct: wrong predictions on adversarial examples of the samples that are classified
            correctly while clean: the attack success rate.
        targeted: predictions of the class that was aimed at, of all samples; no trials for
            untargeted attacks.
        best_step: like ``success``, at the step that is best for all other samples; no trials where
            steps were not looked at.
        best_step_at: that step, in the mean over samples; None where steps were not looked at.
        forwards: rows forward through the source per image; None where not known.
        backwards: rows backward through the source per image; None where not known.
        linf: the largest absolute pixel value of all perturbations; None where not known.
    """

    source: str | None
    attack: str
    eps: float | None
    target: str
    white_box: bool
    is_targeted: bool
    images: int
    clean: Proportion
    fooled: Proportion
    fooled_correct: Proportion
    targeted: Proportion
    best_step: Proportion
    best_step_at: float | None
    forwards: float | None
    backwards: float | None
    linf: float | None

    @property
    def success(self) -> Proportion:
        """What the attack is after: ``targeted`` where it aims, else ``fooled_correct``."""
        return self.targeted if self.is_targeted else self.fooled_correct

    def record(self) -> dict[str, Any]:
        """A flat dictionary: every proportion becomes its two counts, its rate and its interval.

        A rate of nothing is None.
        """
        flat: dict[str, Any] = {}
        parts = ("count", "of", "rate", "low", "high")
        for name in asdict(self):
            value = getattr(self, name)
            if not isinstance(value, Proportion):
                flat[name] = value
                continue
            numbers = (value.rate, *value.interval)
            flat |= zip(
                (f"{name}_{part}" for part in parts),
                (value.successes, value.total, *map(_known, numbers)),
                strict=True,
            )
        return flat


def transfer_cells(
    counts: dict[str, Tensor], targets: Sequence[str], white_box: Sequence[bool], **same: Any
) -> list[TransferCell]:
    """The cells of one row.

    Args:
        counts: those of :func:`~interaction_train.attacks.transfer.rates.transfer_counts`.
        targets: the targets' names.
        white_box: one per target.
        same: what all cells share: ``source``, ``attack``, ``eps`` and ``is_targeted``.
    """
    # torchmetrics turns the counts of a single target into scalars.
    plain = {name: count.reshape(-1).tolist() for name, count in counts.items()}
    costs: dict[str, Any] = {k: _known(plain[k][0]) for k in ("forwards", "backwards", "linf")}
    images = int(plain["images"][0])
    cells = []
    for t, (target, white) in enumerate(zip(targets, white_box, strict=True)):
        at = {name: values[t] for name, values in plain.items() if len(values) == len(targets)}
        best_at = _known(at["best_step_at"])
        trials = 0 if best_at is None else at["aimed" if same["is_targeted"] else "correct"]
        cells.append(
            TransferCell(
                target=target,
                white_box=white,
                images=images,
                clean=Proportion(at["right"], at["known"]),
                fooled=Proportion(at["fooled"], images),
                fooled_correct=Proportion(at["fooled_correct"], at["correct"]),
                targeted=Proportion(at["hit"], at["aimed"]),
                best_step=Proportion(at["best_step"], trials),
                best_step_at=best_at,
                **costs,
                **same,
            )
        )
    return cells


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
