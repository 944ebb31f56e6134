"""How often adversarial examples fool networks: outcomes per sample, counts, and cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor

from interaction_train.metrics.base import RowMetric


@dataclass(frozen=True)
class Proportion:
    """So many successes out of so many trials; without trials all numbers below are NaN.

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
    """What became of a batch of B samples at T targets; None and NaN where it is not known."""

    fooled: Tensor  # (B, T) bool, the adversarial example is misclassified
    right: Tensor | None = None  # (B, T) bool, the clean image is classified correctly
    hit: Tensor | None = None  # (B, T) bool, it is taken for the class aimed at
    at_step: Tensor | None = None  # (B, S, T) bool, `hit` (untargeted: `fooled`) after each step
    size: Tensor | None = None  # (B,), the perturbation's largest absolute pixel value
    forwards: float = math.nan  # rows forward per sample that crafting took
    backwards: float = math.nan  # the same, backward


class TransferRate(RowMetric):
    """How often one attack's adversarial examples fool each of several targets, each sample once.

    ``compute()`` returns, per target ``(T,)`` int64: ``fooled``; ``known`` (clean) samples,
    ``correct`` of these and ``fooled_correct`` of those; ``aimed``, those with a class aimed at,
    and ``hit`` of these; ``best_step``, how many of the correct (untargeted) or aimed ones an
    attack succeeds with at the step that is best for the others (:func:`best_step`), and
    ``best_step_at``, that step's mean (NaN without steps). Scalars ``images``, the means
    ``forwards`` and ``backwards``, and ``linf``, the largest size.

    Args:
        targets: the number T of target networks.
        steps: the number S of steps that :class:`Outcome`'s ``at_step`` has; 0 for none.
        kwargs: those of ``torchmetrics.Metric``.
    """

    row_dtype = torch.float32  # devices may lack more, and the rows hold 0, 1 and counts

    def __init__(self, targets: int, steps: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.targets, self.steps = targets, steps

    @property
    def row_shape(self) -> tuple[int, ...]:
        # Forwards, backwards, size; per target fooled, right, hit, and success after each step.
        return (3 + (3 + self.steps) * self.targets,)

    def _parts(self, rows: Tensor) -> Sequence[Tensor]:
        return rows.tensor_split([3 + k * self.targets for k in range(4)], 1)

    def update(self, content: Tensor, outcome: Outcome) -> None:
        """Add the outcomes of a batch with the content hashes ``(B,)`` int64."""
        size, device = (len(content), *self.row_shape), outcome.fooled.device
        rows = torch.full(size, torch.nan, dtype=self.row_dtype, device=device)
        own, *judged = self._parts(rows)
        own[:, 0], own[:, 1] = outcome.forwards, outcome.backwards
        known = [outcome.size, outcome.fooled, outcome.right, outcome.hit, outcome.at_step]
        for part, value in zip([own[:, 2], *judged], known, strict=True):
            if value is not None:
                part.copy_(value.flatten(1) if value.dim() > 1 else value)
        self.add(content, rows)

    def statistics(self, rows: Tensor) -> dict[str, Tensor]:
        own, fooled, right, hit, at_step = self._parts(rows)
        correct, aimed = right == 1, ~hit.isnan()
        counts = {
            "fooled": fooled,
            "known": ~right.isnan(),
            "correct": correct,
            "fooled_correct": (fooled == 1) & correct,
            "aimed": aimed,
            "hit": hit == 1,
        }
        result = {name: value.sum(0).long() for name, value in counts.items()}
        result["best_step"] = torch.zeros_like(result["fooled"])
        result["best_step_at"] = rows.new_full((self.targets,), torch.nan)
        if at_step.shape[1]:
            counted = torch.where(hit.isnan(), correct, aimed)
            success, chosen = best_step(at_step.unflatten(1, (-1, self.targets)) == 1, counted)
            result["best_step"] = (success & counted).sum(0)
            result["best_step_at"] = torch.where(counted, chosen.to(rows), torch.nan).nanmean(0)
        result["images"] = torch.tensor(len(rows), device=rows.device)
        result["forwards"], result["backwards"], _ = own.mean(0)
        result["linf"] = own[:, 2].max() if len(own) else own.new_tensor(torch.nan)
        return result


def best_step(at_step: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Success at the best step, chosen for every sample on all the others (leave one out).

    As in Wang et al. (ICLR 2021, Sec. 4); of equally good steps the last. From success
    ``(B, S, T)`` bool after every step and the samples ``(B, T)`` bool that the choice is made on:
    success at the chosen step, and the step from 1, ``(B, T)``.
    """
    own = (at_step & counted.unsqueeze(1)).long()
    others = own.sum(0) - own
    chosen = others.shape[1] - 1 - others.flip(1).argmax(1)
    return at_step.gather(1, chosen.unsqueeze(1)).squeeze(1), chosen + 1


@dataclass(frozen=True)
class TransferCell:
    """One attack on one source, measured at one target; None is what is not known."""

    source: str | None  # the attacked network's name; None for adversarial sets from disk
    attack: str  # its name, or the set's
    eps: float | None  # bound on the perturbation
    target: str  # the name of the network that is to be fooled
    white_box: bool  # the target is the source, or part of it
    is_targeted: bool  # the attack aims at classes
    images: int  # number of samples
    clean: Proportion  # correct predictions of the target on clean images
    fooled: Proportion  # wrong predictions on adversarial examples, of all samples
    fooled_correct: Proportion  # the same of samples that are classified correctly while clean
    targeted: Proportion  # predictions of the class aimed at; no trials for untargeted attacks
    best_step: Proportion  # like `success`, at the step that is best for all other samples
    best_step_at: float | None  # that step, in the mean over samples
    forwards: float | None  # rows forward through the source per image
    backwards: float | None  # the same, backward
    linf: float | None  # the largest absolute pixel value of all perturbations

    @property
    def success(self) -> Proportion:
        """What the attack is after: ``targeted`` where it aims, else ``fooled_correct``."""
        return self.targeted if self.is_targeted else self.fooled_correct

    @property
    def title(self) -> str:
        """The attack's name, marked where it aims at classes."""
        return f"{self.attack} (targeted)" if self.is_targeted else self.attack

    def record(self) -> dict[str, Any]:
        """A flat dictionary, with a proportion's counts, rate and interval; None of nothing."""
        flat: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Proportion):
                rate, low, high = map(_known, (value.rate, *value.interval))
                flat |= {f"{name}_count": value.successes, f"{name}_of": value.total}
                flat |= {f"{name}_rate": rate, f"{name}_low": low, f"{name}_high": high}
            else:
                flat[name] = value
        return flat


def transfer_cells(
    counts: dict[str, Tensor], targets: Sequence[str], white_box: Sequence[bool], **same: Any
) -> list[TransferCell]:
    """The cells of one row, from a :class:`TransferRate`'s counts and what they share."""
    # torchmetrics turns the counts of a single target into scalars.
    plain = {name: count.reshape(-1).tolist() for name, count in counts.items()}
    images = int(plain.pop("images")[0])
    same |= {name: _known(plain.pop(name)[0]) for name in ("forwards", "backwards", "linf")}
    cells = []
    for target, white, *values in zip(targets, white_box, *plain.values(), strict=True):
        at = dict(zip(plain, values, strict=True))
        best_at = _known(at["best_step_at"])
        trials = 0 if best_at is None else at["aimed" if same["is_targeted"] else "correct"]
        cells.append(
            TransferCell(
                target=target,
                white_box=white,
                images=images,
                clean=Proportion(at["correct"], at["known"]),
                fooled=Proportion(at["fooled"], images),
                fooled_correct=Proportion(at["fooled_correct"], at["correct"]),
                targeted=Proportion(at["hit"], at["aimed"]),
                best_step=Proportion(at["best_step"], trials),
                best_step_at=best_at,
                **same,
            )
        )
    return cells


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
