"""What an attack maximises: a classification loss, alone or less the interactions in δ."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attacks.norms import normalize
from interaction_train.attacks.parts.base import Step, settings_repr
from interaction_train.attacks.problem import Problem
from interaction_train.errors import InputError, one_of
from interaction_train.game.payoffs import margin
from interaction_train.losses.reduction import GroupReduction, InteractionReduction

Loss = Literal["cross_entropy", "margin"]

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
        return problem.refined(problem.at_copies(point, step), step)


class MaskedObjective(Objective):
    """The ablation of the interaction loss: the mean over groups A of the loss at N∖A and at A.

    What :class:`InteractionObjective`, of the same arguments, gives beyond it is due to
    interactions (formula sheet, 16).
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
