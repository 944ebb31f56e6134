"""A metric of sampled interactions, one value per order, followed on a fixed sample."""

from __future__ import annotations

import copy
import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from rich.table import Column, Table

from interaction_train.attacks.jobs import check_factory, make_attack
from interaction_train.attacks.run import AttackFactory, craft
from interaction_train.callbacks.monitor import Monitor, Result, Split, is_fast
from interaction_train.callbacks.samples import batches, shard, spread
from interaction_train.errors import at_least
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.players import GridPlayers
from interaction_train.indices import REFERENCE_RATIOS
from interaction_train.indices.readings import READINGS, Reading, check_reading
from interaction_train.metrics.orders import OrderMetric
from interaction_train.sampling.pairs import NeighbourPairs, PairSampler
from interaction_train.tracking.figures import heat_map_figure, save_figure, spectrum_figure

FOLLOWED_RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Orders m/(n−2) that are followed by default; the reference grid has 13, at twice the cost."""

_BATCH = 16  # samples measured together; no result depends on it
_ATTACKED = 8  # samples attacked together, on which some attacks' results do depend


class SampledMetric(Monitor):
    """Follows a metric with one value per order, on clean and on adversarial images.

    The samples are spread evenly over the first validation (or test) loader's data set, the same
    ones every time. With an attack the same samples are measured again in their adversarial
    versions, for their true labels, whatever the network makes of them.

    The defaults are for following a training: many samples, with few contexts each. Absolute values
    are then biased, equally so in every epoch; a measurement that stands for itself takes some 50
    contexts and the reference grid of ratios, as in ``spectrum_cifar10.yaml``.

    Args:
        rows: rows of the grid.
        cols: columns of the grid.
        n_samples: number of samples, over all processes.
        every: k, how often in ``fit``; the first validation is one of them.
        contexts: contexts per pair and order, in the mean; at least 2.
        ratios: orders as parts m/(n−2), ascending; null: the reference grid's, without those that
            are the same order on this grid.
        pairs: which pairs; default: 16 pairs per sample of cells at most two rows and columns
            apart.
        payoff: what the game reads off the logits.
        baseline: what absent cells show, a number or one per channel; default: the training mean
            of the network's ``Normalize`` layer.
        only_correct: leave out samples that the network gets wrong.
        reading: which reading of an absolute value is logged: ``plug_in`` (biased up),
            ``split_sign`` (biased down) or ``rms``; table and files have all of them.
        attack: makes an attack on the network, to measure its adversarial images too.
        seed: seed of the draws, and of attacks that draw from the global random states.
        chunk_size: rows sent through the network at once; default: the fastest, timed once.
        common: ``model``, ``batch``, ``normalization`` and ``name`` of
            :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: an argument out of its range.
    """

    metric_class: ClassVar[Callable[..., OrderMetric]]

    stem: ClassVar[str]
    """The name of the files."""

    letter: ClassVar[str]
    """What the metric is called, ``"J"`` for instance."""

    title: ClassVar[str]
    """The figure's."""

    shown: ClassVar[Mapping[str, str]]
    """Columns of the printed table: key of the metric's result → title."""

    floor: ClassVar[str] = ""
    """A note on the least value of a reading."""

    def __init__(
        self,
        rows: int = 16,
        cols: int = 16,
        n_samples: int = 240,
        every: int = 20,
        contexts: int = 3,
        ratios: Sequence[float] | None = FOLLOWED_RATIOS,
        pairs: PairSampler | None = None,
        payoff: str = "log_odds",
        baseline: float | list[float] | None = None,
        only_correct: bool = True,
        reading: Reading = "plug_in",
        attack: AttackFactory | None = None,
        seed: int = 0,
        chunk_size: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(every, **common)
        at_least("n_samples", n_samples, 1)
        check_reading(reading)
        if attack is not None:
            check_factory("attack", attack)
        self.n_samples, self.reading, self.attack, self.seed = n_samples, reading, attack, seed
        self.players = GridPlayers(rows, cols)
        self.metric = self.metric_class(
            self.players,
            payoff,
            distinct_ratios(rows * cols) if ratios is None else ratios,
            NeighbourPairs(2, 16) if pairs is None else pairs,
            contexts,
            baseline=baseline,
            only_correct=only_correct,
            seed=seed,
            chunk_size=chunk_size,
        )

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        network = self.network(trainer, loader)
        metric = copy.deepcopy(self.metric).to(trainer.strategy.root_device)
        if is_fast(trainer):
            metric.contexts, metric.only_correct, metric.chunk_size = 2, False, 64
            metric.ratios = metric.ratios[:: max(1, len(metric.ratios) // 2)]
        attacked = copy.deepcopy(metric)
        attacked.only_correct = False  # they are chosen by the clean image
        attack = None if self.attack is None else make_attack(self.attack, network)
        for block in self._blocks(trainer, loader):
            x, y = self.samples(trainer, loader, block)
            metric.update(network, x, y)
            if attack is not None:
                if metric.only_correct:
                    right = eval_logits(network, x).argmax(-1) == y
                    x, y = x[right], y[right]
                if len(x):
                    attacked.update(network, craft(attack, x, y, seed=self.seed), y)
        n = self.players.rows * self.players.cols
        orders = [round(ratio * (n - 2)) for ratio in metric.ratios]
        result = {"players": n, "ratios": list(metric.ratios), "orders": orders, **_plain(metric)}
        if attack is not None:
            result["adversarial"] = _plain(attacked)
        if result["samples"] == 0:
            rank_zero_warn(f"No sample for {self.letter}(m) is classified correctly.")
        return result

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        keys = {}
        parts = {"": result}
        if "adversarial" in result:
            parts["adv/"] = result["adversarial"]
        for prefix, part in parts.items():
            for name, column in self._logged.items():
                for ratio, value in zip(result["ratios"], part[column], strict=True):
                    keys[f"{split}/{self.keys_begin[0]}/{prefix}{name}/{ratio:g}"] = value
        return keys

    @property
    def _logged(self) -> dict[str, str]:
        logged = {self.letter: f"{self.letter}_{self.reading}"}
        logged |= {"signed": "signed"} if "signed" in self.shown else {}
        return logged | {f"{key}_stderr": f"{column}_stderr" for key, column in logged.items()}

    def history_figures(self) -> Mapping[str, Figure]:
        points = [point for point in self.history if "epoch" in point]
        figures = {}
        for prefix in ("", "adv/"):
            start = f"val/{self.keys_begin[0]}/{prefix}{self.letter}/"
            ratios = [key[len(start) :] for key in points[-1]["values"] if key.startswith(start)]
            if ratios:
                values = [[p["values"].get(start + r, math.nan) for r in ratios] for p in points]
                epochs = [point["epoch"] for point in points]
                images = "adversarial" if prefix else "clean"
                title = f"{self.letter}(m) over training, {images} images, {self._grid}"
                figure = heat_map_figure(values, epochs, ratios, f"{self.letter}(m)", title)
                figures[f"{self.keys_begin[0]}/{prefix}{self.letter}_over_training"] = figure
        return figures

    def table(self, result: Result) -> Table:
        title = f"{self.letter}(m) on {result['samples']} samples, {self._grid}"
        shown = [(result, key, title) for key, title in self.shown.items()]
        if "adversarial" in result:
            logged = [key for key in self.shown if key in self._logged.values()]
            shown += [(result["adversarial"], key, f"adv. {self.shown[key]}") for key in logged]
        columns = ["m", "m/(n−2)", *(name for _, _, name in shown)]
        table = Table(*(Column(name, justify="right") for name in columns), title=title)
        for k, (order, ratio) in enumerate(zip(result["orders"], result["ratios"], strict=True)):
            cells = (_with_error(part[key][k], part[f"{key}_stderr"][k]) for part, key, _ in shown)
            table.add_row(str(order), f"{ratio:g}", *cells)
        table.caption = (
            f"± one standard error over samples; plug-in is biased up{self.floor}, split-sign "
            f"down, each most where |I| is small ({_contexts_range(result)} contexts per pair)"
        )
        return table

    def figures(self, result: Result) -> Mapping[str, Figure]:
        title = f"{self.title}, {self._grid}, {result['samples']} samples"
        figure = spectrum_figure(self.curves(result), title, f"{self.letter}(m)")
        return {f"{self.keys_begin[0]}/spectrum": figure}

    def curves(self, result: Result) -> dict[str, dict[str, Any]]:
        """Curves of the figure, by their names."""
        there = [reading for reading in READINGS if f"{self.letter}_{reading}" in result]
        wanted = [(result, reading, "") for reading in there]
        if "adversarial" in result:
            # All readings of both would be six bands on top of each other.
            wanted = [(result, self.reading, "clean, ")]
            wanted += [(result["adversarial"], self.reading, "adversarial, ")]
        return {
            images + reading.replace("_", "-"): {
                "orders": result["orders"],
                "value": part[f"{self.letter}_{reading}"],
                "stderr": part[f"{self.letter}_{reading}_stderr"],
            }
            for part, reading, images in wanted
        }

    def write(self, folder: Path, result: Result) -> list[Path]:
        paths = [folder / f"{self.stem}.{kind}" for kind in ("csv", "json", "png")]
        lists = {key: value for key, value in result.items() if isinstance(value, list)}
        attacked = result.get("adversarial", {})
        lists |= {f"adv_{k}": v for k, v in attacked.items() if isinstance(v, list)}
        with paths[0].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(lists)
            writer.writerows(zip(*lists.values(), strict=True))
        paths[1].write_text(json.dumps(result, indent=2))
        for figure in self.figures(result).values():
            save_figure(figure, paths[2])
        return paths

    @property
    def _grid(self) -> str:
        return f"{self.players.rows} × {self.players.cols} grid"

    def _blocks(self, trainer: L.Trainer, loader: Any) -> list[list[int]]:
        """Places of this process's samples, which may be none, as they are measured together."""
        places = spread(len(loader.dataset), 1 if is_fast(trainer) else self.n_samples)
        if self.attack is not None:
            return shard(places, trainer, _ATTACKED)
        return batches(places, trainer, _BATCH)


def distinct_ratios(n: int) -> tuple[float, ...]:
    """The reference grid's ratios, without those that are the same order of n players."""
    orders = {round(ratio * (n - 2)): ratio for ratio in reversed(REFERENCE_RATIOS)}
    return tuple(sorted(orders.values()))


def _contexts_range(result: Result) -> str:
    """How many contexts pairs had, "29 to 33" for instance; end orders, with one each, left out."""
    counts = [round(count) for count in result["contexts"] if not math.isnan(count)]
    inner = [count for count in counts if count > 1] or counts or [0]
    return " to ".join(str(count) for count in sorted({min(inner), max(inner)}))


def _plain(metric: OrderMetric) -> Result:
    return {key: value.tolist() for key, value in metric.compute().items()}


def _with_error(value: float, error: float) -> str:
    return f"{value:.3g}" if math.isnan(error) else f"{value:.3g} ± {error:.2g}"
