"""J(m) and D(m) of a network, followed in training on a fixed sample or measured once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from rich.table import Column, Table

from interaction_train.attacks.jobs import check_factory, make_attack
from interaction_train.attacks.run import AttackFactory, craft
from interaction_train.callbacks.group_results import (
    fixed_names,
    group_curves,
    group_keys,
    group_rows,
    group_table,
    plain_results,
)
from interaction_train.callbacks.monitor import Monitor, Result, Split, with_error
from interaction_train.callbacks.samples import is_fast, shard
from interaction_train.errors import InputError, one_of, whole
from interaction_train.game.absence import Baseline
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.players import GridPlayers, Players
from interaction_train.indices import REFERENCE_RATIOS
from interaction_train.indices.readings import READINGS, Reading
from interaction_train.metrics import Disentanglement, InteractionSpectrum
from interaction_train.metrics.groups import GroupFunction
from interaction_train.metrics.orders import OrderMetric
from interaction_train.sampling.pairs import NeighbourPairs, PairSampler, RandomPairs
from interaction_train.tracking.figures import spectrum_figure

_MEASURED, _ATTACKED = 16, 8  # samples together; some attacks' results depend on it


class SampledMetric(Monitor):
    """Follows a metric with one value per order, on clean and on adversarial images.

    The defaults are for following a training: many samples, with few contexts each. Absolute values
    are then biased, equally so in every epoch; a measurement that stands for itself takes some 50
    contexts and the reference grid of ratios, as in ``spectrum_cifar10.yaml``.

    Args:
        rows: rows of the grid of players.
        cols: columns of it.
        n_samples: number of samples, over all processes.
        every: k, how often in ``fit``; the first validation is one of them.
        contexts: contexts per pair and order, in the mean; at least 2.
        ratios: orders as parts m/(n−2), ascending; null, for a grid: the reference grid's 13, each
            order once.
        pairs: which pairs; default: 16 per sample of cells at most two rows and columns apart, of
            other players random ones.
        payoff: what the game reads off the logits.
        baseline: of absent cells, a number, one per channel, or the file of a learned baseline;
            default: the mean in ``Normalize``.
        only_correct: leave out samples that the network gets wrong; default: as
            :class:`~interaction_train.metrics.base.PairMetric` has it.
        reading: which reading of an absolute value is logged: ``plug_in`` (biased up),
            ``split_sign`` (biased down) or ``rms``; table and files have all of them.
        attack: makes an attack on the network; its images of the same samples are measured too.
        seed: seed of the draws, and of attacks that draw from the global random states.
        chunk_size: rows sent through the network at once; default: the fastest, timed once.
        players: in place of the grid, columns of a table for instance. Sentences are measured as
            the loader fills them up: padding takes part as players that do nothing.
        groups: measures groups of samples too: by ``"label"``, wrong against right ones
            (``"correct"``), or a function of x, labels and logits that gives ids ``(B,)``; on the
            command line its path, and it must say that it returns a Tensor.
        group_names: the names of the groups 0, 1, …; then, and with ``"correct"``, values of
            groups are logged, under ``group/<name>/``; else they are in the table, figure and files
            alone, as no logged key depends on data.
        common: the other arguments of :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: an argument out of its range.
    """

    metric_class: ClassVar[Callable[..., OrderMetric]]
    letter: ClassVar[str]  # what the metric is called, "J" for instance
    title: ClassVar[str]  # the figure's
    shown: ClassVar[Mapping[str, str]]  # the table's columns: key of the metric's result → title
    floor: ClassVar[str] = ""  # a note on the least value of a reading

    def __init__(
        self,
        rows: int = 16,
        cols: int = 16,
        n_samples: int = 240,
        every: int = 20,
        contexts: int = 3,
        ratios: Sequence[float] | None = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        pairs: PairSampler | None = None,
        payoff: str = "log_odds",
        baseline: Baseline | None = None,
        only_correct: bool | None = None,
        reading: Reading = "plug_in",
        attack: AttackFactory | None = None,
        seed: int = 0,
        chunk_size: int | None = None,
        players: Players | None = None,
        groups: Literal["label", "correct"] | GroupFunction | None = None,
        group_names: Sequence[str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(every, **common)
        whole("n_samples", n_samples, 1)
        one_of("reading", reading, [r for r in READINGS if f"{self.letter}_{r}" in self.shown])
        if attack is not None:
            check_factory("attack", attack)
        self.n_samples, self.reading, self.attack, self.seed = n_samples, reading, attack, seed
        self.players = players or GridPlayers(rows, cols)
        self.names = fixed_names(groups, group_names)
        logged = {self.letter: f"{self.letter}_{reading}"}
        logged |= {"signed": "signed"} if "signed" in self.shown else {}
        self._logged = logged | {f"{k}_stderr": f"{column}_stderr" for k, column in logged.items()}
        if ratios is None:
            if players is not None:
                raise InputError("ratios", None, "parts m/(n−2), as players are given")
            orders = {round(r * (rows * cols - 2)): r for r in reversed(REFERENCE_RATIOS)}
            ratios = tuple(sorted(orders.values()))
        self.metric = self.metric_class(
            self.players,
            payoff,
            ratios,
            pairs or (NeighbourPairs(2, 16) if players is None else RandomPairs()),
            contexts,
            baseline=baseline,
            only_correct=only_correct,
            groups=groups,
            seed=seed,
            chunk_size=chunk_size,
        )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self.require_baseline(self.metric.baseline, pl_module)

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        network = self.network(trainer, loader)
        metric = copy.deepcopy(self.metric).to(trainer.strategy.root_device)
        if is_fast(trainer):
            metric.contexts, metric.only_correct, metric.chunk_size = 2, False, 64
            metric.ratios = metric.ratios[:: max(1, len(metric.ratios) // 2)]
        attacked = copy.deepcopy(metric)
        attacked.only_correct = False  # they are chosen by the clean image
        attack = None if self.attack is None else make_attack(self.attack, network)
        places = self.places(trainer, loader, fast=1)
        for block in shard(places, trainer, _MEASURED if attack is None else _ATTACKED):
            x, y = self.samples(trainer, loader, block)
            metric.update(network, x, y)
            if attack is not None:
                if metric.only_correct:
                    right = eval_logits(network, x).argmax(-1) == y
                    x, y = x[right], y[right]
                if len(x):
                    attacked.update(network, craft(attack, x, y, seed=self.seed), y)
        n, ratios = self._count(trainer, loader, places), list(metric.ratios)
        orders = [round(ratio * (n - 2)) for ratio in ratios]
        result = {
            "players": n,
            "ratios": ratios,
            "orders": orders,
            **plain_results(metric.compute(), self.names),
        }
        if attack is not None:
            result["adversarial"] = plain_results(attacked.compute(), self.names)
        if result["samples"] == 0:
            rank_zero_warn(f"No sample for {self.letter}(m) is classified correctly.")
        return result

    def _count(self, trainer: L.Trainer, loader: Any, places: list[int]) -> int:
        """The number of players, of sentences the longest's; the same on every process."""
        if isinstance(self.players, GridPlayers):
            return self.players.rows * self.players.cols
        return self.players.count(self.samples(trainer, loader, places)[0].shape[1:])

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        parts, begin = {"": result, "adv/": result.get("adversarial", {})}, self.keys_begin[0]
        named = group_keys(result, self.letter, self.reading) if self.names else ()
        return {f"{split}/{begin}/{key}": value for key, value in named} | {
            f"{split}/{begin}/{prefix}{name}/{ratio:g}": value
            for prefix, part in parts.items()
            for name, column in self._logged.items()
            for ratio, value in zip(result["ratios"], part.get(column, ()), strict=False)
        }

    def history_figures(self) -> Mapping[str, Figure]:
        figures = dict[str, Figure]()
        for prefix, images in (("", "clean"), ("adv/", "adversarial")):
            title = f"{self.letter}(m) over training, {images} images, {self.players}"
            key = f"{self.keys_begin[0]}/{prefix}{self.letter}"
            figures |= self.over_training(key, f"{self.letter}(m)", title)
        return figures

    def table(self, result: Result) -> Table:
        columns: dict[str, Iterable[str]] = {
            "m": map(str, result["orders"]),
            "m/(n−2)": (f"{ratio:g}" for ratio in result["ratios"]),
        }
        columns |= {name: _with_errors(result, key) for key, name in self.shown.items()}
        for key, name in self.shown.items():
            if "adversarial" in result and key in self._logged.values():
                columns[f"adv. {name}"] = _with_errors(result["adversarial"], key)
        # How many contexts pairs had, "29 to 33" for instance; end orders have one each.
        inner = [round(count) for count in result["contexts"] if count > 1.5] or [1]
        contexts = " to ".join(map(str, sorted({min(inner), max(inner)})))
        title = f"{self.letter}(m) on {result['samples']} samples, {self.players}"
        table = Table(*(Column(name, justify="right") for name in columns), title=title)
        table.caption = (
            f"± one standard error over samples; plug-in is biased up{self.floor}, split-sign "
            f"down, each most where |I| is small ({contexts} contexts per pair)"
        )
        for cells in zip(*columns.values(), strict=True):
            table.add_row(*cells)
        if "groups" not in result:
            return table
        key = f"{self.letter}_{self.reading}"
        both = Table.grid()
        both.add_row(table)
        both.add_row(group_table(result, key, f"{self.shown[key]} of groups of samples"))
        return both

    def figures(self, result: Result) -> Mapping[str, Figure]:
        named = self.metric.payoff
        payoff = named.replace("_", " ") if isinstance(named, str) else "own payoff"
        title = f"{self.title}, {self.players}, {payoff}, {result['samples']} samples"
        begin, label = self.keys_begin[0], f"{self.letter}(m)"
        figures = {f"{begin}/spectrum": spectrum_figure(self.curves(result), title, label)}
        if "groups" in result:
            curves = group_curves(result, f"{self.letter}_{self.reading}")
            figures[f"{begin}/groups"] = spectrum_figure(curves, f"{title}, groups", label)
        return figures

    def figure_file(self, key: str) -> str:
        return self.stem + "_groups" * key.endswith("/groups")

    def curves(self, result: Result) -> dict[str, dict[str, Any]]:
        """Curves of the figure, by their names."""
        parts, readings = {"": result}, list(READINGS)
        if "adversarial" in result:  # all readings of both would be six bands above each other
            parts = {"clean, ": result, "adversarial, ": result["adversarial"]}
            readings = [self.reading]
        return {
            images + reading.replace("_", "-"): {
                "orders": result["orders"],
                "value": part[f"{self.letter}_{reading}"],
                "stderr": part[f"{self.letter}_{reading}_stderr"],
            }
            for images, part in parts.items()
            for reading in readings
            if f"{self.letter}_{reading}" in result
        }

    def csv_rows(self, result: Result) -> Mapping[str, Sequence[Iterable[Any]]]:
        attacked = {f"adv_{key}": value for key, value in result.get("adversarial", {}).items()}
        columns = {k: v for k, v in {**result, **attacked}.items() if isinstance(v, list)}
        files: dict[str, Sequence[Iterable[Any]]] = {
            self.stem: [list(columns), *zip(*columns.values(), strict=True)]
        }
        return files | ({f"{self.stem}_groups": group_rows(result)} if "groups" in result else {})


