"""One batch under attack: the gradients that objectives are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import checked_classes, checked_logits, refuse_probabilities
from interaction_train.game.chunks import gradient_rows
from interaction_train.game.masked import masked_rows
from interaction_train.game.payoffs import best_rival, margin
from interaction_train.losses.reduction import InteractionReduction

Logits = list[Tensor]  # (B, k, classes), one per network whose losses are averaged


@dataclass
class Problem:
    """One batch under attack: what an objective evaluates.

    Args:
        model: maps ``(rows, C, H, W)`` in [0, 1] to logits ``(rows, classes)``; of an ensemble that
            averages losses, the members are evaluated.
        prepare: applied to all rows first (normalisation that is not part of the network).
        parts: the attack's parts.
        chunk_size: rows sent through the network at once, at least one per sample of the batch;
            None: :func:`~interaction_train.game.chunks.gradient_rows`.
        loss: (logits ``(B, k, classes)``, labels ``(B,)``, targeted) → the loss summed over rows.
        clean: ``(B, C, H, W)``.
        labels: ``(B,)`` int64: true classes, or targets.
        targeted: whether the labels are targets.
    """

    model: nn.Module
    prepare: Callable[[Tensor], Tensor] | None
    parts: Sequence[Part]
    chunk_size: int | None
    loss: Callable[[Tensor, Tensor, bool], Tensor]
    clean: Tensor
    labels: Tensor
    targeted: bool

    def __post_init__(self) -> None:
        self.networks: list[tuple[nn.Module, float]] = [(self.model, 1.0)]
        if isinstance(self.model, Ensemble) and self.model.average == "losses":
            self.networks = list(zip(self.model.members, self.model.weights, strict=True))
        self._checked = False

    def at_copies(self, points: Tensor, step: Step) -> Tensor:
        """The loss's gradient, meaned over the parts' copies of each point.

        Args:
            points: ``(B, C, H, W)``, or ``(B, P, C, H, W)`` for the mean over P points.
            step: the present step.

        Returns:
            ``(B, C, H, W)``.
        """
        parts = [part for part in self.parts if part.varies]
        several = points.dim() > self.clean.dim()
        shift = points - self.clean.unsqueeze(1) if several else None
        copies = [points.shape[1] if several else 1, *(part.copies for part in parts)]

        def rows(leaf: Tensor, wanted: range) -> Tensor:
            index = torch.arange(wanted.start, wanted.stop, device=leaf.device)
            made = leaf.unsqueeze(1).expand(-1, len(wanted), *leaf.shape[1:])
            if shift is not None:
                made = made + shift[:, index % copies[0]]
            index = index // copies[0]
            for part in parts:
                made = part.vary(made, index % part.copies, step)
                index = index // part.copies
            return made

        point, count = self.clean if several else points, math.prod(copies)
        (gradient,) = self._gradients(point, count, rows, lambda out: [self.loss_values(out)], step)
        return gradient / count

    def at_full(self, point: Tensor, step: Step) -> tuple[Tensor, Tensor, Logits]:
        """At the full adversarial images.

        Returns:
            the gradient of the loss (meaned over copies), that of the utility v(N), and the frozen
            rivals. Without copies both gradients come from one forward pass.
        """
        rivals: Logits = []
        alone = not any(part.varies for part in self.parts)

        def values(logits: Logits) -> list[Tensor]:
            labels = self.labels.unsqueeze(1)
            rivals.extend(best_rival(out.detach(), labels) for out in logits)
            utility = self.utilities(logits, rivals)
            return [self.loss_values(logits), utility] if alone else [utility]

        found = self._gradients(point, 1, lambda leaf, _: leaf.unsqueeze(1), values, step)
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
        inside = reduction.groups(step.draws, reduction.players.count(self.clean.shape[1:]))
        present = torch.cat([~inside, inside], 1)

        def rows(leaf: Tensor, wanted: range) -> Tensor:
            cells = present[:, wanted.start : wanted.stop]
            return masked_rows(leaf, self.clean, reduction.players, cells)

        count = present.shape[1]
        (gradient,) = self._gradients(point, count, rows, lambda out: [value(out)], step)
        return gradient, count

    def refined(self, gradient: Tensor, step: Step) -> Tensor:
        """The loss's gradient after the parts that refine it."""
        for part in self.parts:
            gradient = part.refine(gradient, step)
        return gradient

    def loss_values(self, logits: Logits) -> Tensor:
        """The classification loss, summed over rows and divided by the batch size."""
        return self._mean([self.loss(out, self.labels, self.targeted) for out in logits])

    def utilities(self, logits: Logits, rivals: Logits) -> Tensor:
        """v(S), summed over rows and divided by the batch size."""
        labels = self.labels.unsqueeze(1)
        sums = [margin(out, labels, rival).sum() for out, rival in zip(logits, rivals, strict=True)]
        return self._mean(sums) if self.targeted else -self._mean(sums)

    def _mean(self, sums: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.networks, sums, strict=True)
        first, *others = [share * value for (_, share), value in pairs]
        return sum(others, first) / len(self.labels)

    def _logits(self, rows: Tensor, step: Step) -> Logits:
        """Of rows ``(B, k, C, H, W)``."""
        for part in self.parts:
            rows = part.transform(rows, step)
        flat = rows.flatten(0, 1)
        if self.prepare is not None:
            flat = self.prepare(flat)
        found = [checked_logits(network(flat), len(flat)) for network, _ in self.networks]
        for logits in () if self._checked else found:  # once, as it reads values back to the host
            refuse_probabilities(logits)
            checked_classes(self.labels, logits.shape[1])
        self._checked = True
        return [logits.unflatten(0, rows.shape[:2]) for logits in found]

    def _gradients(
        self,
        point: Tensor,
        count: int,
        rows: Callable[[Tensor, range], Tensor],
        values: Callable[[Logits], list[Tensor]],
        step: Step,
    ) -> list[Tensor]:
        """Gradients of sums over rows, chunk by chunk, so that memory is flat in their number.

        Args:
            point: ``(B, C, H, W)``, what the gradients are taken with respect to.
            count: number of rows per sample.
            rows: makes the wanted rows ``(B, k, C, H, W)`` out of the point.
            values: reads one or more scalars off the logits of a chunk.
            step: the present step.

        Returns:
            per scalar, its gradient, like ``point``.
        """
        limit = self.chunk_size or gradient_rows(point[0], len(point) * count)
        width = max(1, limit // len(point))
        totals: list[Tensor] = []
        for first in range(0, count, width):
            leaf = point.detach().requires_grad_()
            scalars = values(self._logits(rows(leaf, range(count)[first : first + width]), step))
            found = [
                torch.autograd.grad(scalar, leaf, retain_graph=scalar is not scalars[-1])[0]
                for scalar in scalars
            ]
            totals = [t + f for t, f in zip(totals, found, strict=True)] if totals else found
        return totals
