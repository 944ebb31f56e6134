"""What an objective of an attack evaluates: the network's losses at changed and masked images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from itertools import product

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.parts.base import Memory, Step
from interaction_train.errors import checked_classes, checked_logits, refuse_probabilities
from interaction_train.game.chunks import gradient_rows
from interaction_train.game.evaluation import unwrap, without_grad
from interaction_train.game.payoffs import best_rival, margin
from interaction_train.game.samples import masked_rows
from interaction_train.losses.reduction import InteractionReduction
from interaction_train.sampling.random import Draws

Logits = list[Tensor]  # (B, k, classes), one per network whose losses are averaged
Value = Callable[[Logits], Tensor]
Rows = Callable[[Tensor, range], Tensor]
"""Out of a point ``(B, ...)``, those wanted of several rows per sample, ``(B, k, C, H, W)``."""


class Problem:
    """What an objective evaluates: an attack on clean images, away from labels or to targets.

    Of an ensemble that averages losses, the members are evaluated.
    """

    def __init__(self, attack: Attack, clean: Tensor, labels: Tensor) -> None:
        self.attack, self.clean, self.labels = attack, clean, labels
        self.networks: list[tuple[nn.Module, float]] = [(attack.model, 1.0)]
        surrogate = unwrap(attack.model)
        if isinstance(surrogate, Ensemble) and surrogate.average == "losses":
            self.networks = list(zip(surrogate.members, surrogate.weights, strict=True))
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
        attack.objective.begin(self, step)
        for part, seen in step.by_part():
            step.point = part.lookahead(step.point, seen)
        return step, attack.objective.gradient(self, step.point, step)

    def on(self, networks: list[tuple[nn.Module, float]]) -> Problem:
        """The same problem on other networks, with their shares of the loss."""
        other = copy(self)
        other.networks = networks
        return other

    def at(self, point: Tensor, step: Step, value: Value | None = None) -> Tensor:
        """As :meth:`at_copies`, at one point ``(B, C, H, W)``."""
        return self.at_copies(point.unsqueeze(1), step, value)[:, 0]

    def at_copies(self, points: Tensor, step: Step, value: Value | None = None) -> Tensor:
        """Gradients at points ``(B, P, C, H, W)``, meaned over the parts' copies.

        Of the loss, or of another value, summed over rows and divided by the batch size.
        """
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

        together = max(1, self.width(len(points), points.shape[1] * copies) // copies)
        found = [
            self._gradients(some, copies, rows, [value or self.loss_values], step)[0]
            for some in points.split(together, 1)
        ]
        gradient = torch.cat(found, 1) if len(found) > 1 else found[0]
        return gradient / copies if copies > 1 else gradient

    def at_full(self, point: Tensor, step: Step, same: bool) -> tuple[Tensor, Tensor, Logits]:
        """At the full adversarial images: the loss's gradient, v(N)'s, and the frozen rivals.

        Without copies, over which the loss's is meaned, both come from one forward pass, and are
        one tensor if the loss is the ``same`` as v(N).
        """
        rivals: Logits = []
        alone = all(part.shared and part.copies == 1 for part in step.parts if part.varies)

        def utility(logits: Logits) -> Tensor:
            labels = self.labels.unsqueeze(1)
            rivals.extend(best_rival(out.detach(), labels) for out in logits)
            return self.utilities(logits, rivals)

        values = [self.loss_values, utility] if alone and not same else [utility]
        found = self._gradients(
            point, 1, lambda leaf, _: self.changed(leaf.unsqueeze(1), step), values, step
        )
        loss = found[0] if alone else self.at(point, step)
        return loss, found[-1], rivals

    def at_masks(
        self,
        point: Tensor,
        reduction: InteractionReduction,
        step: Step,
        value: Value,
    ) -> tuple[Tensor, int]:
        """The gradient of ``value`` summed over the rows N∖A and A of all groups; their number."""
        inside = reduction.groups(step.draws, reduction.players.count(self.clean.shape[1:]))
        present = torch.cat([~inside, inside], 1)

        def rows(leaf: Tensor, wanted: range) -> Tensor:
            cells = present[:, wanted.start : wanted.stop]
            return self.changed(masked_rows(leaf, self.clean, reduction.players, cells), step)

        count = present.shape[1]
        (gradient,) = self._gradients(point, count, rows, [value], step)
        return gradient, count

    def refined(self, gradient: Tensor, step: Step) -> Tensor:
        """The loss's gradient after the parts that refine it."""
        for part, seen in step.by_part():
            gradient = part.refine(gradient, seen)
        return gradient

    def loss_values(self, logits: Logits) -> Tensor:
        """The classification loss, summed over rows and divided by the batch size."""
        value, targeted = self.attack.objective.value, self.attack.targeted
        return self.mean([value(out, self.labels, targeted) for out in logits])

    def utilities(self, logits: Logits, rivals: Logits) -> Tensor:
        """v(S), summed over rows and divided by the batch size."""
        labels = self.labels.unsqueeze(1)
        sums = [margin(out, labels, rival).sum() for out, rival in zip(logits, rivals, strict=True)]
        return self.mean(sums) if self.attack.targeted else -self.mean(sums)

    def mean(self, sums: Sequence[Tensor]) -> Tensor:
        """Over networks, one scalar each, divided by the batch size."""
        pairs = zip(self.networks, sums, strict=True)
        first, *others = [share * value for (_, share), value in pairs]
        return sum(others, first) / len(self.labels)

    def changed(self, rows: Tensor, step: Step) -> Tensor:
        """Rows ``(B, k, C, H, W)`` of a game, all changed by shared parts as a first copy is."""
        first = torch.zeros(rows.shape[1], dtype=torch.int64, device=rows.device)
        for part, seen in step.by_part():
            if part.shared:
                rows = part.vary(rows, first, seen)
        return rows

    def logits(self, rows: Rows, point: Tensor, wanted: range) -> Logits:
        """What the networks make of the wanted rows made out of a point."""
        if any(part.compares for part in self.attack.parts):
            several = point.dim() > self.clean.dim()
            clean = self.clean.unsqueeze(1).expand_as(point) if several else self.clean
            with without_grad():
                self._logits(rows(clean, wanted))
        return self._logits(rows(point, wanted))

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

    def width(self, samples: int, count: int) -> int:
        """How many of ``count`` rows per sample go through the network at once."""
        limit = self.attack.chunk_size or gradient_rows(self.clean[0], samples * count)
        return max(1, limit // samples)

    def _gradients(
        self,
        point: Tensor,
        count: int,
        rows: Rows,
        values: Sequence[Value],
        step: Step,
    ) -> list[Tensor]:
        """Per scalar value of the logits, its gradient with respect to a point ``(B, ...)``.

        ``rows`` makes ``count`` rows per sample chunk by chunk: memory is flat in their number.
        """
        width = self.width(point.numel() // self.clean[0].numel(), count)
        totals: list[Tensor] = []
        for first in range(0, count, width):
            leaf = point.detach().requires_grad_()
            logits = self.logits(rows, leaf, range(count)[first : first + width])
            for out, part in product(logits, step.parts):
                part.observe(out.detach(), step)
            scalars = [value(logits) for value in values]
            found = [
                torch.autograd.grad(scalar, leaf, retain_graph=scalar is not scalars[-1])[0]
                for scalar in scalars
            ]
            totals = [t + f for t, f in zip(totals, found, strict=True)] if totals else found
        return totals
