"""An explanation as a user holds it: numbers, tables, files and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interaction_train.concepts.graph import ConceptGraph, concept_graph
from interaction_train.concepts.selection import select_concepts
from interaction_train.concepts.trees import InteractionTree, interaction_tree
from interaction_train.explaining import export
from interaction_train.explaining.results import Results

if TYPE_CHECKING:
    import pandas as pd

    from interaction_train.explaining.plots import Plots


class Explanation(Results):
    """What each of n players, and each pair, adds to the payoff of B samples.

    Made by :func:`~interaction_train.explaining.explain.explain`; attributes are those of
    :class:`~interaction_train.explaining.results.Results`.
    """

    @property
    def plot(self) -> Plots:
        """Figures: ``explanation.plot.heatmap()`` and others."""
        from interaction_train.explaining.plots import Plots

        return Plots(self)

    def graph(
        self, sample: int = 0, count: int = 12, merges: int = 5, **settings: Any
    ) -> ConceptGraph:
        """The graph of a sample's strongest concepts, refitted, with the coalitions they share.

        ``plot.graph()`` draws it over the image.

        Args:
            sample: which sample.
            count: how many concepts, at most.
            merges: how many shared coalitions, at most.
            **settings: of :meth:`~interaction_train.explaining.results.Results.concepts`.

        Raises:
            InputError: arguments out of range, or a sampled explanation.
        """
        at = self.at(sample)
        values = self.all_values("concepts").double()
        chosen = select_concepts(self.concepts(**settings), values, min(count, 2 << self.n))
        return concept_graph(chosen[at], self.names, merges)

    def tree(self, sample: int = 0, **settings: Any) -> InteractionTree:
        """Which neighbouring players form phrases, and which of these join, for words above all.

        Args:
            sample: which sample; a sampled explanation needs to be of a single one, and evaluates
                the network, which must be as it was.
            **settings: of :func:`~interaction_train.concepts.trees.interaction_tree`.

        Raises:
            InputError: arguments out of range.
        """
        at = self.at(sample)
        if self.values is not None:
            return interaction_tree(self.values[at], names=self.names, **settings)
        game = self._sampler("tree").game
        return interaction_tree(game, names=self.names, **settings)

    def top(
        self, k: int = 10, sample: int = 0, kind: export.Kind = "pairs", **settings: Any
    ) -> pd.DataFrame:
        """The k strongest players, pairs or concepts of a sample, by absolute value.

        Columns ``players`` (names, joined by `` & ``), ``value`` and ``stderr``; for concepts also
        ``kind``, AND or OR.

        Args:
            k: how many, at least 1.
            sample: which sample.
            kind: ``"players"``, ``"pairs"`` or ``"concepts"``.
            **settings: of :meth:`~interaction_train.explaining.results.Results.concepts`.

        Raises:
            InputError: arguments out of range, or concepts of a sampled explanation.
        """
        return export.top(self, k, sample, kind, **settings)

    def to_frame(self) -> pd.DataFrame:
        """Every Shapley value (order 1) and every pair's interaction (order 2) in a row of its own.

        Columns ``sample``, ``order``, ``players`` (names, joined by `` & ``), ``value``,
        ``stderr``.
        """
        return export.to_frame(self)

    def to_json(self, path: str | Path | None = None) -> str:
        """All numbers but the inputs, for other programs; also written to ``path``, if given."""
        return export.to_json(self, path)

    def to_shapiq(self, sample: int = 0, index: export.Index = "SII") -> Any:
        """A sample's ``shapiq.InteractionValues``, whose plots and other methods work.

        Args:
            sample: which sample.
            index: ``"SV"``, Shapley values; ``"SII"``, with Shapley interactions of pairs;
                ``"k-SII"``, the same as a sum: pairs and what is left of the values make v(N);
                ``"Moebius"``, all Harsanyi dividends.

        Raises:
            InputError: shapiq is not installed, or dividends of a sampled explanation.
        """
        return export.to_shapiq(self, sample, index)
