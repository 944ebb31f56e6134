"""Sparse AND-OR concepts of a network, followed in training on a fixed sample or read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import lightning as L
import torch
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor

from interaction_train.callbacks.grid_monitor import GridMonitor, rows_of_sets
from interaction_train.callbacks.monitor import Result, Split, with_error
from interaction_train.callbacks.samples import gather, shard
from interaction_train.concepts.concepts import Concepts
from interaction_train.concepts.fidelity import fidelity, strength_by_order
from interaction_train.concepts.graph import ConceptGraph, concept_graph
from interaction_train.concepts.selection import Surrogate, select_concepts
from interaction_train.concepts.sparse import sparse_concepts
from interaction_train.errors import in_range, whole
from interaction_train.game.precision import wide
from interaction_train.indices.exact import all_coalitions, summable
from interaction_train.indices.means import told_mean

_TOGETHER = 16  # samples of one call; no result depends on it
_KINDS = {"and": "AND", "or": "OR"}
_SCALARS = ("constant", "objective", "lower_bound", "violation", "steps", "converged")


class ConceptMonitor(GridMonitor):
    """Follows the sparse AND-OR concepts of a fixed sample, on a coarse grid of cells.

    Of each sample the values of all 2^(rows·cols) coalitions are decomposed
    (:func:`~interaction_train.concepts.sparse.sparse_concepts`). Logged, as means over samples:

    - ``val/concepts/k90``: how many concepts make 90 % of Σ|I|; ``val/concepts/salient``: how many
      are above 5 % of the strongest; ``val/concepts/r2_<count>``: R² over all coalitions of the
      ``count`` strongest, refitted (:func:`~interaction_train.concepts.fidelity.fidelity`);
    - ``val/concepts/objective``: Σ|I| over |v(N) − v(∅)|, the ratio of their means;
    - ``val/concepts/and/<m>`` and ``val/concepts/or/<m>``: Σ_{|S|=m} |I(S)| over the ANDs of m = 1
      … n players and the ORs of 2 … n (an OR of one is an AND), in the unit of the payoff. High
      orders are reported to vanish at first and to return with over-fitting (Zhang et al.,
      "Two-Phase Dynamics of Interactions Explains the Starting Point of a DNN Learning Over-Fitted
      Features", 2024).

    Graphs of the first samples, with their ``count`` strongest concepts refitted, go to the loggers
    as ``val/concepts/graph_<place>``; at the end of ``fit`` the history as a table
    ``val/concepts/history``, and heat maps of strength by order and epoch. ``validate`` and
    ``test`` print the concepts of the same samples and write, of all samples, ``concepts.json``,
    with standard errors, and ``concepts.csv``, a row for each concept; and the graphs. Samples to
    which the network gives the same with all cells as with none, or no finite payoff, are left out
    with a warning that names them.

    Args:
        rows: rows of the grid. 3 × 3 cells take a CPU core about 0.4 seconds a sample, 16, the
            most, 45.
        cols: columns of it.
        n_samples: number of samples, over all processes.
        every: k, how often in ``fit``; the first validation is one of them.
        count: how many of the strongest concepts stand for a sample.
        graphs: of how many samples concepts are drawn and printed.
        noise: bound on the error at every coalition, relative to |v(N) − v(∅)|, in [0, 1).
        common: the other arguments of
            :class:`~interaction_train.callbacks.grid_monitor.GridMonitor`.

    Raises:
        InputError: an argument out of its range, or no baseline to be found.
    """

    keys_begin, stem, most_cells = ("concepts",), "concepts", 16  # 65 536 coalitions

    def __init__(
        self,
        rows: int = 3,
        cols: int = 3,
        n_samples: int = 8,
        every: int = 20,
        count: int = 20,
        graphs: int = 2,
        noise: float = 0.04,
        **common: Any,
    ) -> None:
        super().__init__(rows, cols, n_samples, every, **common)
        whole("graphs", graphs, 0)
        whole("count", count, 1, 2 << self.n)
        in_range("noise", noise, 0, 1, below=True)
        self.count, self.graphs, self.noise = count, graphs, noise
        # Graph, image and label by place, on the first process.
        self._shown: dict[int, tuple[ConceptGraph, Tensor, int]] = {}

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        network = self.network(trainer, loader)
        places = self.places(trainer, loader)
        own = [place for block in shard(places, trainer) for place in block]
        rows = []
        for start in range(0, len(own), _TOGETHER):
            block = own[start : start + _TOGETHER]
            x, y = self.samples(trainer, loader, block)
            game = self.game(trainer, network, x, y)
            values = wide(summable(game(all_coalitions(self.n, x.device))))
            kept = values.isfinite().all(-1) & (values[:, -1] != values[:, 0])
            if bool(kept.any()):
                known = torch.stack([torch.tensor(block), y.cpu()], 1).to(values)
                rows.append(_rows(known[kept], values[kept], self.noise))
        gathered = gather(rows, _row_length(self.n), trainer)
        return self._result_of(trainer, loader, places, gathered)

    def _result_of(
        self, trainer: L.Trainer, loader: Any, places: list[int], rows: Tensor
    ) -> Result:
        own, values, concepts = _from_rows(rows, self.n)
        left_out = sorted(set(places) - set(own[:, 0].tolist()))
        self.warn_of_left_out(left_out, len(places), "with all cells is that with none")
        told, self._shown = list[dict[str, Any]](), {}
        if len(rows):
            told, surrogate = _in_words(own, values, concepts, self.cell_names, self.count)
            if trainer.is_global_zero and self.graphs:
                x, _ = self.samples(trainer, loader, own[: self.graphs, 0].tolist())
                for b, (image, sample) in enumerate(zip(x.cpu(), told, strict=False)):
                    graph = concept_graph(surrogate[b], self.cell_names)
                    self._shown[sample["sample"]] = graph, image, sample["label"]
        result: Result = {
            "grid": [self.players.rows, self.players.cols],
            "payoff": self.payoff,
            "noise": self.noise,
            "samples": len(told),
            "left_out": left_out,
        }
        for key in ("k90", "salient", f"r2_{self.count}"):
            result[key] = told_mean(values.new_tensor([sample[key] for sample in told]))
        reach = (values[:, -1] - values[:, 0]).abs()
        result["objective"] = told_mean(concepts.objective, reach)
        for kind, interactions in (("and", concepts.and_), ("or", concepts.or_)):
            first = 1 if kind == "and" else 2
            strength = told_mean(strength_by_order(interactions)[:, first - 1 :])
            result[kind] = {"orders": list(range(first, self.n + 1)), **strength}
        return {**result, "concepts": told}

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        begin = f"{split}/{self.keys_begin[0]}"
        single = ("k90", "salient", f"r2_{self.count}", "objective")
        keys = {f"{begin}/{key}": result[key]["value"] for key in single}
        for kind in _KINDS:
            orders, strengths = result[kind]["orders"], result[kind]["value"]
            keys |= {f"{begin}/{kind}/{m}": x for m, x in zip(orders, strengths, strict=True)}
        return keys

    def figures(self, result: Result) -> Mapping[str, Figure]:
        figures = {}
        for place, (graph, image, label) in self._shown.items():
            title = f"Sample {place}, class {label}: {self.what}, R² = {graph.r2:.3f}"
            pictured = image.dim() == 3 and len(image) in (1, 3)
            cells = self.players.cells(image.shape) if pictured else None
            figure = graph.plot(image if pictured else None, cells, title)
            figures[f"{self.keys_begin[0]}/graph_{place}"] = figure
        return figures

    def figure_file(self, key: str) -> str:
        return key.replace("/", "_")

    def history_figures(self) -> Mapping[str, Figure]:
        figures, axis = dict[str, Figure](), "order (players of a concept)"
        for kind, word in _KINDS.items():
            title = f"{word} concepts over training, {self.what}"
            key = f"{self.keys_begin[0]}/{kind}"
            figures |= self.over_training(key, "Σ|I|, mean over samples", title, axis)
        return figures

    def table(self, result: Result) -> Table:
        columns = [Column(name) for name in ("sample", "class", "kind", "players")]
        columns += [Column(name, justify="right") for name in ("value", "refitted")]
        table = Table(*columns, title=f"Concepts, {self.what}")
        for sample in result["concepts"][: self.graphs]:
            head = [str(sample["sample"]), str(sample["label"])]
            for concept in sample["concepts"][: self.count]:
                numbers = (f"{concept[key]:+.3g}" for key in ("value", "refitted"))
                table.add_row(*head, concept["kind"], " ".join(concept["players"]), *numbers)
                head = ["", ""]
            table.add_section()
        names = {"k90": "concepts for 90 % of Σ|I|", "salient": "above 5 % of the strongest"}
        names |= {f"r2_{self.count}": f"R² of the {self.count} strongest"}
        means = (f"{name}: {with_error(**result[key])}" for key, name in names.items())
        table.caption = f"Means over {result['samples']} samples: {'; '.join(means)}"
        return table

    def csv_rows(self, result: Result) -> Mapping[str, Sequence[Iterable[Any]]]:
        columns = ("sample", "label", "players", "kind", "value", "refitted")
        return {self.stem: rows_of_sets(columns, result["concepts"], "concepts")}


def _row_length(n: int) -> int:
    """The number of columns of the rows of n players."""
    return 2 + (3 << n) + len(_SCALARS)


def _rows(own: Tensor, values: Tensor, noise: float) -> Tensor:
    """Two numbers of each sample ``(B, 2)``, its game ``(B, 2^n)`` and its sparsest concepts."""
    found = sparse_concepts(values, noise)
    scalars = torch.stack([getattr(found, name).to(values) for name in _SCALARS], 1)
    return torch.cat([own.to(values), values, found.and_, found.or_, scalars], 1)


def _from_rows(rows: Tensor, n: int) -> tuple[Tensor, Tensor, Concepts]:
    """What :func:`_rows` put together: two int64 numbers, the game, and its concepts."""
    size = 1 << n
    own, values, i_and, i_or, scalars = rows.split([2, size, size, size, len(_SCALARS)], 1)
    more = dict(zip(_SCALARS, scalars.unbind(1), strict=True))
    more |= {"steps": more["steps"].long(), "converged": more["converged"].bool()}
    return own.long(), values, Concepts(i_and, i_or, **more)


def _in_words(
    own: Tensor, values: Tensor, concepts: Concepts, names: Sequence[str], count: int
) -> tuple[list[dict[str, Any]], Surrogate]:
    """All concepts of each sample, the strongest first, and those that stand for its game.

    ``own`` are place and label ``(B, 2)``; all but the ``count`` strongest have null as refitted.
    """
    surrogate = select_concepts(concepts, values, count)
    everything = select_concepts(concepts, values, 2 * values.shape[-1], refit=False)
    explained = fidelity(concepts, values, [count])
    samples = []
    for b, (place, label) in enumerate(own.tolist()):
        one, refitted = everything[b], surrogate[b].value[0].tolist()
        refitted += [None] * (int(one.count) - len(refitted))
        parts = one.members[0].tolist(), one.is_or[0].tolist(), one.value[0].tolist(), refitted
        told = [
            {
                "players": list(compress(names, members)),
                "kind": "OR" if is_or else "AND",
                "value": value,
                "refitted": best,
            }
            for members, is_or, value, best in zip(*parts, strict=True)
        ]
        samples.append(
            {
                "sample": place,
                "label": label,
                **{name: getattr(concepts, name)[b].item() for name in _SCALARS},
                "range": (values[b, -1] - values[b, 0]).item(),
                "k90": int(explained.k90[b]),
                "salient": int(explained.salient[b]),
                f"r2_{count}": float(surrogate.r2[b]),
                "concepts": told,
            }
        )
    return samples, surrogate
