"""What the metrics share: rows as torchmetrics states."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from interaction_train.errors import (
    InputError,
    checked_classes,
    checked_labels,
    refuse_one_logit,
    whole,
)
from interaction_train.game.absence import Baseline, input_baseline
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import GridPlayers, Players
from interaction_train.game.precision import wide, wide_dtype
from interaction_train.indices.sampled_pairs import PairEstimates
from interaction_train.metrics.groups import (
    Groups,
    by_group,
    checked_groups,
    group_ids,
    require_one_group,
)
from interaction_train.metrics.rows import (
    COLUMNS,
    Statistics,
    column,
    estimate_rows,
    logit_scale,
    unique_places,
    unique_rows,
)
from interaction_train.sampling.pairs import PairSampler, RandomPairs
from interaction_train.sampling.random import sample_hash
from interaction_train.tracking.figures import new_figure
from interaction_train.tracking.style import INK, styled

_MEASURED = COLUMNS.index("size") + 1  # the columns before are measured interactions
_NOISE = 8  # units in the last place of the logits that a mean |Δ| may be off by


class RowMetric(Metric):
    """A metric with one row of numbers per sample; ``kwargs`` are those of ``torchmetrics.Metric``.

    Rows carry the hash of their sample, so that repeated samples count once, and no result depends
    on batches, their order or the number of processes. After ``metric.persistent(True)`` the rows
    are part of the state dict.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    row_dtype: torch.dtype | None = None  # the widest that the device has

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
        return self.statistics(unique_rows(dim_zero_cat(self.content), dim_zero_cat(self.rows)))

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A process without samples must still send a tensor of the right number of axes.
        self._never_empty()
        super()._sync_dist(*args, **kwargs)

    def _never_empty(self) -> None:
        if isinstance(self.rows, list) and not self.rows:
            device, dtype = self.device, self.row_dtype or wide_dtype(self.device)
            self.content = [torch.zeros(0, dtype=torch.int64, device=device)]
            self.rows = [torch.zeros(0, *self.row_shape, dtype=dtype, device=device)]


