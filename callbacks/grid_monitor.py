"""What monitors share that play games on a grid of cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from interaction_train.callbacks.monitor import Monitor
from interaction_train.callbacks.samples import is_fast
from interaction_train.errors import InputError, one_of, whole
from interaction_train.game.absence import Baseline, input_baseline
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import PAYOFFS
from interaction_train.game.players import GridPlayers, Players


class GridMonitor(Monitor):
    """A monitor of games whose players are the cells of a grid.

    Args:
        rows: this, ``cols``, ``n_samples`` and ``every`` are as each of them says.
        payoff: what the game reads off the logits, but for ``all``.
        baseline: of absent cells, a number, one per channel, or the file of a learned baseline;
            default: the mean in ``Normalize``.
        chunk_size: rows sent through the network at once; default: as
            :class:`~interaction_train.game.masked.MaskedGame` chooses.
        common: the other arguments of :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: an argument out of its range, or no baseline to be found.
    """

    most_cells: int | None = None

    def __init__(
        self,
        rows: int,
        cols: int,
        n_samples: int,
        every: int = 1,
        payoff: str = "log_odds",
        baseline: Baseline | None = None,
        chunk_size: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(every, **common)
        whole("n_samples", n_samples, 1)
        one_of("payoff", payoff, [name for name in PAYOFFS if name != "all"])
        if chunk_size is not None:
            whole("chunk_size", chunk_size, 1)
        self.players, self.n = GridPlayers(rows, cols), rows * cols
        if self.most_cells is not None and self.n > self.most_cells:
            raise InputError("rows", f"{rows} x {cols} cells", f"at most {self.most_cells} cells")
        self.n_samples, self.payoff = n_samples, payoff
        self.baseline, self.chunk_size = baseline, chunk_size
        self.cell_names = self.players.names((rows, cols))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self.require_baseline(self.baseline, pl_module)

    @property
    def what(self) -> str:
        """The game in a title's words."""
        return f"{self.players}, payoff {self.payoff.replace('_', ' ')}"

    def game(
        self,
        trainer: L.Trainer,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        players: Players | None = None,
    ) -> MaskedGame:
        """The games of samples, on the monitor's cells or on other players."""
        absent = input_baseline(network, self.baseline, x)
        chunk_size = self.chunk_size
        if chunk_size is None and is_fast(trainer):
            chunk_size = 64  # which need not be timed
        players = players or self.players
        return MaskedGame(network, x, absent, players, self.payoff, y, chunk_size=chunk_size)

    def warn_of_left_out(self, places: list[int], of: int, reason: str) -> None:
        """Name the samples whose payoff is not finite, or alike as the ``reason`` says."""
        if places:
            rank_zero_warn(
                f"{type(self).__name__}: {len(places)} of {of} samples are left out, as the "
                f"network's {self.payoff} {reason}, or not finite: {', '.join(map(str, places))}."
            )


def rows_of_sets(
    columns: Sequence[str], samples: Iterable[Mapping[str, Any]], key: str
) -> list[Sequence[Any]]:
    """Rows of a file: one for each set of players, listed under a key of its sample."""
    rows = (
        {**sample, **one, "players": " ".join(one["players"])}
        for sample in samples
        for one in sample[key]
    )
    return [columns, *([row[name] for name in columns] for row in rows)]
