"""How well adversarial examples transfer: outcomes per sample, and statistics of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interaction_train.attacks.proportion import Proportion
from interaction_train.errors import InputError, refuse_probabilities
from interaction_train.game.evaluation import eval_logits
from interaction_train.metrics.base import RowMetric


class Outcome(NamedTuple):
    """What became of a batch of B samples at T targets.

    Attributes:
        fooled: ``(B, T)`` bool, the adversarial example is misclassified.
        right: ``(B, T)`` bool, the clean image is classified correctly; None where it is not known.
        hit: ``(B, T)`` bool, the adversarial example is taken for the class that was aimed at; None
            for untargeted attacks.
        at_step: ``(B, S, T)`` bool, ``fooled`` after each of S steps; None where not looked at.
        size: ``(B,)``, the perturbation's largest absolute pixel value; None where it is not known.
        forwards: rows forward per sample that crafting took; NaN where it is not known.
        backwards: the same, backward.
    """

    fooled: Tensor
    right: Tensor | None = None
    hit: Tensor | None = None
    at_step: Tensor | None = None
    size: Tensor | None = None
    forwards: float = math.nan
    backwards: float = math.nan


class TransferRate(RowMetric):
    """How often one attack's adversarial examples fool each of several targets.

    Samples count once, however often they come, and no result depends on batches, their order or
    the number of processes. ``compute()`` returns the counts of :func:`transfer_counts`.

    Args:
        targets: the number T of target networks.
        steps: the number S of steps that :attr:`Outcome.at_step` has; 0 for none.
        only_jointly_correct: condition on all targets classifying the clean image correctly, not
            each target on itself.
        kwargs: those of ``torchmetrics.Metric``.
    """

    def __init__(
        self, targets: int, steps: int = 0, only_jointly_correct: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.targets, self.steps = targets, steps
        self.only_jointly_correct = only_jointly_correct

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (3 + (3 + self.steps) * self.targets,)

    def statistics(self, rows: Tensor) -> dict[str, Tensor]:
        return transfer_counts(rows, self.targets, self.only_jointly_correct)

    def update(self, content: Tensor, outcome: Outcome) -> None:
        """Add a batch.

        Args:
            content: ``(B,)`` int64, equal for equal samples
                (:func:`~interaction_train.sampling.random.sample_hash`).
            outcome: what became of it.
        """
        unknown = torch.full_like(outcome.fooled, torch.nan, dtype=torch.float64)
        one = unknown[:, :1]
        parts = [
            torch.full_like(one, outcome.forwards),
            torch.full_like(one, outcome.backwards),
            one if outcome.size is None else outcome.size.double().unsqueeze(1),
            outcome.fooled.double(),
            unknown if outcome.right is None else outcome.right.double(),
            unknown if outcome.hit is None else outcome.hit.double(),
        ]
        if outcome.at_step is not None:
            parts.append(outcome.at_step.flatten(1).double())
        self.add(content, torch.cat(parts, 1))


def transfer_counts(
    rows: Tensor, targets: int, only_jointly_correct: bool = False
) -> dict[str, Tensor]:
    """Count successes and what they are successes of.

    Args:
        rows: ``(B, 3 + (3 + S)·T)`` float64: forwards, backwards, size, then per target fooled,
            right, hit, and fooled after each of S steps; NaN where unknown.
        targets: T.
        only_jointly_correct: whether ``correct`` counts samples that all targets get right.

    Returns:
        per target ``(T,)`` int64: ``fooled``; ``known``, how many samples are known clean, and
        ``right`` of these; ``correct``, how many the conditional rate is about, and
        ``fooled_correct`` of these; ``aimed``, how many an attack aimed at a class for, and ``hit``
        of these; ``best_step``, how many of the correct ones are fooled at the step that is best
        for the others (:func:`best_step`). Per target ``best_step_at``, that step's mean over the
        correct samples (NaN without steps). Scalars ``images``, the means ``forwards`` and
        ``backwards``, and ``linf``, the largest size.
    """
    own, fooled, right, hit, at_step = rows.tensor_split(
        [3, 3 + targets, 3 + 2 * targets, 3 + 3 * targets], dim=1
    )
    correct = right == 1
    if only_jointly_correct:
        correct = correct.all(1, keepdim=True).expand_as(correct)
    counts = {
        "fooled": fooled,
        "known": ~right.isnan(),
        "right": right == 1,
        "correct": correct,
        "fooled_correct": (fooled == 1) & correct,
        "aimed": ~hit.isnan(),
        "hit": hit == 1,
    }
    result = {name: value.sum(0).long() for name, value in counts.items()}
    result["best_step"] = torch.zeros_like(result["fooled"])
    result["best_step_at"] = torch.full_like(result["fooled"], torch.nan, dtype=torch.float64)
    if at_step.shape[1]:
        success, chosen = best_step(at_step.unflatten(1, (-1, targets)) == 1, correct)
        result["best_step"] = (success & correct).sum(0)
        where = torch.where(correct, chosen.double(), torch.nan)
        result["best_step_at"] = where.nanmean(0)
    result["images"] = torch.tensor(len(rows), device=rows.device)
    result["forwards"], result["backwards"], _ = own.mean(0)
    result["linf"] = own[:, 2].max() if len(own) else own.new_tensor(torch.nan)
    return result


def best_step(at_step: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Success at the best step, chosen for every sample on all the others (leave one out).

    As the paper of the IR attack chooses it (Wang et al., ICLR 2021, Sec. 4). Of steps that are
    equally good for the others the last is taken.

    Args:
        at_step: ``(B, S, T)`` bool, success after every step.
        counted: ``(B, T)`` bool, the samples that the choice is made on.

    Returns:
        success ``(B, T)`` bool at the chosen step, and the step ``(B, T)``, from 1.
    """
    own = (at_step & counted.unsqueeze(1)).long()
    others = own.sum(0) - own
    chosen = others.shape[1] - 1 - others.flip(1).argmax(1)
    return at_step.gather(1, chosen.unsqueeze(1)).squeeze(1), chosen + 1