class InteractionMetric(RowMetric):
    """Rows of interactions: :data:`~interaction_train.metrics.COLUMNS` at each of M orders.

    Args:
        players: how a sample splits into players; default: a 16 × 16 grid.
        pairs: which pairs of players are sampled; default: random ones.
        contexts: contexts per pair and order, in the mean; at least 2.
        seed: seed of the draws.
        chunk_size: rows sent through the network at once; default: the fastest, timed once.
        kwargs: those of ``torchmetrics.Metric``.
    """

    only_correct = False
    ratios: tuple[float, ...] = (math.nan,)  # the M orders of a row; of one over all there is none
    bars: ClassVar[tuple[str, ...]]  # the results that are drawn, of one value each
    ylabel: ClassVar[str]

    def __init__(
        self,
        players: Players | None = None,
        pairs: PairSampler | None = None,
        contexts: int = 100,
        seed: int = 0,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        whole("contexts", contexts, 2)
        self.players, self.pairs = players or GridPlayers(16, 16), pairs or RandomPairs()
        self.contexts, self.seed, self.chunk_size = contexts, seed, chunk_size

    @property
    def row_shape(self) -> tuple[int, ...]:
        return len(COLUMNS), len(self.ratios)

    def compute(self) -> Statistics:
        result = super().compute()
        if int(result["samples"]) == 0:
            why = "none was classified correctly" if self.only_correct else "none came"
            rank_zero_warn(f"{type(self).__name__} has no sample to measure: {why}")
        return result

    def title(self, value: Statistics) -> str:
        """What a figure shows: the players, the payoff where it can differ, and the samples."""
        what, payoff = str(self.players), getattr(self, "payoff", None)
        if payoff is not None:
            named = payoff if isinstance(payoff, str) else getattr(payoff, "__name__", repr(payoff))
            what += f", payoff {named.replace('_', ' ')}"
        return f"{type(self).__name__}: {what}, {int(value['samples'])} samples"

    @styled()
    def plot(self, val: Statistics | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw ``val``, by default the present result, with one standard error."""
        value = self.compute() if val is None else val
        figure, axes = new_figure() if ax is None else (cast(Figure, ax.figure), ax)
        names = [key.removeprefix("strength_").replace("_", "-") for key in self.bars]
        errors = [float(value[f"{key}_stderr"]) for key in self.bars]
        axes.bar(names, [float(value[key]) for key in self.bars], yerr=errors, ecolor=INK)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="reading (bars: one standard error)", ylabel=self.ylabel)
        axes.set_title(self.title(value))
        return figure, axes


class PairMetric(InteractionMetric):
    """A metric of interactions in the game of a sample's own players.

    With ``groups`` the result has in addition ``groups``, the G ids that came, ascending, and every
    other key for each group as ``group_<key>``, ``(G, ...)``, which
    :func:`~interaction_train.metrics.groups.split_groups` takes apart. Every sample is in one of
    them, so that means over all samples are those of the groups, weighted with ``group_samples``.

    Args:
        payoff: what the game reads off the logits, one number per sample.
        baseline: what absent players show, a number, one per channel, or the file of a learned
            baseline; default: the training mean of the network's ``Normalize`` layer.
        only_correct: leave out samples that the network gets wrong; default: unless groups look
            at the logits, by ``"correct"`` or a function.
        groups: how samples are grouped (:data:`~interaction_train.metrics.groups.Groups`).
        more: this, ``players``, ``pairs`` and ``contexts`` are those of :class:`InteractionMetric`.

    Raises:
        InputError: groups of another name, or right against wrong samples of the right ones.
    """

    group: list[Tensor]  # the groups' ids of the rows

    def __init__(
        self,
        players: Players | None = None,
        payoff: str | Payoff = "logit",
        pairs: PairSampler | None = None,
        contexts: int = 100,
        baseline: Baseline | Sequence[float] | None = None,
        only_correct: bool | None = None,
        groups: Groups | None = None,
        **more: Any,
    ) -> None:
        super().__init__(players, pairs, contexts, **more)
        self.payoff, self.baseline = payoff, baseline
        self.groups = checked_groups(groups)
        if groups == "correct" and only_correct:
            raise InputError("only_correct", True, "False with groups='correct'")
        by_logits = groups == "correct" or callable(groups)
        self.only_correct = not by_logits if only_correct is None else only_correct
        if groups is not None:
            self.add_state("group", [], dist_reduce_fx="cat")

    @abstractmethod
    def estimate(self, game: MaskedGame) -> PairEstimates:
        """Estimates for a batch of samples."""

    def group_statistics(self, rows: Tensor) -> Statistics:
        """The result for the rows of a group; by default that for all."""
        return self.statistics(rows)

    def update(self, model: nn.Module, x: Tensor, y: Tensor, group: Tensor | None = None) -> None:
        """Measure samples ``(B, C, ...)`` with labels ``(B,)`` int64, of groups ``(B,)`` if given.

        The network's modes, statistics and gradients stay as they are. An error about a payoff that
        is not finite gives the place among the samples that are kept.
        """
        logits = eval_logits(model, x)
        dtype = logits.dtype
        refuse_one_logit(logits)
        checked_classes(checked_labels(y, len(x), "y"), logits.shape[-1], "y")
        if self.groups is None and group is not None:
            raise InputError("group", "ids", "none without groups='given'")
        ids = y if self.groups is None else group_ids(self.groups, x, y, logits, group)
        if self.only_correct:
            right = logits.argmax(-1) == y
            x, y, logits, ids = x[right], y[right], logits[right], ids[right]
        if len(x) == 0:
            return
        absent, size = input_baseline(model, self.baseline, x), self.chunk_size
        game = MaskedGame(model, x, absent, self.players, self.payoff, y, chunk_size=size)
        rows = estimate_rows(self.estimate(game), logit_scale(logits, y))
        # Below rounding noise there is no interaction: 0, so that ratios of nothing else are NaN.
        noise = _NOISE * torch.finfo(dtype).eps * wide(logits).abs().amax(-1)
        silent = column(rows, "size") < noise[:, None]
        rows[:, :_MEASURED] = rows[:, :_MEASURED].masked_fill(silent[:, None], 0)
        self.add(sample_hash(x, y), rows)
        if self.groups is not None:
            self.group.append(ids)

    def compute(self) -> Statistics:
        result = super().compute()
        if self.groups is None:
            return result
        content, ids = dim_zero_cat(self.content), dim_zero_cat(self.group)
        if self.groups == "given":
            require_one_group(content, ids)
        once = unique_places(content)
        rows = dim_zero_cat(self.rows)[once]
        return {**result, **by_group(self.group_statistics, rows, ids[once])}

    def _never_empty(self) -> None:
        if self.groups is not None and isinstance(self.group, list) and not self.group:
            self.group = [torch.zeros(0, dtype=torch.int64, device=self.device)]
        super()._never_empty()