class SpectrumMonitor(SampledMetric):
    """Measures J(m) (:class:`~interaction_train.metrics.InteractionSpectrum`) on a fixed sample.

    - In ``fit``: ``val/interaction/J/<ratio>`` and the signed means
      ``val/interaction/signed/<ratio>``, each with ``…_stderr/<ratio>``, and a figure. At the end
      ``val/interaction/history``, a table of all of them, and a heat map (order × epoch).
    - In ``validate`` and ``test``: a table, ``spectrum.csv``, ``spectrum.json`` and
      ``spectrum.png`` in the run's folder, and the same keys (``test/…``) to the loggers.

    With an attack adversarial versions are measured for their true labels, fooled or not (survey,
    Sec. 5.2: which orders an attack changes): ``val/interaction/adv/…``. J(m) is relative to its
    own mean over orders; the signed means compare both. Groups of samples add a curve and a row
    each, their flexibility (:func:`~interaction_train.metrics.flexibility.flexibility`) and
    ``spectrum_groups.csv``. Arguments: see :class:`SampledMetric`.
    """

    keys_begin, stem, letter, title = ("interaction",), "spectrum", "J", "Interactions"
    metric_class = InteractionSpectrum
    shown: ClassVar = {
        "J_plug_in": "J plug-in",
        "J_split_sign": "J split",
        "J_rms": "J rms",
        "signed": "mean I",
    }


