"""Losses that classify by a difference of logits between coalitions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.errors import at_least, one_of
from interaction_train.game.determinism import forward_agrees
from interaction_train.game.layers import ForwardRecord
from interaction_train.game.payoffs import all_logits
from interaction_train.game.players import Players
from interaction_train.losses.base import CurveTerm, checked_batch, is_soft

Mode = Literal["encourage", "penalize"]


class DifferenceLoss(CurveTerm):
    """Classifies samples by a difference Δ of logits (survey, Eq. 23).

    ``"encourage"`` is the cross entropy of softmax(Δ), L+, also with soft labels; ``"penalize"`` is
    Σ_c p_c log p_c of p = softmax(Δ), minus its entropy, L−, between −log(classes) and 0.

    All coalitions run in eval. v(N) is the main forward pass's where the network is known to
    compute the same in training and eval; v(∅), where it is the same for every sample, is a single
    row.

    Args:
        mode: ``"encourage"`` or ``"penalize"``.
        players: how the input, or the layer's output, splits into players.
        layer: dotted name of the layer whose units are the players; default: the input's parts.
        n_draws: draws per sample and step, whose mean Δ classifies, as the expectation in Eq. 22
            says.
        **shared: the settings of :class:`PlayerTerm`.

    Raises:
        InputError: an argument out of its range, or two that do not go together.
    """

    def __init__(
        self,
        mode: Mode,
        players: Players | None = None,
        layer: str | None = None,
        *,
        n_draws: int = 1,
        **shared: Any,
    ) -> None:
        super().__init__(players, layer, **shared)
        one_of("mode", mode, ("encourage", "penalize"))
        at_least("n_draws", n_draws, 1)
        self.mode, self.n_draws = mode, n_draws

    @abstractmethod
    def draw(self, keys: Tensor) -> dict[int, Tensor]:
        """The coalitions but ∅ and N from keys ``(B, n_draws, n)``: size → ``(B, rows, n)``."""

    @abstractmethod
    def difference(self, v: dict[int, Tensor], n: int) -> Tensor:
        """Δ, ``(B, draws, classes)``.

        Args:
            v: logits ``(B, rows, classes)`` under the sizes of :meth:`draw`; for the sizes 0 and n
                of the curve v(∅), ``(1, 1, classes)`` where all have the same, and v(N).
            n: number of players.
        """

    def differences(self, model: nn.Module, x: Tensor, forward: ForwardRecord, step: int) -> Tensor:
        """Δ of every sample and draw, ``(n_samples, draws, classes)``."""
        x = x[: self.n_samples(len(x))]
        build, present = self.place(model, x, forward)
        n = self.players.count(present.shape[1:])
        sizes = self.curve(n)
        masks, v = self.draw(self._keys(x, n, step)), {}
        nobody = torch.zeros(1, 1, n, dtype=torch.bool, device=x.device)
        if n in sizes and forward.logits is not None and forward_agrees(model):
            v[n] = all_logits(forward.logits[: len(x)]).unsqueeze(1)
        elif n in sizes:
            masks[n] = ~nobody.expand(len(x), -1, -1)
        if 0 in sizes and not self.same_empty(present):
            masks[0] = nobody.expand(len(x), -1, -1)
        if masks:
            rows, counts = torch.cat([*masks.values()], 1), [m.shape[1] for m in masks.values()]
            join = (
                0 in sizes and 0 not in masks and rows.shape[1] == 1
            )  # then ∅ is one more sample of the same call
            if join:
                present, rows = torch.cat([present, present[:1]]), torch.cat([rows, nobody])
            values = build(present, payoff="all")(rows, grad=True)
            if join:
                values, v[0] = values.split([len(x), 1])
            v.update(zip(masks, values.split(counts, 1), strict=True))
        if 0 in sizes and 0 not in v:
            v[0] = build(present[:1], payoff="all")(nobody, grad=True)
        delta = self.difference(v, n)
        self.warn_of_nothing(
            model, x, [*v.values()], delta,
            lambda model, x: self.differences(model, x, ForwardRecord(), step),
        )  # fmt: skip
        return delta

    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        checked_batch(x, y)
        delta = self.differences(model, x, forward, step).mean(1)
        log_p = delta.log_softmax(-1)
        if self.mode == "penalize":
            return (log_p.exp() * log_p).sum(-1).mean()
        y = y[: len(delta)]
        return F.cross_entropy(delta, y.to(delta) if is_soft(y) else y)

    def _keys(self, x: Tensor, n: int, step: int) -> Tensor:
        return self.draws(x, step).bits("players", self.n_draws, n)
