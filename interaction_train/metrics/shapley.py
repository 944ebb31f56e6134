"""Interaction strength: the mean absolute Shapley interaction, relative to the logits' scale."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.game.masked import MaskedGame
from interaction_train.indices.readings import READINGS
from interaction_train.indices.sampled_pairs import PairEstimates, sample_shapley_pairs
from interaction_train.metrics.base import PairMetric
from interaction_train.metrics.rows import Statistics, strength


class InteractionStrength(PairMetric):
    """E_x E_ij |I^Shap(i,j|x)| / E_x |z_y − mean of the other logits| (formula sheet, 12).

    ``compute()`` returns what :func:`~interaction_train.metrics.rows.strength` does.

    Args: see :class:`~interaction_train.metrics.base.PairMetric`.
    """

    def estimate(self, game: MaskedGame) -> PairEstimates:
        return sample_shapley_pairs(game, self.pairs, self.contexts, seed=self.seed)

    def statistics(self, rows: Tensor) -> Statistics:
        return strength(rows)

    def plot(self, val: Statistics | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        keys = {f"strength_{reading}": str(reading) for reading in READINGS}
        return self._bars(val, ax, keys, "interaction strength")
