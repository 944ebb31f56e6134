"""Where a network's interactions lie in images, and images revised by its prototypical concepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, product
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor, nn

from interaction_train.callbacks.grid_monitor import GridMonitor, rows_of_sets
from interaction_train.callbacks.monitor import Result, Split
from interaction_train.callbacks.samples import is_fast
from interaction_train.concepts.features import MOST
from interaction_train.errors import InputError, in_range, one_of, whole
from interaction_train.game.evaluation import inner_modules
from interaction_train.game.layers import find_layer
from interaction_train.game.payoffs import log_odds
from interaction_train.game.players import GridPlayers
from interaction_train.indices.map_figure import interaction_maps_figure
from interaction_train.indices.maps import InteractionMaps, interaction_maps
from interaction_train.indices.means import told_mean
from interaction_train.revising.changes import CHANGES, Kind
from interaction_train.revising.revise import revise_image
from interaction_train.revising.revision import Revision, revisions_figure
from interaction_train.revising.sets import check_counts

_SUMS = ("strengthened", "weakened")
_NOTHING = {"value": torch.nan, "stderr": torch.nan}


class VisualConcepts(GridMonitor):
    """Interaction maps and revisions of a few images, in ``validate`` and ``test``.

    - Maps of Σ_j |I^(m)(i,j)| over the cells i of a grid at a low, a middle and a high order
      (:func:`~interaction_train.indices.maps.interaction_maps`; survey, Sec. 4.2). Logged is their
      mean over cells and images, ``val/visual_concepts/map/<m>``, in the unit of the payoff.
    - Images in which prototypical sets of cells are strengthened and others weakened
      (:func:`~interaction_train.revising.revise.revise_image`; Sec. 4.3), for every m1 of
      ``weaken`` and m2 of ``strengthen``. Logged are, as ``val/visual_concepts/<m1>_<m2>/…``,
      ``strengthened`` and ``weakened``, the strength of these sets over that in the originals
      (ratios of the means over images), and ``log_odds``, what the label's log-odds gain.

    Goes to a table, ``visual_concepts.json``, ``visual_concepts.csv`` (a row for each strengthened
    set), ``visual_concepts_maps.png`` and ``visual_concepts_revisions.png`` (for images of one or
    three channels) and the loggers. The first process measures.

    Args:
        layer: dotted name of the layer whose output is the feature.
        rows: rows of the grid whose sets of cells are concepts; with ``cols`` at most 16 cells.
        cols: columns of it.
        n_samples: number of images; ``fast_dev_run`` takes two, and two steps.
        strengthen: numbers of sets to strengthen, m2.
        weaken: numbers of sets to weaken, m1.
        weight: λ, of what is strengthened.
        steps: of a revision.
        change: ``"colour"`` or ``"pixels"``.
        map_rows: rows of the grid of the maps.
        map_cols: columns of it.
        contexts: contexts of each pair and order of the maps.
        common: the other arguments of
            :class:`~interaction_train.callbacks.grid_monitor.GridMonitor`; the payoff is
            that of the maps.

    Raises:
        InputError: an argument out of its range, no such layer, or no baseline to be found.
    """

    keys_begin, stages, stem = ("visual_concepts",), ("validate", "test"), "visual_concepts"
    most_cells = MOST

    def __init__(
        self,
        layer: str,
        rows: int = 3,
        cols: int = 3,
        n_samples: int = 4,
        strengthen: Sequence[int] = (20,),
        weaken: Sequence[int] = (300,),
        weight: float = 1.0,
        steps: int = 25,
        change: Kind = "colour",
        map_rows: int = 4,
        map_cols: int = 4,
        contexts: int = 20,
        **common: Any,
    ) -> None:
        super().__init__(rows, cols, n_samples, 1, **common)
        self.map_players = GridPlayers(map_rows, map_cols)
        for name, several in (("strengthen", strengthen), ("weaken", weaken)):
            if not several or not isinstance(several, list | tuple):
                raise InputError(name, several or "none", "a list of at least one number of sets")
        self.pairs = list(product(weaken, strengthen))
        for m1, m2 in self.pairs:
            check_counts(self.n, m2, m1)
        if len(set(self.pairs)) < len(self.pairs):
            raise InputError("strengthen", f"{strengthen} and {weaken}", "each number once")
        if map_rows * map_cols < 2:
            raise InputError("map_rows", f"{map_rows} x {map_cols} cells", "at least two")
        whole("steps", steps, 1)
        whole("contexts", contexts, 2)
        in_range("weight", weight, 0, float("inf"), below=True)
        one_of("change", change, list(CHANGES))
        self.layer, self._layer = layer, self.adapter.layer_name(layer)
        self.weight, self.steps, self.change, self.contexts = weight, steps, change, contexts
        # Labels, maps and revisions, on the first process.
        self._shown: tuple[Tensor, InteractionMaps, list[Revision]] | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.layer not in inner_modules(pl_module):  # which may be found to be the network
            find_layer(self.adapter.network(pl_module, None), self._layer)
        super().on_fit_start(trainer, pl_module)

    def measure(self, trainer: Any, loader: Any) -> Result:
        if not trainer.is_global_zero:
            return {}
        places = self.places(trainer, loader)
        with torch.inference_mode(False):  # whose tensors have no gradients, a Normalize's either
            network, (x, y) = self.network(trainer, loader), self.samples(trainer, loader, places)
            game = self.game(trainer, network, x, y, self.map_players)
            maps = interaction_maps(game, self.contexts)
            steps = min(2, self.steps) if is_fast(trainer) else self.steps
            revisions = [self._revised(network, x, m1, m2, steps) for m1, m2 in self.pairs]
        self._shown = y, maps, revisions
        return {
            "samples": len(x),
            "places": places,
            "labels": y.tolist(),
            "layer": self.layer,
            "grid": [self.players.rows, self.players.cols],
            "change": self.change,
            "weight": self.weight,
            "steps": steps,
            "maps": {
                "grid": [self.map_players.rows, self.map_players.cols],
                "payoff": self.payoff,
                "orders": list(maps.orders),
                "exact": list(maps.exact),
                "partners": maps.partners,
                "plug_in": maps.plug_in.tolist(),
                "split_sign": maps.split_sign.tolist(),
            },
            "revisions": [
                {"m1": m1, "m2": m2, **_told(revision, places, y, self.cell_names)}
                for (m1, m2), revision in zip(self.pairs, revisions, strict=True)
            ],
        }

    def _revised(self, network: nn.Module, x: Tensor, m1: int, m2: int, steps: int) -> Revision:
        return revise_image(
            network, self._layer, x, self.players, m2, m1, weight=self.weight, steps=steps,
            change=self.change, baseline=self.baseline, chunk_size=self.chunk_size,
        )  # fmt: skip

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        begin, maps = f"{split}/{self.keys_begin[0]}", result["maps"]
        means = torch.tensor(maps["plug_in"]).nanmean((0, 2)).tolist()
        keys = {f"{begin}/map/{m}": mean for m, mean in zip(maps["orders"], means, strict=True)}
        for told in result["revisions"]:
            for name in (*_SUMS, "log_odds"):
                keys[f"{begin}/{told['m1']}_{told['m2']}/{name}"] = told[name]["value"]
        return keys

    def figures(self, result: Result) -> Mapping[str, Figure]:
        if self._shown is None or self._shown[2][0].original.shape[1] not in (1, 3):
            return {}
        y, maps, revisions = self._shown
        x, rows = revisions[0].original, [f"class {label}" for label in y.tolist()]
        payoff = self.payoff.replace("_", " ")
        title = f"How strongly cells interact with all others, {payoff}"
        cells = self.map_players.cells(x.shape[1:])
        key = self.keys_begin[0]
        return {
            f"{key}/maps": interaction_maps_figure(x, cells, maps, rows, title),
            f"{key}/revisions": revisions_figure(revisions, rows, f"Revised, {self._revisions}"),
        }

    def figure_file(self, key: str) -> str:
        return key.replace("/", "_")

    @property
    def _revisions(self) -> str:
        return f"{self.players} at {self.layer}, by {self.change}"

    def table(self, result: Result) -> Table:
        names = ("sample", "class", "m₁", "m₂", *(f"{name}\ntimes" for name in _SUMS), "log-odds")
        columns = (Column(name, justify="right") for name in names)
        table = Table(*columns, title=f"Visual concepts, {self._revisions}")
        for told in result["revisions"]:
            for image in told["images"]:
                times = (_times(*image[name]) for name in _SUMS)
                odds = " → ".join(f"{value:.3g}" for value in image["log_odds"])
                counts = str(told["m1"]), str(told["m2"])
                table.add_row(str(image["sample"]), str(image["label"]), *counts, *times, odds)
            table.add_section()
        return table

    def csv_rows(self, result: Result) -> Mapping[str, Sequence[Sequence[Any]]]:
        columns = ("sample", "label", "m1", "m2", "players", "before", "after")
        images = ({**told, **image} for told in result["revisions"] for image in told["images"])
        return {self.stem: rows_of_sets(columns, images, "sets")}


def _told(revision: Revision, places: list[int], y: Tensor, names: Sequence[str]) -> Result:
    """A revision in numbers and words: means over images, and each image."""
    first, last = revision.history[:, 0].double(), revision.history[:, -1].double()
    odds = torch.stack([log_odds(z, y) for z in (revision.logits, revision.revised_logits)], 1)
    result: Result = {
        name: told_mean(last[:, k], first[:, k]) if bool(first[:, k].any()) else _NOTHING
        for k, name in enumerate(_SUMS)
    }
    result["log_odds"] = told_mean(odds.double().diff().squeeze(1))
    result["images"] = [
        {
            "sample": place,
            "label": int(y[b]),
            **{name: [float(first[b, k]), float(last[b, k])] for k, name in enumerate(_SUMS)},
            "log_odds": odds[b].tolist(),
            "sets": list(_sets(revision, b, names)),
        }
        for b, place in enumerate(places)
    ]
    return result


def _sets(revision: Revision, b: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The strengthened sets of an image, the strongest first."""
    members = revision.strengthened[b]
    index = (members.long() << torch.arange(len(names), device=members.device)).sum(-1)
    strengths = (one[b, index].tolist() for one in (revision.strengths, revision.revised_strengths))
    for chosen, before, after in zip(members.tolist(), *strengths, strict=True):
        yield {"players": list(compress(names, chosen)), "before": before, "after": after}


def _times(before: float, after: float) -> str:
    return f"{after / before:.2f}" if before else "–"
