"""Interaction strength: the mean absolute Shapley interaction, relative to the logits' scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import GridPlayers, Players
from interaction_train.indices.readings import READINGS
from interaction_train.indices.sampled_pairs import PairEstimates, sample_shapley_pairs
from interaction_train.metrics.base import PairMetric
from interaction_train.metrics.rows import Statistics, strength
from interaction_train.sampling.pairs import PairSampler


class InteractionStrength(PairMetric):
    """E_x E_ij |I^Shap(i,j|x)| / E_x |z_y − mean of the other logits| (formula sheet, 12).

    ``compute()`` returns scalars: ``strength_plug_in`` and ``strength_split_sign``, which bracket
    it, ``strength_rms``, the numerators ``plug_in``, ``split_sign``, ``rms``, each with
    ``_stderr`` over samples; the denominator ``scale``, ``contexts`` and ``samples``.

    Args:
        players: how a sample splits into players; default: a 16 × 16 grid.
        payoff: what the game reads off the logits, one number per sample.
        pairs: which pairs; default: random ones.
        contexts: contexts per pair, at least 2.
        baseline: what absent players show; default: the network's ``Normalize`` mean.
        only_correct: leave out samples that the network gets wrong.
        more: see :class:`~interaction_train.metrics.base.PairMetric`.

    Raises:
        InputError: ``contexts`` below 2.
    """

    def __init__(
        self,
        players: Players | None = None,
        payoff: str | Payoff = "logit",
        pairs: PairSampler | None = None,
        contexts: int = 100,
        baseline: float | Sequence[float] | None = None,
        only_correct: bool = True,
        **more: Any,
    ) -> None:
        players = GridPlayers(16, 16) if players is None else players
        super().__init__(players, payoff, pairs, contexts, baseline, only_correct, **more)

    @property
    def width(self) -> int:
        return 1

    def estimate(self, game: MaskedGame) -> PairEstimates:
        return sample_shapley_pairs(game, self.pairs, self.contexts, seed=self.seed)

    def statistics(self, rows: Tensor) -> Statistics:
        return strength(rows)

    def plot(self, val: Statistics | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The three readings with bars of one standard error.

        Args:
            val: a result of ``compute()``; default: the present one.
            ax: where to draw; default: a new figure.
        """
        val = self.compute() if val is None else val
        figure, axes = self._axes(ax)
        values = [float(val[f"strength_{reading}"]) for reading in READINGS]
        errors = [float(val[f"strength_{reading}_stderr"]) for reading in READINGS]
        axes.bar(list(READINGS), values, yerr=errors)
        axes.set(ylabel="interaction strength")
        return figure, axes