@dataclass(frozen=True)
class TransferCell:
    """One attack on one source, measured at one target.

    Args:
        source: the attacked network's name; None for adversarial sets from disk.
        attack: the attack's name, or the set's.
        eps: bound on the perturbation; None where not known.
        target: the name of the network that is to be fooled.
        white_box: the target is the source, or part of it.
        images: number of samples.
        clean: correct predictions of the target on clean images.
        fooled: wrong predictions on adversarial examples, of all samples.
        fooled_correct: wrong predictions on adversarial examples of the samples that are classified
            correctly while clean: the attack success rate.
        targeted: predictions of the class that was aimed at; no trials for untargeted attacks.
        best_step: like ``fooled_correct``, at the step that is best for all other samples; no
            trials where steps were not looked at.
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

    def record(self) -> dict[str, Any]:
        """A flat dictionary: every proportion becomes its two counts, its rate and its interval.

        A rate of nothing is None.
        """
        flat: dict[str, Any] = {}
        for name in asdict(self):
            value = getattr(self, name)
            if isinstance(value, Proportion):
                low, high = value.interval
                flat[f"{name}_count"], flat[f"{name}_of"] = value.successes, value.total
                flat[f"{name}_rate"], flat[f"{name}_low"], flat[f"{name}_high"] = (
                    _known(number) for number in (value.rate, low, high)
                )
            else:
                flat[name] = value
        return flat


def transfer_cells(
    counts: dict[str, Tensor],
    targets: Sequence[str],
    white_box: Sequence[bool],
    *,
    source: str | None,
    attack: str,
    eps: float | None,
    with_steps: bool,
) -> list[TransferCell]:
    """The cells of one row, out of :func:`transfer_counts`.

    Args:
        counts: as computed.
        targets: the targets' names.
        white_box: one per target.
        source: as in :class:`TransferCell`.
        attack: as there.
        eps: as there.
        with_steps: whether steps were looked at.
    """
    # torchmetrics turns the counts of a single target into scalars.
    counts = {name: count.reshape(-1) for name, count in counts.items()}
    images = int(counts["images"])
    cells = []
    for t, target in enumerate(targets):

        def of(hits: str, trials: str | int, t: int = t) -> Proportion:
            total = trials if isinstance(trials, int) else int(counts[trials][t])
            return Proportion(int(counts[hits][t]), total)

        cells.append(
            TransferCell(
                source=source,
                attack=attack,
                eps=eps,
                target=target,
                white_box=white_box[t],
                images=images,
                clean=of("right", "known"),
                fooled=of("fooled", images),
                fooled_correct=of("fooled_correct", "correct"),
                targeted=of("hit", "aimed"),
                best_step=of("best_step", "correct") if with_steps else Proportion(0, 0),
                best_step_at=_known(counts["best_step_at"][t]),
                forwards=_known(counts["forwards"]),
                backwards=_known(counts["backwards"]),
                linf=_known(counts["linf"]),
            )
        )
    return cells


def predicted(network: nn.Module, x: Tensor, name: str) -> Tensor:
    """The classes that a network predicts.

    Args:
        network: ``(B, ...)`` → logits ``(B, classes)``; its modes are put back.
        x: images ``(B, ...)``.
        name: what errors call the network.

    Returns:
        ``(B,)`` int64.

    Raises:
        InputError: an output that is not logits (:func:`class_logits`).
    """
    return class_logits(network, x, name).argmax(1)


def class_logits(network: nn.Module, x: Tensor, name: str) -> Tensor:
    """The logits of a network in eval, without gradient, ``(B, classes)`` of at least two.

    Raises:
        InputError: an output of another shape, NaN, or probabilities.
    """
    logits = eval_logits(network, x, name)
    if logits.shape[1] < 2:
        raise InputError(name, f"an output of {tuple(logits.shape)}", "at least 2 classes")
    refuse_probabilities(logits, name)
    return logits


def _known(number: Tensor | float) -> float | None:
    return None if math.isnan(number) else float(number)
