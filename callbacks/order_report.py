"""Says at the start of training which orders of interaction the losses really weigh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from interaction_train.losses.base import PlayerTerm
from interaction_train.losses.order_weights import OrderWeights, order_weights_figure
from interaction_train.tracking.figures import save_figure
from interaction_train.tracking.folders import run_folder
from interaction_train.training.module import InteractionClassifier
from interaction_train.training.objective import WeightedTerm


def report_orders(
    losses: Mapping[str, WeightedTerm], model: nn.Module, x: Tensor
) -> dict[str, OrderWeights]:
    """Tell, on the first process, which orders each loss with players weighs on inputs ``x``.

    Raises:
        InputError: a loss whose sizes do not exist for so few players.
    """
    result = {}
    for name, weighted in losses.items():
        term = weighted.term
        if isinstance(term, PlayerTerm):
            n = term.count(model, x)
            result[name] = term.order_weights(n)
            where = "cells of the input" if term.layer is None else f"units of {term.layer}"
            kind = type(term).__name__
            rank_zero_info(f"Loss {name!r} ({kind}, {n} {where}): {result[name]}")
    return result


class OrderReport(L.Callback):
    """Tells which orders of interaction the losses of an ``InteractionClassifier`` weigh.

    It does so at the first training batch, for every loss that has players.
    (``InteractionRegularizer`` does it by itself.)

    Args:
        plot: whether to draw them too, into ``orders.png`` in the run's folder.
    """

    def __init__(self, plot: bool = False) -> None:
        self.plot = plot
        self._done = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._done = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._done or not isinstance(pl_module, InteractionClassifier):
            return
        self._done = True
        weights = report_orders(pl_module.losses, pl_module.model, batch[0])
        folder = run_folder(trainer) if self.plot and weights else None
        if folder is not None and trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            save_figure(order_weights_figure(weights), folder / "orders.png")
