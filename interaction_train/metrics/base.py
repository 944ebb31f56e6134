"""What the metrics share: rows as torchmetrics states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import Players
from interaction_train.indices.sampled_pairs import PairEstimates
from interaction_train.metrics.rows import COLUMNS, Statistics, interaction_rows, unique_rows
from interaction_train.sampling.pairs import PairSampler, RandomPairs


class RowMetric(Metric):
    """A metric with one row of numbers per sample.

    Rows carry the hash of their sample, so that samples which a distributed sampler repeats count
    once, and no result depends on batches, their order or the number of processes. Metrics of
    several processes or runs merge by joining their rows; after ``metric.persistent(True)`` the
    rows are part of the state dict.

    Args:
        kwargs: those of ``torchmetrics.Metric``.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    row_dtype = torch.float64

    content: list[Tensor]
    rows: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("content", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")

    @property
    @abstractmethod
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @abstractmethod
    def statistics(self, rows: Tensor) -> Statistics:
        """The result for rows ``(B, *row_shape)``, each sample once."""

    def add(self, content: Tensor, rows: Tensor) -> None:
        """Take the rows ``(b, *row_shape)`` of b more samples, with their hashes ``(b,)``."""
        if len(rows):
            self.content.append(content)
            self.rows.append(rows)

    def compute(self) -> Statistics:
        """The result over all samples so far; NaN where there are none."""
        self._never_empty()
        content, rows = (
            torch.cat(state) if isinstance(state, list) else cast(Tensor, state)
            for state in (self.content, self.rows)
        )
        return self.statistics(unique_rows(content, rows))

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A process without samples must still send a tensor of the right number of axes.
        self._never_empty()
        super()._sync_dist(*args, **kwargs)

    def _never_empty(self) -> None:
        if isinstance(self.rows, list) and not self.rows:
            device = self.device
            self.content = [torch.zeros(0, dtype=torch.int64, device=device)]
            self.rows = [torch.zeros(0, *self.row_shape, dtype=self.row_dtype, device=device)]


class InteractionMetric(RowMetric):
    """Rows of interactions: :data:`~interaction_train.metrics.COLUMNS` at each of M orders."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of orders M."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (len(COLUMNS), self.width)

    def compute(self) -> Statistics:
        result = super().compute()
        if int(result["samples"]) == 0:
            why = " none was classified correctly" if getattr(self, "only_correct", False) else ""
            rank_zero_warn(f"{type(self).__name__} has no sample to measure:{why or ' none came'}")
        return result

    def _axes(self, axes: Axes | None) -> tuple[Figure, Axes]:
        if axes is not None:
            return cast(Figure, axes.figure), axes
        figure = Figure(figsize=(6, 4), layout="constrained")
        return figure, figure.add_subplot()


class PairMetric(InteractionMetric):
    """A metric of sampled pair interactions.

    Args:
        players: how a sample splits into players.
        payoff: what the game reads off the logits, one number per sample.
        pairs: which pairs of players.
        contexts: contexts per pair and order, in the mean; at least 2.
        baseline: what absent players show, a number or one per channel; default: the training mean
            of the network's ``Normalize`` layer.
        only_correct: leave out samples that the network gets wrong.
        seed: seed of the draws.
        chunk_size: rows sent through the network at once; default: the fastest, timed once.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        InputError: ``contexts`` below 2.
    """

    def __init__(
        self,
        players: Players,
        payoff: str | Payoff,
        pairs: PairSampler | None = None,
        contexts: int = 100,
        baseline: float | Sequence[float] | None = None,
        only_correct: bool = True,
        seed: int = 0,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if contexts < 2:
            raise InputError("contexts", contexts, "at least 2")
        self.players, self.payoff, self.contexts = players, payoff, contexts
        self.pairs = RandomPairs() if pairs is None else pairs
        self.baseline, self.only_correct = baseline, only_correct
        self.seed, self.chunk_size = seed, chunk_size

    @abstractmethod
    def estimate(self, game: MaskedGame) -> PairEstimates:
        """Estimates for a batch of samples."""

    def update(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """Measure a batch.

        Args:
            model: the network; its modes, statistics and gradients stay as they are.
            x: samples ``(B, C, ...)``.
            y: labels ``(B,)`` int64.

        Raises:
            InputError: see :func:`~interaction_train.metrics.rows.interaction_rows`.
        """
        content, rows, _ = interaction_rows(
            model,
            x,
            y,
            self.estimate,
            players=self.players,
            payoff=self.payoff,
            baseline=self.baseline,
            only_correct=self.only_correct,
            chunk_size=self.chunk_size,
        )
        self.add(content, rows)
