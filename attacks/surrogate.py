"""The network under attack: rows of images in, payoffs and their gradients out, in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import checked_logits
from interaction_train.game.chunks import gradient_rows

Logits = list[Tensor]  # (B, k, classes), one per network whose losses are averaged
Rows = Callable[[Tensor, range], Tensor]
Values = Callable[[Logits], Sequence[Tensor]]


class Surrogate:
    """The attacked network, or the members of an ensemble whose losses are averaged.

    Args:
        model: maps ``(rows, C, H, W)`` in [0, 1] to logits ``(rows, classes)``.
        prepare: applied to all rows first (normalisation that is not part of the network).
        parts: those whose ``transform`` changes what the network sees.
        chunk_size: rows sent through the network at once, at least one per sample of the batch;
            default: 64 on a CPU, on CUDA as many as large networks leave memory for.
        inspect: called once, with the first logits.
    """

    def __init__(
        self,
        model: nn.Module,
        prepare: Callable[[Tensor], Tensor] | None,
        parts: Sequence[Part],
        chunk_size: int | None,
        inspect: Callable[[Tensor], None],
    ) -> None:
        losses = isinstance(model, Ensemble) and model.average == "losses"
        self.networks = list(model.members) if losses else [model]  # type: ignore[arg-type]
        self.shares = [float(w) for w in model.weights] if losses else [1.0]  # type: ignore[union-attr]
        self.prepare, self.parts, self.chunk_size = prepare, parts, chunk_size
        self._inspect: Callable[[Tensor], None] | None = inspect

    def logits(self, rows: Tensor, step: Step) -> Logits:
        """Logits of rows ``(B, k, C, H, W)``: ``(B, k, classes)`` per network."""
        for part in self.parts:
            rows = part.transform(rows, step)
        flat = rows.flatten(0, 1)
        if self.prepare is not None:
            flat = self.prepare(flat)
        found = [checked_logits(network(flat), len(flat)) for network in self.networks]
        if self._inspect is not None:
            for logits in found:
                self._inspect(logits)
            self._inspect = None
        return [logits.unflatten(0, rows.shape[:2]) for logits in found]

    def mean(self, values: Sequence[Tensor]) -> Tensor:
        """The mean over the networks of one value each."""
        return sum(share * value for share, value in zip(self.shares, values, strict=True))  # type: ignore[return-value]

    def gradients(
        self, point: Tensor, count: int, rows: Rows, values: Values, step: Step
    ) -> tuple[Tensor, ...]:
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
        totals: tuple[Tensor, ...] = ()
        for first in range(0, count, width):
            leaf = point.detach().requires_grad_()
            chunk = rows(leaf, range(first, min(first + width, count)))
            scalars = values(self.logits(chunk, step))
            last = len(scalars) - 1
            found = tuple(
                torch.autograd.grad(scalar, leaf, retain_graph=i < last)[0]
                for i, scalar in enumerate(scalars)
            )
            totals = tuple(t + f for t, f in zip(totals, found, strict=True)) if totals else found
        return totals
