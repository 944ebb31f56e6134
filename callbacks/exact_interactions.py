"""Exact interactions of a trained network, in a figure, a file and a closing table."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor, nn

from interaction_train.callbacks.monitor import Monitor, Result, Split
from interaction_train.callbacks.samples import few_cells
from interaction_train.errors import at_least
from interaction_train.game.absence import Baseline, input_baseline
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import log_odds, logit
from interaction_train.game.players import GridPlayers, Players
from interaction_train.game.precision import wide
from interaction_train.indices.exact import exact_values, multi_order_interactions
from interaction_train.metrics.rows import exact_rows, logit_scale, spectrum, strength
from interaction_train.tracking.figures import spectrum_figure


class ExactInteractions(Monitor):
    """Measures exact interactions on a coarse grid of the test images, after ``test``.

    Over all pairs of cells and some test images, with standard errors over the images:

    - mean |I|: mean of |I^Shap(i,j)| for the payoff ``logit``;
    - strength: the same divided by the mean of |z_y − mean of the other logits| over the images
      (formula of the dropout paper);
    - J(m): the spectrum of the multi-order interactions for the payoff ``log_odds`` (survey,
      Eq. 21, over all orders; all images, correctly classified or not), also of the network as it
      was before training when ``fit`` ran in the same process.

    Goes to ``summary.json``, ``interactions.png``, the loggers (``test/interaction/…``), a table.

    Args:
        rows: rows of the grid; all 2^(rows·cols) coalitions are evaluated.
        cols: columns of the grid.
        n_samples: number of test images; ``fast_dev_run`` takes two, and at most 2 × 2 cells.
        compare_to: names of runs (``runs/<name>``), whose newest ``summary.json`` is shown too.
        baseline: of absent cells, a number, one per channel, or the file of a learned baseline;
            default: the mean in ``Normalize``.
        players: in place of the grid, columns of a table for instance.
        common: the other arguments of :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: ``n_samples`` below 2, or no baseline to be found.
    """

    keys_begin, stages, stem, summary = ("interaction/exact",), ("test",), "interactions", "summary"

    def __init__(
        self,
        rows: int = 4,
        cols: int = 4,
        n_samples: int = 16,
        compare_to: str | Sequence[str] = (),
        baseline: Baseline | None = None,
        players: Players | None = None,
        **common: Any,
    ) -> None:
        super().__init__(1, **common)
        at_least("n_samples", n_samples, 2)  # for a standard error
        self.players = self._played = players or GridPlayers(rows, cols)
        self.compare_to = [compare_to] if isinstance(compare_to, str) else compare_to
        self.n_samples, self.baseline = n_samples, baseline
        self._cells = "cells" if players is None else "players"
        self._untrained: dict[str, Any] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.require_baseline(self.baseline, pl_module)
        if trainer.ckpt_path is None and trainer.is_global_zero:
            self._untrained = copy.deepcopy(pl_module.state_dict())

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        if not trainer.is_global_zero:
            return {}
        places = self.places(trainer, loader)
        network, (x, y) = self.network(trainer, loader), self.samples(trainer, loader, places)
        played = self._played = few_cells(self.players, trainer)
        result = {"samples": len(x), **self.evaluate(network, x, y, played)}
        if self._untrained is not None:
            module = trainer.lightning_module
            trained = copy.deepcopy(module.state_dict())
            try:
                module.load_state_dict(self._untrained)
                result["J_before"] = self.evaluate(network, x, y, played)["J"]
            finally:
                module.load_state_dict(trained)
        return result

    def evaluate(
        self, network: nn.Module, x: Tensor, y: Tensor, players: Players | None = None
    ) -> dict[str, Any]:
        """Mean |I|, strength and spectrum of a network on images ``(B, C, H, W)`` in [0, 1]."""
        absent = input_baseline(network, self.baseline, x)
        game = MaskedGame(network, x, absent, players or self.players, "all")
        values = exact_values(game).movedim(1, -1)
        logits = wide(values)
        scale = logit_scale(logits[:, -1], y)
        orders = multi_order_interactions(logit(logits, y[:, None]), values.dtype)
        pairs = strength(exact_rows(orders.mean(1, keepdim=True), scale))
        orders = multi_order_interactions(log_odds(logits, y[:, None]), values.dtype)
        found = spectrum(exact_rows(orders, scale))
        return {
            "mean_abs": _told(pairs, "plug_in"),
            "strength": _told(pairs, "strength_plug_in"),
            "J": {"orders": list(range(game.n - 1)), **_told(found, "J_plug_in")},
        }

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        return {f"{split}/interaction/{k}": result[k]["value"] for k in ("mean_abs", "strength")}

    def figures(self, result: Result) -> Mapping[str, Figure]:
        shown = {"before training": result["J_before"]} if "J_before" in result else {}
        shown["after training"] = result["J"]
        title = f"Exact interactions, {self._played}, log odds, {result['samples']} test samples"
        return {"interaction/exact": spectrum_figure(shown, title)}

    def table(self, result: Result) -> Table:
        columns = {"this run": result}
        if self._folder is not None:
            runs = self._folder.parent.parent
            for name in self.compare_to:
                found = (runs / name).glob(f"*/{self.name or ''}/summary.json")
                for path in sorted(found, key=os.path.getmtime)[-1:]:
                    title = "\n".join(path.parent.relative_to(runs).parts)
                    columns[title] = json.loads(path.read_text())
        table = Table("", *(Column(title, justify="right") for title in columns), title="Summary")
        for key, label in (("test/acc", "test accuracy"), ("test/loss", "test NLL")):
            table.add_row(label, *(f"{c.get(key, math.nan):.4f}" for c in columns.values()))
        n = len(result["J"]["orders"]) + 1
        for key, label in (("mean_abs", f"mean |I|, {n} {self._cells}"), ("strength", "strength")):
            cells = (f"{c[key]['value']:.4f} ± {c[key]['stderr']:.4f}" for c in columns.values())
            table.add_row(label, *cells)
        return table

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._result is None:
            return
        for key in ("test/acc", "test/loss"):  # known at the end of the test
            self._result[key] = float(trainer.callback_metrics.get(key, math.nan))
        super().teardown(trainer, pl_module, stage)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, WandbLogger):
                print(f"W&B run: {os.path.relpath(Path(logger.experiment.dir).parent)}")


def _told(result: dict[str, Tensor], key: str) -> dict[str, Any]:
    return {"value": result[key].tolist(), "stderr": result[f"{key}_stderr"].tolist()}
