"""J(m), D(m) and strength: how strong and how consistent interactions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.errors import InputError, one_of
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import Players
from interaction_train.indices.readings import READINGS, Reading
from interaction_train.indices.sampled_pairs import (
    REFERENCE_RATIOS,
    PairEstimates,
    sample_multi_order,
    sample_shapley_pairs,
)
from interaction_train.metrics.base import PairMetric
from interaction_train.metrics.flexibility import flexibility
from interaction_train.metrics.groups import split_groups
from interaction_train.metrics.rows import Statistics, disentanglement, spectrum, strength
from interaction_train.sampling.pairs import NeighbourPairs, PairSampler
from interaction_train.tracking.figures import RATIOS, draw_spectrum, legend_below, new_figure
from interaction_train.tracking.style import styled


class OrderMetric(PairMetric):
    """A metric with one value per order.

    Args:
        payoff: what the game reads off the logits; default: log-odds of the true class for J(m) and
            its log-probability for D(m).
        ratios: orders as parts m/(n−2), ascending; two of one order are refused.
        pairs: which pairs; default: 64 of cells at most two rows and columns apart.
        more: this (``groups`` for one), ``players`` and ``contexts`` are those of
            :class:`~interaction_train.metrics.base.PairMetric`.

    Raises:
        InputError: ratios out of their range.
    """

    letter: ClassVar[str]
    usual: ClassVar[str]  # payoff
    readings: ClassVar[tuple[Reading, ...]] = READINGS

    def __init__(
        self,
        players: Players | None = None,
        payoff: str | Payoff | None = None,
        ratios: Sequence[float] = REFERENCE_RATIOS,
        pairs: PairSampler | None = None,
        contexts: int = 100,
        **more: Any,
    ) -> None:
        super().__init__(players, payoff or self.usual, pairs or NeighbourPairs(), contexts, **more)
        self.ratios = tuple(float(ratio) for ratio in ratios)
        ascending = list(self.ratios) == sorted(set(self.ratios))
        if not self.ratios or not ascending or self.ratios[0] < 0 or self.ratios[-1] > 1:
            raise InputError("ratios", self.ratios, "ascending numbers from 0 to 1")

    def estimate(self, game: MaskedGame) -> PairEstimates:
        return sample_multi_order(
            game, self.pairs, self.contexts, ratios=self.ratios, seed=self.seed
        )

    @styled()
    def plot(
        self, val: Statistics | None = None, ax: Axes | None = None, reading: Reading = "plug_in"
    ) -> tuple[Figure, Axes]:
        """Draw the curve of one reading of |I|, and of its groups, with bands of one error."""
        one_of("reading", reading, self.readings)
        value = self.compute() if val is None else val
        figure, axes = new_figure() if ax is None else (cast(Figure, ax.figure), ax)
        name, told = f"{self.letter}_{reading}", {reading.replace("_", "-"): value}
        if "groups" in value:
            told |= {f"group {one}": found for one, found in split_groups(value).items()}
        curves = {
            key: {
                "orders": list(self.ratios),
                "value": found[name].reshape(-1).tolist(),
                "stderr": found[f"{name}_stderr"].reshape(-1).tolist(),
            }
            for key, found in told.items()
        }
        draw_spectrum(axes, curves)
        axes.set(xlabel=RATIOS, ylabel=f"{self.letter}(m)", title=self.title(value))
        legend_below(axes)
        return figure, axes


class InteractionSpectrum(OrderMetric):
    """J^(m) = E_x E_ij |I^(m)(i,j|x)| / E_m [same] (survey, Eq. 21), with strengths and signs.

    Spectra compare only over the same ``ratios``, of which the denominator is the mean. Defaults
    are the reference protocol, but 64 pairs per sample, where it has 200. ``compute()`` returns
    what :func:`~interaction_train.metrics.rows.spectrum` does, and of groups, such as textures and
    shapes, what :func:`~interaction_train.metrics.flexibility.flexibility` does too. Args: see
    :class:`OrderMetric`.

    Examples:
        >>> import interaction_train as it, torch
        >>> spectrum = InteractionSpectrum(
        ...     it.GridPlayers(4, 4), ratios=[0, 0.5, 1], pairs=it.RandomPairs(1, 4), contexts=8,
        ...     only_correct=False, chunk_size=64,
        ... )
        >>> net, x, y = it.models.DigitsNet(), torch.rand(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
        >>> spectrum.update(net, x, y)
        >>> float(spectrum.compute()["J_plug_in"].mean().round(decimals=4))
        1.0
        >>> by_label = InteractionSpectrum(
        ...     it.GridPlayers(2, 2), ratios=[0, 1], pairs=it.AllPairs(), contexts=2,
        ...     only_correct=False, groups="label", chunk_size=64,
        ... )
        >>> by_label.update(net, x, y)
        >>> by_label.compute()["groups"].tolist()
        [1, 2, 3, 4]
    """

    letter, usual = "J", "log_odds"
    statistics = staticmethod(spectrum)

    def group_statistics(self, rows: Tensor) -> Statistics:
        return {**spectrum(rows), **flexibility(rows)}


class Disentanglement(OrderMetric):
    """D^(m) = E_{x,ij} |E_S Δ| / E_{x,ij} E_S |Δ|, a ratio of global means.

    ``compute()`` returns what :func:`~interaction_train.metrics.rows.disentanglement` does. Args:
    see :class:`OrderMetric`.
    """

    letter, usual, readings = "D", "log_prob", READINGS[:2]
    statistics = staticmethod(disentanglement)


class InteractionStrength(PairMetric):
    """E_x E_ij |I^Shap(i,j|x)| / E_x |z_y − mean of the other logits|.

    ``compute()`` returns what :func:`~interaction_train.metrics.rows.strength` does. Args: see
    :class:`~interaction_train.metrics.base.PairMetric`.
    """

    bars, ylabel = tuple(f"strength_{reading}" for reading in READINGS), "interaction strength"
    statistics = staticmethod(strength)

    def estimate(self, game: MaskedGame) -> PairEstimates:
        return sample_shapley_pairs(game, self.pairs, self.contexts, seed=self.seed)
