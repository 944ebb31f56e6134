"""Interactions among many cells of images, followed in training on a fixed sample or read once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor

from interaction_train.callbacks.grid_monitor import GridMonitor, rows_of_sets
from interaction_train.callbacks.monitor import Result, Split, with_error
from interaction_train.callbacks.samples import gather, is_fast, shard
from interaction_train.errors import InputError, whole
from interaction_train.game.precision import wide
from interaction_train.indices.exact import summable
from interaction_train.indices.means import told_mean
from interaction_train.recovery import Recovered, WalshModel, budget_curve, fit_rows, strongest
from interaction_train.recovery.figure import recovery_figure
from interaction_train.recovery.fit import Rho, check_rho
from interaction_train.recovery.model import ORDERS
from interaction_train.recovery.rows import drawn
from interaction_train.recovery.strongest import MOST, NOT_EXPLAINED
from interaction_train.sampling.random import Draws

_FRESH = 256  # coalitions that R² is measured on
_CURVE = 5  # budgets of the curve


class RecoveryMonitor(GridMonitor):
    """Follows what interactions among many cells a few masked images of a fixed sample show.

    Of each sample ``budget`` random coalitions are evaluated, and all interactions of all orders
    fitted to them (:func:`~interaction_train.recovery.fit_rows`). Logged, as means over samples:

    - ``val/recovery/r2``: R² of the fit on 256 fresh coalitions;
    - ``val/recovery/r2_surrogate``: there, R² of the ``count`` strongest interactions alone;
    - ``val/recovery/order/<m>``: the share of the fit's variance over coalitions in its Walsh
      coefficients of m = 1 … 10 players, the last one that of all orders from there on; of samples
      whose fit is no constant.

    The figure ``val/recovery/strongest`` shows Shapley values, the strongest interactions and R²
    against the number of coalitions for the first samples; at the end of ``fit`` come the history
    as a table ``val/recovery/history``, and a heat map of shares by order and epoch. ``validate``
    and ``test`` print the strongest interactions, each sample's with their R² and a line where it
    is below .5, and write, of all samples, ``recovery.json``, ``recovery.csv`` with a row for each
    interaction, and ``recovery.png``. Samples whose payoff is the same for all coalitions, or not
    finite, are left out with a warning that names them.

    Args:
        rows: rows of the grid.
        cols: columns of it.
        n_samples: number of samples, over all processes.
        every: k, how often in ``fit``; the first validation is one of them.
        budget: coalitions of a sample that are fitted, at least 2 · rows · cols; ``fast_dev_run``
            takes the least. Time of the fit goes with its cube: a CPU core takes some seconds for a
            thousand.
        count: how many of the strongest interactions stand for a sample, up to 1000.
        max_order: most players of one.
        rho: as in :func:`~interaction_train.recovery.fit_walsh`.
        shown: how many samples are drawn and printed.
        seed: of the coalitions, which all samples share.
        common: the other arguments of
            :class:`~interaction_train.callbacks.grid_monitor.GridMonitor`.

    Raises:
        InputError: an argument out of its range, or no baseline to be found.
    """

    keys_begin, stem = ("recovery",), "recovery"

    def __init__(
        self,
        rows: int = 16,
        cols: int = 16,
        n_samples: int = 4,
        every: int = 20,
        budget: int = 1024,
        count: int = 12,
        max_order: int = 5,
        rho: Rho = "learned",
        shown: int = 4,
        seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(rows, cols, n_samples, every, **common)
        whole("count", count, 1, MOST)
        whole("shown", shown, 0)
        whole("max_order", max_order, 1, self.n)
        whole("budget", budget, 2 * self.n)
        check_rho(rho)
        if budget + _FRESH > 1 << self.n:
            expected = f"with {_FRESH} fresh ones no more than the 2^{self.n} that there are"
            raise InputError("budget", f"{budget} coalitions of {self.n} cells", expected)
        self.budget, self.shown, self.seed = budget, shown, seed
        self.count, self.max_order, self.rho = count, max_order, rho
        self._figure: Figure | None = None  # of the last measurement, on the first process

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        budget = 2 * self.n if is_fast(trainer) else self.budget
        content = torch.zeros(1, dtype=torch.int64, device=trainer.strategy.root_device)
        coalitions = torch.cat(drawn(Draws(content, self.seed, "walsh"), self.n, budget, _FRESH))
        own, values = self._games(trainer, loader, coalitions)
        fitted = values[:, :budget]
        kept = values.isfinite().all(-1) & (fitted.amax(-1) != fitted.amin(-1))
        left_out = own[~kept, 0].tolist()
        self.warn_of_left_out(left_out, len(own), "is the same for all coalitions")
        result: Result = {
            "grid": [self.players.rows, self.players.cols],
            "payoff": self.payoff,
            "budget": budget,
            "fresh": _FRESH,
            "samples": int(kept.sum()),
            "left_out": left_out,
        }
        own, values, self._figure = own[kept], values[kept], None
        if not len(own):
            nothing = values[:, 0]
            orders = nothing.unsqueeze(-1).expand(-1, min(self.n, ORDERS))
            return {**result, **_means(nothing, nothing, orders), "budgets": [], "recovered": []}
        coalitions = coalitions.to(values.device)
        fresh = coalitions[budget:], values[:, budget:]
        model = fit_rows(coalitions[:budget], values[:, :budget], rho=self.rho, fresh=fresh)
        return {**result, **self._recovered(trainer, loader, own, model)}

    def _games(self, trainer: L.Trainer, loader: Any, coalitions: Tensor) -> tuple[Tensor, Tensor]:
        """Place and label of all processes' samples, ``(B, 2)``, and their games, ``(B, K)``."""
        network, rows = self.network(trainer, loader), []
        for block in shard(self.places(trainer, loader, fast=1), trainer):
            x, y = self.samples(trainer, loader, block)
            values = wide(summable(self.game(trainer, network, x, y)(coalitions)))
            known = torch.stack([torch.tensor(block), y.cpu()], 1).to(values)
            rows.append(torch.cat([known, values], 1))
        gathered = gather(rows, 2 + len(coalitions), trainer)
        own, values = gathered.split([2, len(coalitions)], 1)
        return own.long(), values

    def _recovered(self, trainer: L.Trainer, loader: Any, own: Tensor, model: WalshModel) -> Result:
        most = len(model.coalitions)
        less = np.geomspace(2 * self.n, most, _CURVE)[:-1].astype(int) // 2 * 2  # whole pairs
        less = less.clip(2 * self.n)  # which rounding may go below
        budgets: list[int] = sorted({*less.tolist(), most})
        curve = model.r2_holdout.unsqueeze(-1)
        if len(budgets) > 1:
            curve = torch.cat([budget_curve(model, budgets[:-1], rho=self.rho), curve], 1)
        with warnings.catch_warnings():  # of samples that are not explained: said by each of them
            warnings.filterwarnings("ignore", f".*{NOT_EXPLAINED}")
            found = strongest(model, self.count, self.max_order)
        if trainer.is_global_zero and self.shown:
            shown = own[: self.shown].tolist()
            x, _ = self.samples(trainer, loader, [place for place, _ in shown])
            if x.dim() == 4 and x.shape[1] in (1, 3):
                cells = self.players.cells(x.shape[1:])
                captions = [f"sample {place}, class {label}" for place, label in shown]
                title = f"Strongest interactions: {self.what}"
                self._figure = recovery_figure(
                    x, cells, model.shapley(), found.surrogate, (budgets, curve), captions, title
                )
        return {
            **_means(model.r2_holdout, found.r2, model.spectrum()),
            "budgets": budgets,
            "recovered": _in_words(own, model, found, curve, self.cell_names),
        }

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        begin = f"{split}/{self.keys_begin[0]}"
        keys = {f"{begin}/{key}": result[key]["value"] for key in ("r2", "r2_surrogate")}
        shares = enumerate(result["order"]["value"], 1)
        return keys | {f"{begin}/order/{m}": share for m, share in shares}

    def figures(self, result: Result) -> Mapping[str, Figure]:
        key = f"{self.keys_begin[0]}/strongest"
        return {} if self._figure is None else {key: self._figure}

    def history_figures(self) -> Mapping[str, Figure]:
        key, title = f"{self.keys_begin[0]}/order", f"Orders over training, {self.what}"
        label, axis = "share of the fit's variance", "order (players of a set)"
        return self.over_training(key, label, title, axis)

    def table(self, result: Result) -> Table:
        columns = [Column(name) for name in ("sample", "class", "kind", "players")]
        columns += [Column("value", justify="right")]
        what = f"{self.what}, {result['budget']} coalitions"
        table = Table(*columns, title=f"Strongest interactions, {what}")
        for sample in result["recovered"][: self.shown]:
            head = [str(sample["sample"]), str(sample["label"])]
            for one in sample["interactions"]:
                table.add_row(*head, one["kind"], " ".join(one["players"]), f"{one['value']:+.3g}")
                head = ["", ""]
            r2 = f"R² {sample['r2']:.3f} of the fit, {sample['r2_surrogate']:.3f} of these alone"
            line = "" if sample["explained"] else f": {NOT_EXPLAINED}"
            table.add_row(*head, "", r2 + line, "")
            table.add_section()
        names = {"r2": "R² of the fit", "r2_surrogate": f"of the {self.count} strongest"}
        means = (f"{name} {with_error(**result[key], digits='.3f')}" for key, name in names.items())
        table.caption = (
            f"Means over {result['samples']} samples, on {result['fresh']} fresh coalitions: "
            f"{', '.join(means)}"
        )
        return table

    def csv_rows(self, result: Result) -> Mapping[str, Sequence[Iterable[Any]]]:
        columns = ("sample", "label", "kind", "order", "players", "value")
        return {self.stem: rows_of_sets(columns, result["recovered"], "interactions")}