class DisentanglementMonitor(SampledMetric):
    """Measures D(m) (:class:`~interaction_train.metrics.Disentanglement`) on a fixed sample.

    D(m) is 1 where interactions of order m have one sign in all contexts. With K contexts the
    plug-in reading cannot fall below a floor of about 1/√K (exactly that for normal Δ of mean 0),
    which the figure, the table and the files show beside it; it is 1 at the end orders, which have
    one context.

    Samples, keys and files are as with :class:`SpectrumMonitor`: ``val/disentanglement/D/<ratio>``
    with ``D_stderr/<ratio>``, ``disentanglement.csv`` and so on.

    Args:
        n_samples: number of samples, over all processes.
        contexts: contexts per pair and order, in the mean; at least 2. The floor falls with them.
        payoff: what the game reads off the logits.
        reading: which reading is logged, ``plug_in`` or ``split_sign``.
        more: see :class:`SampledMetric`.
    """

    keys_begin, stem, letter = ("disentanglement",), "disentanglement", "D"
    title, floor = "Disentanglement", ", with a floor of about 1/√contexts"
    metric_class = Disentanglement
    shown: ClassVar = {"D_plug_in": "D plug-in", "D_split_sign": "D split"}

    def __init__(
        self,
        n_samples: int = 8,
        contexts: int = 8,
        payoff: str = "log_prob",
        reading: Reading = "plug_in",
        **more: Any,
    ) -> None:
        more |= {"contexts": contexts, "payoff": payoff, "reading": reading}
        super().__init__(n_samples=n_samples, **more)

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        result = super().measure(trainer, loader)
        return {**result, "floor": [count**-0.5 for count in result["contexts"]]}

    def curves(self, result: Result) -> dict[str, dict[str, Any]]:
        orders, floor = result["orders"], result["floor"]
        bound = {"orders": orders, "value": floor, "stderr": [0.0] * len(floor)}
        return {**super().curves(result), "floor of plug-in, 1/√contexts": bound}


def _with_errors(result: Result, key: str) -> Iterable[str]:
    return map(with_error, result[key], result[f"{key}_stderr"])
