"""Losses that classify by a difference of logits between coalitions."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from interaction_train.errors import at_least, one_of
from interaction_train.game.determinism import forward_agrees
from interaction_train.game.evaluation import Network, unwrap
from interaction_train.game.layers import ForwardRecord
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import all_logits
from interaction_train.game.players import Players
from interaction_train.losses.base import PlayerSettings, PlayerTerm, checked_batch, is_soft
from interaction_train.sampling.random import Draws, content_hash

Mode = Literal["encourage", "penalize"]
Expectation = Literal["inside", "outside"]


class DifferenceSettings(PlayerSettings, total=False):
    """What every difference takes by keyword; see :class:`DifferenceLoss`."""

    n_draws: int
    expectation: Expectation


class DifferenceLoss(PlayerTerm):
    """Classifies samples by a difference Δ of logits (survey, Eq. 23).

    ``"encourage"`` is the cross entropy of softmax(Δ), L+, also with soft labels; ``"penalize"`` is
    Σ_c p_c log p_c of p = softmax(Δ), minus its entropy, L−, between −log(classes) and 0.

    Args:
        mode: ``"encourage"`` or ``"penalize"``.
        players: how the input, or the layer's output, splits into players.
        layer: dotted name of the layer whose units are the players; default: the input's parts.
        n_draws: draws per sample and step.
        expectation: with several draws, ``"inside"`` classifies by the mean of Δ over them, as the
            expectation in Eq. 22 says; ``"outside"`` takes the mean of the draws' losses.
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
        expectation: Expectation = "inside",
        **shared: Unpack[PlayerSettings],
    ) -> None:
        super().__init__(players, layer, **shared)
        one_of("mode", mode, ("encourage", "penalize"))
        one_of("expectation", expectation, ("inside", "outside"))
        at_least("n_draws", n_draws, 1)
        self.mode, self.n_draws, self.expectation = mode, n_draws, expectation

    @abstractmethod
    def differences(self, model: nn.Module, x: Tensor, forward: ForwardRecord, step: int) -> Tensor:
        """Δ of every sample and draw, ``(n_samples, n_draws, classes)``."""

    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        checked_batch(x, y)
        delta = self.differences(model, x, forward, step)
        if self.expectation == "inside":
            delta = delta.mean(1, keepdim=True)
        log_p = delta.log_softmax(-1)
        if self.mode == "penalize":
            return (log_p.exp() * log_p).sum(-1).mean()
        y = y[: len(delta)].repeat_interleave(delta.shape[1], 0)
        return F.cross_entropy(delta.flatten(0, 1), y.to(delta) if is_soft(y) else y)

    def _keys(self, x: Tensor, n: int, step: int) -> Tensor:
        draws = Draws(content_hash(x), self.seed, self.name, step)
        return draws.bits("players", self.n_draws, n)

    def _evaluate(
        self,
        model: nn.Module,
        place: tuple[Network, Tensor, Tensor | float],
        forward: ForwardRecord,
        masks: Tensor | None,
        *,
        empty: bool,
        everyone: bool,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Logits of the drawn coalitions, of ∅ and of N, all in one regime.

        Everything goes in one batched call. v(N) is the main forward pass's where that passes
        through the network as coalitions do, in eval. v(∅) is the same for every sample: one row,
        which joins the batch where that has one row per sample, and else goes by itself.

        Args:
            model: the network.
            place: see :meth:`PlayerTerm.place`.
            forward: record of the main forward pass.
            masks: bool ``(B, rows, n)``.
            empty: whether v(∅) is wanted.
            everyone: whether v(N) is wanted.

        Returns:
            ``(B, rows, classes)``, ``(1, 1, classes)`` and ``(B, 1, classes)``; None for each that
            is not wanted.
        """
        network, present, absent = place
        build = partial(
            MaskedGame, network, absent=absent, players=self.players, payoff="all",
            chunk_size=self.chunk_size, owner=unwrap(model),
        )  # fmt: skip
        rows: Tensor | None
        v_empty: Tensor | None = None
        v_all: Tensor | None = None
        nobody = torch.zeros(
            1, 1, self.players.count(present.shape[1:]), dtype=torch.bool, device=present.device
        )
        if everyone and forward.logits is not None and forward_agrees(model):
            v_all, everyone = all_logits(forward.logits[: len(present)]).unsqueeze(1), False
        drawn = 0 if masks is None else masks.shape[1]
        if everyone:
            full = ~nobody.expand(len(present), -1, -1)
            masks = full if masks is None else torch.cat([masks, full], 1)
        if empty and masks is not None and masks.shape[1] == 1:
            game = build(torch.cat([present, present[:1]]))
            rows, v_empty = game(torch.cat([masks, nobody]), grad=True).split([len(present), 1])
        else:
            rows = None if masks is None else build(present)(masks, grad=True)
            v_empty = build(present[:1])(nobody, grad=True) if empty else None
        if rows is not None and everyone:
            rows, v_all = rows.split([drawn, 1], dim=1)
        return rows if drawn else None, v_empty, v_all
