"""The files of one explained sample, and the folder that they are in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import pandas as pd
from matplotlib.figure import Figure

from interaction_train.concepts.graph import ConceptGraph
from interaction_train.concepts.trees import InteractionTree
from interaction_train.errors import InputError
from interaction_train.explaining.explanation import Explanation
from interaction_train.recovery import Recovered
from interaction_train.recovery.strongest import Interaction
from interaction_train.tracking.figures import save_figure

_ROUNDING = 1e-6  # relative, of a network's outputs
_PLOTS = ("heatmap", "pairs", "matrix", "spectrum", "network")
_FILES = (
    *(f"{name}.{kind}" for name in (*_PLOTS, "concepts", "tree") for kind in ("png", "svg")),
    *("explanation.json", "players.csv", "pairs.csv"),
    *("concepts.csv", "graph.dot", "graph.json", "tree.txt", "tree.json"),
)


@dataclass(frozen=True)
class FewConcepts:
    """The concepts of an explained sample that are shown.

    Attributes:
        graph: of the strongest, refitted.
        figure: of the graph.
        table: all of them, the strongest first; columns ``kind`` (AND or OR), ``players``,
            ``value``, and ``value_in_graph``, empty where a concept is not in the graph.
    """

    graph: ConceptGraph
    figure: Figure
    table: pd.DataFrame


def few_concepts(explanation: Explanation, count: int, noise: float) -> FewConcepts:
    """The ``count`` strongest concepts within a noise, of an exact explanation of one sample.

    Raises:
        InputError: a noise of nothing: the whole sample is to the network what its absence is.
    """
    values = explanation.all_values("concepts").double()
    empty, full = values[0, 0], values[0, -1]
    if noise > 0 and float((full - empty).abs()) <= _ROUNDING * max(1.0, float(full.abs())):
        got = f"{noise}, for a sample that is to the network what its absence is"
        raise InputError("noise", got, "0, as nothing could be off")
    everything = 2 << explanation.n
    shown = min(count, everything)
    graph = explanation.graph(count=shown, noise=noise)
    table = explanation.top(everything, kind="concepts", noise=noise).drop(columns="stderr")
    in_graph = pd.Series([node.value for node in graph.layer("concept")], dtype=float)
    figure = explanation.plot.graph(count=shown, noise=noise)
    return FewConcepts(graph, figure, table.assign(value_in_graph=in_graph))


def check_folder(folder: Path, overwrite: bool) -> None:
    """Make a folder for the files of a sample.

    Raises:
        InputError: a folder that cannot be written or, without ``overwrite``, has such files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        expected = f"a folder that can be written ({error.strerror})"
        raise InputError("out", repr(str(folder)), expected) from error
    if _there(folder) and not overwrite:
        raise InputError("out", f"{str(folder)!r} with results", "another, or overwrite: true")


def write_files(
    folder: Path,
    explanation: Explanation,
    found: FewConcepts | Recovered | str,
    tree: InteractionTree | None = None,
) -> list[str]:
    """Write figures, tables and graph of an explanation of one sample; the names of the files.

    What an earlier call left there goes.

    Args:
        folder: where to.
        explanation: of one sample.
        found: its concepts, those found among all sets where it is sampled, or why there are none.
        tree: of its words, or None, where players are something else.
    """
    for old in _there(folder):
        (folder / old).unlink()
    for name in _PLOTS:
        _draw(explanation, name, folder)
    explanation.to_json(folder / "explanation.json")
    table = explanation.to_frame().drop(columns="sample")
    for name, order in (("players", 1), ("pairs", 2)):
        rows = table[table["order"] == order].drop(columns="order")
        rows.to_csv(folder / f"{name}.csv", index=False)
    if isinstance(found, Recovered):
        rows = found.interactions(names=explanation.names)
        table = pd.DataFrame(rows, columns=list(Interaction._fields))
        table["players"] = table["players"].map(" & ".join)
        table.to_csv(folder / "concepts.csv", index=False)
    elif not isinstance(found, str):
        save_figure(found.figure, folder / "concepts")
        found.table.to_csv(folder / "concepts.csv", index=False)
        (folder / "graph.dot").write_text(found.graph.to_dot(), encoding="utf-8")
        (folder / "graph.json").write_text(found.graph.to_json(), encoding="utf-8")
    if tree is not None:
        save_figure(tree.plot(f"{explanation.title()}: interaction tree"), folder / "tree")
        (folder / "tree.txt").write_text(f"{tree}\n", encoding="utf-8")
        (folder / "tree.json").write_text(tree.to_json(), encoding="utf-8")
    return _there(folder)


def _draw(explanation: Explanation, name: str, folder: Path) -> None:
    try:
        save_figure(getattr(explanation.plot, name)(), folder / name)
    except InputError as error:  # orders that are sampled may need a larger budget
        print(f"No {name}: {error}")


def _there(folder: Path) -> list[str]:
    return [name for name in _FILES if (folder / name).exists()]
