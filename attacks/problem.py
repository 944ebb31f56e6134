"""One batch under attack: the gradients that objectives are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Step
from interaction_train.attacks.surrogate import Logits, Surrogate
from interaction_train.game.masked import masked_rows
from interaction_train.game.payoffs import best_rival, margin
from interaction_train.losses.reduction import InteractionReduction

Loss = Callable[[Tensor, Tensor, bool], Tensor]
"""(logits ``(B, k, classes)``, labels ``(B,)``, targeted) → the loss summed over rows."""


class Problem:
    """One batch under attack: what an objective evaluates.

    Args:
        surrogate: the network.
        loss: the classification loss.
        clean: ``(B, C, H, W)``.
        labels: ``(B,)`` int64: true classes, or targets.
        targeted: whether the labels are targets.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        loss: Loss,
        clean: Tensor,
        labels: Tensor,
        targeted: bool,
    ) -> None:
        self.surrogate, self.loss, self.clean = surrogate, loss, clean
        self.labels, self.targeted = labels, targeted

    def at_copies(self, points: Tensor, step: Step) -> Tensor:
        """The loss's gradient, meaned over the parts' copies of each point.

        Args:
            points: ``(B, C, H, W)``, or ``(B, P, C, H, W)`` for the mean over P points.
            step: the present step.

        Returns:
            ``(B, C, H, W)``.
        """
        parts = [part for part in self.surrogate.parts if part.varies]
        several = points.dim() > self.clean.dim()
        count = points.shape[1] if several else 1
        for part in parts:
            count *= part.copies
        shift = points - self.clean.unsqueeze(1) if several else None

        def rows(leaf: Tensor, wanted: range) -> Tensor:
            index = torch.arange(wanted.start, wanted.stop, device=leaf.device)
            made = leaf.unsqueeze(1)
            if len(wanted) > 1:
                made = made.expand(-1, len(wanted), *leaf.shape[1:])
            if shift is not None:
                made = made + shift[:, index % shift.shape[1]]
                index = index // shift.shape[1]
            for part in parts:
                made = part.vary(made, index % part.copies, step)
                index = index // part.copies
            return made

        point = self.clean if several else points
        (gradient,) = self.surrogate.gradients(
            point, count, rows, lambda logits: (self.loss_values(logits),), step
        )
        return gradient if count == 1 else gradient / count

    def at_full(self, point: Tensor, step: Step) -> tuple[Tensor, Tensor, Logits]:
        """At the full adversarial images.

        Returns:
            the gradient of the loss (meaned over copies), that of the utility v(N), and the frozen
            rivals. Without copies both gradients come from one forward pass.
        """
        rivals: Logits = []
        alone = not any(part.varies for part in self.surrogate.parts)

        def values(logits: Logits) -> tuple[Tensor, ...]:
            labels = self.labels.unsqueeze(1)
            rivals.extend(best_rival(out.detach(), labels) for out in logits)
            utility = self.utilities(logits, rivals)
            return (self.loss_values(logits), utility) if alone else (utility,)

        found = self.surrogate.gradients(point, 1, lambda leaf, _: leaf.unsqueeze(1), values, step)
        loss = found[0] if alone else self.at_copies(point, step)
        return loss, found[-1], rivals

    def at_masks(
        self,
        point: Tensor,
        reduction: InteractionReduction,
        step: Step,
        value: Callable[[Logits], Tensor],
    ) -> tuple[Tensor, int]:
        """The gradient of ``value`` summed over the rows N∖A and A of all groups.

        Returns:
            the gradient, and the number of rows per sample.
        """
        shape = self.clean.shape[1:]
        inside = reduction.groups(step.draws, reduction.players.count(shape))
        present = torch.cat([~inside, inside], 1)

        def rows(leaf: Tensor, wanted: range) -> Tensor:
            cells = present[:, wanted.start : wanted.stop]
            return masked_rows(leaf, self.clean, reduction.players, cells)

        count = present.shape[1]
        (gradient,) = self.surrogate.gradients(
            point, count, rows, lambda logits: (value(logits),), step
        )
        return gradient, count

    def refined(self, gradient: Tensor, step: Step) -> Tensor:
        """The loss's gradient after the parts that refine it."""
        for part in self.surrogate.parts:
            gradient = part.refine(gradient, step)
        return gradient

    def loss_values(self, logits: Logits) -> Tensor:
        """The classification loss, summed over rows and divided by the batch size."""
        losses = [self.loss(out, self.labels, self.targeted) for out in logits]
        return self.surrogate.mean(losses) / len(self.labels)

    def utilities(self, logits: Logits, rivals: Logits) -> Tensor:
        """v(S), summed over rows and divided by the batch size."""
        labels = self.labels.unsqueeze(1)
        sums = [margin(out, labels, rival).sum() for out, rival in zip(logits, rivals, strict=True)]
        total = self.surrogate.mean(sums) / len(self.labels)
        return total if self.targeted else -total
