"""What an attack maximises: a classification loss, alone or less the interactions in δ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.norms import normalize
from interaction_train.attacks.parts.base import Memory, Step, settings_repr
from interaction_train.errors import (
    InputError,
    checked_classes,
    checked_logits,
    one_of,
    refuse_probabilities,
)
from interaction_train.game.chunks import gradient_rows
from interaction_train.game.masked import masked_rows
from interaction_train.game.payoffs import best_rival, margin
from interaction_train.losses.reduction import GroupReduction, InteractionReduction
from interaction_train.sampling.random import Draws

Loss = Literal["cross_entropy", "margin"]
Logits = list[Tensor]  # (B, k, classes), one per network whose losses are averaged

_ROUNDING = 1e-4


class Objective:
    """A classification loss of the adversarial images, averaged over the copies that parts make.

    Args:
        loss: ``"cross_entropy"``, or ``"margin"``: the best other logit less the label's (targeted:
            the target's less the best other), whose gradient does not vanish on confident networks.
    """

    def __init__(self, loss: Loss = "cross_entropy") -> None:
        one_of("loss", loss, ("cross_entropy", "margin"))
        self.loss = loss

    __repr__ = settings_repr

    def value(self, logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
        """The loss summed over rows: logits ``(B, k, classes)``, labels ``(B,)`` → a scalar."""
        labels = labels.unsqueeze(1).expand(logits.shape[:2])
        if self.loss == "cross_entropy":
            total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        else:
            total = -margin(logits, labels).sum()
        return -total if targeted else total

    def gradient(self, problem: Problem, point: Tensor, step: Step) -> Tensor:
        """The direction of ascent at ``point`` ``(B, C, H, W)``, before parts update it."""
        return problem.refined(problem.at_copies(point.unsqueeze(1), step)[:, 0], step)


class MaskedObjective(Objective):
    """The ablation of the interaction loss: the mean over groups A of the loss at N∖A and at A.

    What :class:`InteractionObjective` gives beyond it is due to interactions (formula sheet, 16).
    """

    def __init__(
        self, loss: Loss = "cross_entropy", reduction: InteractionReduction | None = None
    ) -> None:
        super().__init__(loss)
        self.reduction = GroupReduction() if reduction is None else reduction

    def gradient(self, problem: Problem, point: Tensor, step: Step) -> Tensor:
        gradient, rows = problem.at_masks(point, self.reduction, step, problem.loss_values)
        return problem.refined(gradient / rows, step)


class InteractionObjective(Objective):
    """A classification loss less λ·Î, the interactions inside the perturbation (survey, Eq. 19).

    Î is that of an :class:`~interaction_train.losses.reduction.InteractionReduction` on the payoff
    v(S) = best other logit − label's logit with the other class frozen, per sample, to the best
    one of the full adversarial example in that step (targeted: target's − best other).

    Args:
        loss: as in :class:`Objective`. With the cross entropy, as published, Î alone decides the
            first steps on a confident network, where the gradient of the loss is near 0.
        weight: λ; 0 leaves the interactions out, at no cost.
        mix: ``"losses"``: the gradient of loss − λ·Î. ``"gradients"``: both gradients are
            normalised per sample (L1) before they are mixed.
        reduction: the form of Î; default: the paper's, 32 groups of 32 of 16 × 16 cells.
    """

    def __init__(
        self,
        loss: Loss = "margin",
        weight: float = 1.0,
        mix: Literal["losses", "gradients"] = "losses",
        reduction: InteractionReduction | None = None,
    ) -> None:
        super().__init__(loss)
        if not 0 <= weight < float("inf"):
            raise InputError("weight", weight, "a finite number, at least 0")
        one_of("mix", mix, ("losses", "gradients"))
        self.weight, self.mix = weight, mix
        self.reduction = GroupReduction() if reduction is None else reduction

    def gradient(self, problem: Problem, point: Tensor, step: Step) -> Tensor:
        if self.weight == 0:
            return super().gradient(problem, point, step)
        loss, full, rivals = problem.at_full(point, step)
        parts, rows = problem.at_masks(
            point, self.reduction, step, lambda logits: problem.utilities(logits, rivals)
        )
        # Each group has two rows, v(N∖A) and v(A); v(∅) does not depend on the perturbation.
        interaction = full - parts / (rows / 2)
        loss = problem.refined(loss, step)
        if self.mix == "gradients":
            # At δ = 0 the gradient of Î is 0, and what is computed is rounding, not to be blown up.
            sizes = [part.flatten(1).abs().sum(1) for part in (interaction, full)]
            real = (sizes[0] > _ROUNDING * sizes[1]).view(-1, *(1 for _ in full.shape[1:]))
            interaction = torch.where(real, interaction, 0)
            loss, interaction = normalize(loss, "L1"), normalize(interaction, "L1")
        return loss - self.weight * interaction


class Problem:
    """What an objective evaluates: an attack on clean images, away from labels or to targets.

    Of an ensemble that averages losses, the members are evaluated.
    """

    def __init__(self, attack: Attack, clean: Tensor, labels: Tensor) -> None:
        self.attack, self.clean, self.labels = attack, clean, labels
        self.networks: list[tuple[nn.Module, float]] = [(attack.model, 1.0)]
        if isinstance(attack.model, Ensemble) and attack.model.average == "losses":
            self.networks = list(zip(attack.model.members, attack.model.weights, strict=True))
        self._checked = False

    def step(
        self,
        number: int,
        steps: int,
        start: Tensor,
        adversarial: Tensor,
        draws: Draws,
        memory: Memory,
    ) -> tuple[Step, Tensor]:
        """A step from adversarial images ``(B, C, H, W)``, and the objective's gradient there."""
        attack = self.attack
        step = Step(
            number=number,
            steps=steps,
            clean=self.clean,
            labels=self.labels,
            start=start,
            adversarial=adversarial,
            point=adversarial,
            eps=attack.eps,
            alpha=attack.alpha,
            norm=attack.norm,
            targeted=attack.targeted,
            parts=attack.parts,
            draws=draws,
            gradients_at=self.at_copies,
            memory=memory,
        )
        for part, seen in step.by_part():
            step.point = part.lookahead(step.point, seen)
        return step, attack.objective.gradient(self, step.point, step)

    def at_copies(self, points: Tensor, step: Step) -> Tensor:
        """The loss's gradients at points ``(B, P, C, H, W)``, meaned over the parts' copies."""
        parts = [(part, seen) for part, seen in step.by_part() if part.varies]
        copies = math.prod(part.copies for part, _ in parts)

        def rows(leaf: Tensor, wanted: range) -> Tensor:
            index = torch.arange(wanted.start, wanted.stop, device=leaf.device)
            made = leaf.unsqueeze(2).expand(-1, -1, len(index), *leaf.shape[2:]).flatten(1, 2)
            index = index.repeat(leaf.shape[1])
            for part, seen in parts:
                made = part.vary(made, index % part.copies, seen)
                index = index // part.copies
            return made

        together = max(1, self._width(len(points), points.shape[1] * copies) // copies)
        found = [
            self._gradients(some, copies, rows, [self.loss_values])[0]
            for some in points.split(together, 1)
        ]
        return torch.cat(found, 1) / copies

    def at_full(self, point: Tensor, step: Step) -> tuple[Tensor, Tensor, Logits]:
        """At the full adversarial images: the loss's gradient, v(N)'s, and the frozen rivals.

        Without copies, over which the loss's is meaned, both come from one forward pass.
        """
        rivals: Logits = []
        alone = all(part.shared and part.copies == 1 for part in step.parts if part.varies)

        def utility(logits: Logits) -> Tensor:
            labels = self.labels.unsqueeze(1)
            rivals.extend(best_rival(out.detach(), labels) for out in logits)
            return self.utilities(logits, rivals)

        values = [self.loss_values, utility] if alone else [utility]
        found = self._gradients(
            point, 1, lambda leaf, _: self._changed(leaf.unsqueeze(1), step), values
        )
        loss = found[0] if alone else self.at_copies(point.unsqueeze(1), step)[:, 0]
        return loss, found[-1], rivals

    def at_masks(
        self,
        point: Tensor,
        reduction: InteractionReduction,
        step: Step,
        value: Callable[[Logits], Tensor],
    ) -> tuple[Tensor, int]:
        """The gradient of ``value`` summed over the rows N∖A and A of all groups; their number."""
        inside = reduction.groups(step.draws, reduction.players.count(self.clean.shape[1:]))
        present = torch.cat([~inside, inside], 1)

        def rows(leaf: Tensor, wanted: range) -> Tensor:
            cells = present[:, wanted.start : wanted.stop]
            return self._changed(masked_rows(leaf, self.clean, reduction.players, cells), step)

        count = present.shape[1]
        (gradient,) = self._gradients(point, count, rows, [value])
        return gradient, count

    def refined(self, gradient: Tensor, step: Step) -> Tensor:
        """The loss's gradient after the parts that refine it."""
        for part, seen in step.by_part():
            gradient = part.refine(gradient, seen)
        return gradient

    def loss_values(self, logits: Logits) -> Tensor:
        """The classification loss, summed over rows and divided by the batch size."""
        value, targeted = self.attack.objective.value, self.attack.targeted
        return self._mean([value(out, self.labels, targeted) for out in logits])

    def utilities(self, logits: Logits, rivals: Logits) -> Tensor:
        """v(S), summed over rows and divided by the batch size."""
        labels = self.labels.unsqueeze(1)
        sums = [margin(out, labels, rival).sum() for out, rival in zip(logits, rivals, strict=True)]
        return self._mean(sums) if self.attack.targeted else -self._mean(sums)

    def _mean(self, sums: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.networks, sums, strict=True)
        first, *others = [share * value for (_, share), value in pairs]
        return sum(others, first) / len(self.labels)

    def _changed(self, rows: Tensor, step: Step) -> Tensor:
        """Rows ``(B, k, C, H, W)`` of a game, all changed by shared parts as a first copy is."""
        first = torch.zeros(rows.shape[1], dtype=torch.int64, device=rows.device)
        for part, seen in step.by_part():
            if part.shared:
                rows = part.vary(rows, first, seen)
        return rows

    def _logits(self, rows: Tensor) -> Logits:
        """Of rows ``(B, k, C, H, W)``."""
        flat = rows.flatten(0, 1)
        if self.attack._normalization_applied is False:  # the network takes normalised images
            flat = self.attack.normalize(flat)
        found = [checked_logits(network(flat), len(flat)) for network, _ in self.networks]
        for logits in () if self._checked else found:  # once, as it reads values back to the host
            refuse_probabilities(logits)
            checked_classes(self.labels, logits.shape[1])
        self._checked = True
        return [logits.unflatten(0, rows.shape[:2]) for logits in found]

    def _width(self, samples: int, count: int) -> int:
        """How many of ``count`` rows per sample go through the network at once."""
        limit = self.attack.chunk_size or gradient_rows(self.clean[0], samples * count)
        return max(1, limit // samples)

    def _gradients(
        self,
        point: Tensor,
        count: int,
        rows: Callable[[Tensor, range], Tensor],
        values: Sequence[Callable[[Logits], Tensor]],
    ) -> list[Tensor]:
        """Per scalar value of the logits, its gradient with respect to a point ``(B, ...)``.

        ``rows`` makes the wanted ones of ``count`` rows per sample, ``(B, k, C, H, W)``, out of the
        point: chunk by chunk, so that memory is flat in their number.
        """
        width = self._width(point.numel() // self.clean[0].numel(), count)
        totals: list[Tensor] = []
        for first in range(0, count, width):
            leaf = point.detach().requires_grad_()
            logits = self._logits(rows(leaf, range(count)[first : first + width]))
            scalars = [value(logits) for value in values]
            found = [
                torch.autograd.grad(scalar, leaf, retain_graph=scalar is not scalars[-1])[0]
                for scalar in scalars
            ]
            totals = [t + f for t, f in zip(totals, found, strict=True)] if totals else found
        return totals
