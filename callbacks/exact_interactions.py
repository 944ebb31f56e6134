"""Exact interactions of a trained network, in a figure, a file and a closing table."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn

from interaction_train.callbacks.adapter import find_batch, find_model
from interaction_train.callbacks.samples import fetch, first_loader, is_fast, spread
from interaction_train.errors import at_least
from interaction_train.game.absence import input_baseline
from interaction_train.game.evaluation import unwrap
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import log_odds, logit
from interaction_train.game.players import GridPlayers
from interaction_train.game.precision import wide
from interaction_train.indices.exact import exact_values, multi_order_interactions
from interaction_train.metrics.rows import exact_rows, logit_scale, spectrum, strength
from interaction_train.tracking.figures import save_figure, spectrum_figure
from interaction_train.tracking.folders import run_folder


class ExactInteractions(L.Callback):
    """Measures exact interactions on a coarse grid of the test images, after ``test``.

    Over all pairs of cells and some test images, spread evenly over the test set:

    - mean |I|: mean of |I^Shap(i,j)| for the payoff ``logit``;
    - strength: the same divided by the mean of |z_y − mean of the other logits| over the images
      (formula of the dropout paper);
    - J(m): the spectrum of the multi-order interactions for the payoff ``log_odds`` (survey,
      Eq. 21, over all orders; all images, correctly classified or not), also of the network as it
      was before training when ``fit`` ran in the same process.

    All with standard errors over the images. Results go to ``summary.json`` and
    ``interactions.png`` in the run's folder, to the loggers as ``test/interaction/…``, and into a
    table.

    Args:
        rows: rows of the grid; all 2^(rows·cols) coalitions are evaluated.
        cols: columns of the grid.
        n_samples: number of test images; ``fast_dev_run`` takes two.
        compare_to: name of a run (``runs/<name>``); the newest ``summary.json`` is shown too.
        baseline: what absent cells show, a number or one per channel; default: the training mean
            of the network's ``Normalize`` layer.

    Raises:
        InputError: ``n_samples`` below 2, or no baseline to be found.
    """

    def __init__(
        self,
        rows: int = 4,
        cols: int = 4,
        n_samples: int = 16,
        compare_to: str | None = None,
        baseline: float | list[float] | None = None,
    ) -> None:
        at_least("n_samples", n_samples, 2)  # for a standard error
        self.players = GridPlayers(rows, cols)
        self.n_samples, self.compare_to, self.baseline = n_samples, compare_to, baseline
        self._untrained: dict[str, Any] | None = None
        self._summary: dict[str, Any] | None = None
        self._folder: Path | None = None

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.ckpt_path is None:
            self._untrained = copy.deepcopy(pl_module.state_dict())

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._folder = run_folder(trainer)  # on every process: rank 0 tells the others
        if not trainer.is_global_zero:
            return
        loader = first_loader(trainer.test_dataloaders)
        places = spread(len(loader.dataset), 2 if is_fast(trainer) else self.n_samples)
        x, y = find_batch(fetch(trainer, loader, places))
        network = unwrap(find_model(pl_module, x=x))
        summary: dict[str, Any] = {
            "samples": len(x),
            "test/acc": float(trainer.callback_metrics.get("test/acc", torch.nan)),
            **self.measure(network, x, y),
        }
        spectra = {"after training": summary["J"]}
        if self._untrained is not None:
            trained = copy.deepcopy(pl_module.state_dict())
            try:
                pl_module.load_state_dict(self._untrained)
                summary["J_before"] = self.measure(network, x, y)["J"]
            finally:
                pl_module.load_state_dict(trained)
            spectra = {"before training": summary["J_before"], **spectra}
        values = {f"test/interaction/{k}": summary[k]["value"] for k in ("mean_abs", "strength")}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        if self._folder is not None:
            grid = f"{self.players.rows} × {self.players.cols} grid, {len(x)} test images"
            figure = spectrum_figure(spectra, f"Exact interactions, {grid}")
            save_figure(figure, self._folder / "interactions.png")
            (self._folder / "summary.json").write_text(json.dumps(summary, indent=2))
        self._summary = summary

    @rank_zero_only
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Printed here, so that it comes last, below Lightning's own table of test results.
        if stage == "test" and self._summary is not None:
            self._print(trainer, self._summary)
            self._summary = None

    def measure(self, network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Mean |I|, strength and spectrum of a network on images ``(B, C, H, W)`` in [0, 1]."""
        absent = input_baseline(network, self.baseline, x)
        game = MaskedGame(network, x, absent, self.players, "all")
        values = exact_values(game).movedim(1, -1)
        logits = wide(values)
        scale = logit_scale(logits[:, -1], y)
        orders = multi_order_interactions(logit(logits, y[:, None]), values.dtype)
        pairs = strength(exact_rows(orders.mean(1, keepdim=True), scale))
        orders = multi_order_interactions(log_odds(logits, y[:, None]), values.dtype)
        found = spectrum(exact_rows(orders, scale))
        value, stderr = (found[f"J_plug_in{part}"].tolist() for part in ("", "_stderr"))
        return {
            "mean_abs": _told(pairs, "plug_in"),
            "strength": _told(pairs, "strength_plug_in"),
            "J": {"orders": list(range(game.n - 1)), "value": value, "stderr": stderr},
        }

    def _print(self, trainer: L.Trainer, summary: dict[str, Any]) -> None:
        columns = {"this run": summary}
        if self.compare_to is not None and self._folder is not None:
            runs = self._folder.parent.parent / self.compare_to
            found = sorted(runs.glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
            for path in found[-1:]:
                columns[f"{runs.name}/{path.parent.name}"] = json.loads(path.read_text())
        table = Table("", *(Column(title, justify="right") for title in columns), title="Summary")
        table.add_row("test accuracy", *(f"{c['test/acc']:.4f}" for c in columns.values()))
        n = self.players.rows * self.players.cols
        for key, label in (("mean_abs", f"mean |I|, {n} cells"), ("strength", "strength")):
            cells = (f"{c[key]['value']:.4f} ± {c[key]['stderr']:.4f}" for c in columns.values())
            table.add_row(label, *cells)
        console = Console()
        console.print(table)
        if self._folder is not None:
            names = sorted(f"{p.name}{'/' * p.is_dir()}" for p in self._folder.iterdir())
            console.print(f"{self._folder}: {', '.join(names)}", soft_wrap=True, highlight=False)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                run = Path(logger.experiment.dir).parent
                console.print(f"W&B run: {os.path.relpath(run)}", soft_wrap=True, highlight=False)


def _told(result: dict[str, Tensor], key: str) -> dict[str, float]:
    return {"value": float(result[key]), "stderr": float(result[f"{key}_stderr"])}
