"""What an attack maximises: a classification loss, alone or less the interactions in δ."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from interaction_train.attacks.norms import normalize
from interaction_train.attacks.parts.base import Step, settings_repr
from interaction_train.attacks.problem import Problem
from interaction_train.errors import InputError, in_range, one_of
from interaction_train.game.payoffs import margin
from interaction_train.losses.reduction import GroupReduction, InteractionReduction

Loss = Literal["cross_entropy", "margin", "logit"]

_ROUNDING = 1e-4


class Objective:
    """A classification loss of the adversarial images, averaged over the copies that parts make.

    Args:
        loss: ``"cross_entropy"``; ``"margin"``: the best other logit less the label's (targeted:
            the target's less the best other), whose gradient does not vanish on confident networks;
            or ``"logit"``: the label's logit lowered, the target's raised (Zhao, Liu and Larson,
            "On Success and Simplicity", NeurIPS 2021: for targeted transfer).
        temperature: of the cross entropy: logits are divided by it.
    """

    def __init__(self, loss: Loss = "cross_entropy", temperature: float = 1.0) -> None:
        one_of("loss", loss, get_args(Loss))
        in_range("temperature", temperature, 0, float("inf"), above=True)
        if temperature != 1 and loss != "cross_entropy":
            raise InputError("temperature", temperature, f"1 for the loss {loss!r}")
        self.loss, self.temperature = loss, temperature

    __repr__ = settings_repr

    def around(self, model: nn.Module) -> AbstractContextManager[None]:
        """Entered for the time of the attack, as that of a part."""
        return nullcontext()

    def value(self, logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
        """The loss summed over rows: logits ``(B, k, classes)``, labels ``(B,)`` → a scalar."""
        labels = labels.unsqueeze(1).expand(logits.shape[:2])
        if self.loss == "cross_entropy":
            scaled = logits.flatten(0, 1) / self.temperature
            total = F.cross_entropy(scaled, labels.flatten(), reduction="sum")
        elif self.loss == "margin":
            total = -margin(logits, labels).sum()
        else:
            total = -logits.take_along_dim(labels.unsqueeze(2), 2).sum()
        return -total if targeted else total

    def begin(self, problem: Problem, step: Step) -> None:
        """Called in every step before parts look ahead, for what the losses need."""

    def gradient(self, problem: Problem, point: Tensor, step: Step) -> Tensor:
        """The direction of ascent at ``point`` ``(B, C, H, W)``, before parts update it."""
        return problem.refined(problem.at(point, step), step)


class MaskedObjective(Objective):
    """The ablation of the interaction loss: the mean over groups A of the loss at N∖A and at A.

    What :class:`InteractionObjective` gives beyond it is due to interactions.
    Of parts that change images those act that are ``shared``, as one copy; a warning names others.
    """

    def __init__(
        self, loss: Loss = "cross_entropy", reduction: InteractionReduction | None = None
    ) -> None:
        super().__init__(loss)
        self.reduction = GroupReduction() if reduction is None else reduction

    def begin(self, problem: Problem, step: Step) -> None:
        idle = [type(part).__name__ for part in step.parts if part.varies and not part.shared]
        if idle and step.number == 1:
            kind = type(self).__name__
            rank_zero_warn(f"{kind} takes masked images as they are, without {', '.join(idle)}")

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
            first steps on a confident network, where the gradient of the loss is near 0. The margin
            is v(N) itself, so that (1 − λ)·v(N) + λ·E_A[v(N∖A) + v(A)] is maximised: at λ = 1 the
            ablation, :class:`MaskedObjective` on the margin, without any interaction.
        weight: λ; 0 leaves the interactions out, at no cost.
        mix: ``"losses"``: the gradient of loss − λ·Î. ``"gradients"``: both gradients are
            normalised per sample (L1) before they are mixed.
        reduction: the form of Î; default: the paper's, 32 groups of 32 of 16 × 16 cells.
    """

    def __init__(
        self,
        loss: Loss = "margin",
        weight: float = 0.5,
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
        loss, full, rivals = problem.at_full(point, step, same=self.loss == "margin")
        parts, rows = problem.at_masks(
            point, self.reduction, step, lambda logits: problem.utilities(logits, rivals)
        )
        # Each group has two rows, v(N∖A) and v(A); v(∅) does not depend on the perturbation.
        masked = parts / (rows / 2)
        loss = problem.refined(loss, step)
        if self.mix == "losses":  # on the margin the loss is v(N): (1 − λ)·v(N) + λ·masked
            return loss - self.weight * full + self.weight * masked
        interaction = full - masked
        # At δ = 0 the gradient of Î is 0, and what is computed is rounding, not to be blown up.
        sizes = [part.flatten(1).abs().sum(1) for part in (interaction, full)]
        real = (sizes[0] > _ROUNDING * sizes[1]).view(-1, *(1 for _ in full.shape[1:]))
        interaction = torch.where(real, interaction, 0)
        return normalize(loss, "L1") - self.weight * normalize(interaction, "L1")
