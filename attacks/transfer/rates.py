"""How often adversarial examples fool networks: outcomes per sample, and counts of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor

from interaction_train.metrics.base import RowMetric


@dataclass(frozen=True)
class Proportion:
    """So many successes out of so many trials.

    Args:
        successes: how many.
        total: out of how many; where it is 0 all numbers below are NaN.

    Examples:
        >>> none = Proportion(0, 20)
        >>> none.rate, [round(bound, 3) for bound in none.interval]
        (0.0, [0.0, 0.161])
    """

    successes: int
    total: int

    @property
    def rate(self) -> float:
        """Successes over trials, in [0, 1]."""
        return self.successes / self.total if self.total else math.nan

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927), which also holds near 0 and 1."""
        if not self.total:
            return math.nan, math.nan
        low, high = binomtest(self.successes, self.total).proportion_ci(method="wilson")
        return float(low), float(high)


class Outcome(NamedTuple):
    """What became of a batch of B samples at T targets.

    Attributes:
        fooled: ``(B, T)`` bool, the adversarial example is misclassified.
        right: ``(B, T)`` bool, the clean image is classified correctly; None where it is not known.
        hit: ``(B, T)`` bool, the adversarial example is taken for the class that was aimed at; None
            for untargeted attacks.
        at_step: ``(B, S, T)`` bool, success after each of S steps: ``hit`` of a targeted attack,
            ``fooled`` of another; None where not looked at.
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

    row_dtype = torch.float32  # devices may lack more, and the rows hold 0, 1 and counts

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
        """Add the outcomes of a batch with the content hashes ``(B,)`` int64."""
        unknown = torch.full_like(outcome.fooled, torch.nan, dtype=self.row_dtype)
        one = unknown[:, :1]
        passes = [torch.full_like(one, n) for n in (outcome.forwards, outcome.backwards)]
        size = one if outcome.size is None else outcome.size.to(one).unsqueeze(1)
        known = [outcome.fooled, outcome.right, outcome.hit]
        judged = [unknown if part is None else part.to(one) for part in known]
        steps = [] if outcome.at_step is None else [outcome.at_step.flatten(1).to(one)]
        self.add(content, torch.cat([*passes, size, *judged, *steps], 1))


def transfer_counts(
    rows: Tensor, targets: int, only_jointly_correct: bool = False
) -> dict[str, Tensor]:
    """Count successes and what they are successes of.

    Args:
        rows: ``(B, 3 + (3 + S)·T)``: forwards, backwards, size, then per target fooled, right, hit,
            and success after each of S steps; NaN where unknown.
        targets: T.
        only_jointly_correct: whether the success rates are about the samples that all targets get
            right.

    Returns:
        per target ``(T,)`` int64: ``fooled``; ``known``, how many samples are known clean, and
        ``right`` of these; ``correct``, how many the untargeted rate is about (right at the target,
        or at all of them), and ``fooled_correct`` of these; ``aimed``, how many the targeted rate
        is about (all samples that an attack aimed at a class for, or those that all targets get
        right), and ``hit`` of these; ``best_step``, how many of the correct (untargeted) or aimed
        ones an attack succeeds with at the step that is best for the others (:func:`best_step`).
        Per target ``best_step_at``, that step's mean over these samples (NaN without steps).
        Scalars ``images``, the means ``forwards`` and ``backwards``, and ``linf``, the largest
        size.
    """
    own, fooled, right, hit, at_step = rows.tensor_split(
        [3, 3 + targets, 3 + 2 * targets, 3 + 3 * targets], dim=1
    )
    correct, aimed = right == 1, ~hit.isnan()
    if only_jointly_correct:
        correct = correct.all(1, keepdim=True).expand_as(correct)
        aimed = aimed & correct
    counts = {
        "fooled": fooled,
        "known": ~right.isnan(),
        "right": right == 1,
        "correct": correct,
        "fooled_correct": (fooled == 1) & correct,
        "aimed": aimed,
        "hit": (hit == 1) & aimed,
    }
    result = {name: value.sum(0).long() for name, value in counts.items()}
    result["best_step"] = torch.zeros_like(result["fooled"])
    result["best_step_at"] = torch.full_like(result["fooled"], torch.nan, dtype=rows.dtype)
    if at_step.shape[1]:
        counted = torch.where(hit.isnan(), correct, aimed)
        success, chosen = best_step(at_step.unflatten(1, (-1, targets)) == 1, counted)
        result["best_step"] = (success & counted).sum(0)
        where = torch.where(counted, chosen.to(rows), torch.nan)
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
