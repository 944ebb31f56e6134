"""What attribution methods say of test images, and which of the three principles they keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor

from interaction_train.attributions import (
    METHODS,
    allocation,
    attribute,
    check_principles,
    infidelity,
)
from interaction_train.callbacks.grid_monitor import GridMonitor
from interaction_train.callbacks.monitor import Result, Split
from interaction_train.callbacks.samples import few_cells
from interaction_train.errors import InputError, at_least, one_of
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.exact import dividends, exact_values
from interaction_train.indices.means import told_mean
from interaction_train.tracking.cell_maps import cell_maps_figure

_DEFAULT = (
    "gradient_input", "occlusion", "integrated_gradients", "shapley", "grad_cam", "lrp_epsilon",
    "lrp_alpha_beta", "deep_taylor", "deeplift_rescale", "deeplift_reveal_cancel",
)  # fmt: skip
_SHOWN = 4  # images in the figure
_NUMBERS = ("unrelated", "incomplete", "gap", "infidelity")


class AttributionReport(GridMonitor):
    """Attributions of test images by several methods, and how each shares out interactions.

    After ``test``, for the label's logit on a coarse grid of cells. Of each method, over some test
    images with standard errors, as shares of the sum Σ|J| of all effects (Deng et al., "Unifying
    Fourteen Post-Hoc Attribution Methods With Taylor Interactions", 2024):

    - ``unrelated``: of effects given to cells that have no part in them;
    - ``incomplete``: of effects not given, or given more than once;
    - ``gap``: of what the attributions miss of v(N) − v(∅) in sum;

    and ``infidelity``, in logits²
    (:func:`~interaction_train.attributions.scores.infidelity`). Methods that the network does not
    admit are left out, with a warning and a line below the table that say why; the loggers get NaN
    for them, so that the keys are the same for all networks.

    Goes to a table, ``attributions.json``, ``attributions.csv``, ``attributions.png`` (for images
    of one or three channels) and the loggers (``test/attributions/<method>/…``). The first process
    measures. Most of the time goes into integrated gradients, of 64 · 2^cells inputs an image.

    Args:
        rows: rows of the grid; with ``cols`` at most 12 cells.
        cols: columns of the grid.
        samples: number of test images; ``fast_dev_run`` takes two, and at most 2 × 2 cells.
        methods: names in :data:`~interaction_train.attributions.METHODS`; default: all that need no
            further settings, but for Deep SHAP, which admits small layers only.
        common: ``baseline``, ``chunk_size`` (some hundreds are faster for small inputs on a
            processor) and the other arguments of
            :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: an argument out of its range, or no baseline to be found.
    """

    keys_begin, stages, stem = ("attributions",), ("test",), "attributions"
    most_cells = 12  # every method is run on all 4096 masked images

    def __init__(
        self,
        rows: int = 3,
        cols: int = 3,
        samples: int = 8,
        methods: Sequence[str] = _DEFAULT,
        **common: Any,
    ) -> None:
        at_least("samples", samples, 2)  # for a standard error
        super().__init__(rows, cols, samples, 1, "logit", **common)
        self._played = self.players
        if not methods:
            raise InputError("methods", "none", "at least one")
        for method in methods:
            one_of("methods", method, METHODS)
        if len(set(methods)) < len(methods):
            raise InputError("methods", ", ".join(methods), "each of them once")
        self.methods = tuple(methods)
        self._shown: tuple[Tensor, Tensor, dict[str, Tensor]] | None = None

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        if not trainer.is_global_zero:
            return {}
        self._played = few_cells(self.players, trainer)
        places = self.places(trainer, loader)
        network, (x, y) = self.network(trainer, loader), self.samples(trainer, loader, places)
        with torch.inference_mode(False), torch.enable_grad():
            game = self.game(trainer, network, x.clone(), y.clone(), self._played)
            found, refused = self._evaluate(game)
        for method, reason in refused.items():
            rank_zero_warn(f"AttributionReport leaves {method} out: {reason}")
        given = {name: told.pop("attributions") for name, told in found.items()}
        self._shown = x[:_SHOWN].cpu(), y[:_SHOWN].cpu(), given
        return {
            "samples": len(x),
            "places": places,
            "labels": y.tolist(),
            "payoff": self.payoff,
            "grid": [self._played.rows, self._played.cols],
            "methods": {
                name: {k: told_mean(v) for k, v in told.items()} for name, told in found.items()
            },
            "attributions": {name: values.tolist() for name, values in given.items()},
            "refused": refused,
        }

    def _evaluate(self, game: MaskedGame) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
        """Method → its attributions and numbers ``(B, …)`` on the CPU; method → why it is out."""
        effects = dividends(exact_values(game).double())
        found, refused = dict[str, dict[str, Tensor]](), dict[str, str]()
        for method in self.methods:
            try:
                values = attribute(game, method)
                principles = check_principles(allocation(game, method), effects)
            except InputError as error:
                refused[method] = str(error)
                continue
            numbers = {name: getattr(principles, name) for name in _NUMBERS[:3]}
            told = {"attributions": values, **numbers, "infidelity": infidelity(game, values)}
            found[method] = {name: tensor.double().cpu() for name, tensor in told.items()}
        return found, refused

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        found = result["methods"]
        return {
            f"{split}/attributions/{method}/{name}": (
                found[method][name]["value"] if method in found else math.nan
            )
            for method in self.methods
            for name in _NUMBERS
        }

    def figures(self, result: Result) -> Mapping[str, Figure]:
        if self._shown is None or not self._shown[2] or self._shown[0].shape[1] not in (1, 3):
            return {}
        x, y, given = self._shown
        rows = [f"class {label}" for label in y.tolist()]
        title = f"What {self._played} do to the label's logit: orange raises it, blue lowers it"
        return {
            "attributions": cell_maps_figure(x, self._played.cells(x.shape[1:]), given, rows, title)
        }

    def table(self, result: Result) -> Table:
        units = ("% of Σ|J|", "% of Σ|J|", "% of Σ|J|", "logits²")
        columns = (
            Column(f"{name}\n{unit}", justify="right")
            for name, unit in zip(_NUMBERS, units, strict=True)
        )
        title = f"What methods do with the effects of cells, {result['samples']} test images"
        left_out = "\n".join(f"without {name}: {why}" for name, why in result["refused"].items())
        table = Table(
            "method", *columns, title=title, caption=left_out or None, caption_justify="left",
            show_edge=False, pad_edge=False,
        )  # fmt: skip
        for method, told in result["methods"].items():
            shares = (_percent(**told[name]) for name in _NUMBERS[:3])
            table.add_row(method, *shares, _short(**told[_NUMBERS[3]]))
        return table

    def csv_rows(self, result: Result) -> Mapping[str, Sequence[Sequence[Any]]]:
        header = ["method", *(f"{name}{end}" for name in _NUMBERS for end in ("", "_stderr"))]
        rows = [
            [method, *(told[name][key] for name in _NUMBERS for key in ("value", "stderr"))]
            for method, told in result["methods"].items()
        ]
        return {self.stem: [header, *rows]}


# Numbers with their errors, short enough for a table of 80 columns.


def _percent(value: float, stderr: float) -> str:
    digits = 0 if max(value, stderr) >= 0.0995 else 1
    return f"{100 * value:.{digits}f} ± {100 * stderr:.{digits}f}"


def _short(value: float, stderr: float) -> str:
    if not 0.01 <= stderr < 1e5:
        return f"{value:.2g} ± {stderr:.1g}"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"
