"""An explanation as a user holds it: numbers, tables, files and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interaction_train.explaining.export import Tables

if TYPE_CHECKING:
    from interaction_train.explaining.plots import Plots


class Explanation(Tables):
    """What each of n players, and each pair, adds to the payoff of B samples.

    Made by :func:`~interaction_train.explaining.explain.explain`; numbers are those of
    :class:`~interaction_train.explaining.results.Results`, tables and files those of
    :class:`~interaction_train.explaining.export.Tables`.
    """

    @property
    def plot(self) -> Plots:
        """Figures: ``explanation.plot.heatmap()`` and others."""
        from interaction_train.explaining.plots import Plots

        return Plots(self)