def _means(r2: Tensor, r2_surrogate: Tensor, spectrum: Tensor) -> dict[str, Any]:
    varied = ~spectrum.isnan().any(-1)
    return {
        "r2": told_mean(r2),
        "r2_surrogate": told_mean(r2_surrogate),
        "order": told_mean(spectrum[varied]),
    }


def _in_words(
    own: Tensor, model: WalshModel, found: Recovered, curve: Tensor, names: Sequence[str]
) -> list[dict[str, Any]]:
    """What was found of each sample, its interactions the strongest first.

    ``own`` are place and label ``(B, 2)``, ``curve`` is R² by budget ``(B, budgets)``.
    """
    numbers = {
        "r2": model.r2_holdout,
        "r2_loo": model.r2_loo,
        "r2_surrogate": found.r2,
        "explained": found.explained,
        "constant": found.surrogate.constant,
        "r2_curve": curve,
        "spectrum": model.spectrum(),
        "shapley": model.shapley(),
    }
    samples = []
    for b, (place, label) in enumerate(own.tolist()):
        interactions = [
            {"kind": kind, "order": len(players), "players": list(players), "value": value}
            for kind, players, value in found.interactions(b, names)
        ]
        told = {name: values[b].tolist() for name, values in numbers.items()}
        samples.append({"sample": place, "label": label, **told, "interactions": interactions})
    return samples
