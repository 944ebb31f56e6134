"""What the command line says about one explained sample."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from interaction_train.concepts.trees import InteractionTree
from interaction_train.explaining.explanation import Explanation
from interaction_train.explaining.files import FewConcepts
from interaction_train.recovery import Recovered

_SHOWN = 5  # rows of each kind


def print_summary(
    name: str,
    explanation: Explanation,
    logits: Tensor,
    found: FewConcepts | Recovered | str,
    tree: InteractionTree | None = None,
) -> None:
    """Print the classes, the strongest players, pairs and concepts, and how good the graph is.

    Args:
        name: of the sample.
        explanation: of this sample alone.
        logits: of it, ``(classes,)``.
        found: its concepts; those found among all sets where it is sampled, or why there are none.
        tree: of its words; None for other players.
    """
    console = Console(markup=False, highlight=False)
    console.print(f"\n{name}: {_classes(explanation, logits)}")
    payoff = explanation.payoff.replace("_", " ")
    columns = [Column("strongest"), Column("", overflow="fold"), Column(payoff, justify="right")]
    if not explanation.exact:
        columns.append(Column("± stderr", justify="right"))
    table = Table(*columns)
    for kind in ("players", "pairs"):
        rows = explanation.top(_SHOWN, kind=kind)
        for at, row in enumerate(rows.itertuples(index=False)):
            cells = [kind if at == 0 else "", str(row.players), f"{row.value:+.3f}"]
            cells += [] if explanation.exact else [f"{row.stderr:.3f}"]
            table.add_row(*cells, end_section=at == len(rows) - 1)
    concepts = _concepts(explanation, found)
    for at, (words, value) in enumerate(concepts[:_SHOWN]):
        table.add_row("" if at else "concepts", words, f"{value:+.3f}")
    console.print(table)
    if isinstance(found, str):
        console.print(f"No concepts: {found}")
    elif isinstance(found, Recovered):
        console.print(f"Found among all sets of players: {found.quality()}.")
    else:
        console.print(_told(explanation, found, len(concepts)))
    if tree is not None:
        console.print(f"Interaction tree, ψ in the unit of {payoff}:\n{tree}")


def _concepts(
    explanation: Explanation, found: FewConcepts | Recovered | str
) -> list[tuple[str, float]]:
    """Words and values, the strongest first."""
    if isinstance(found, str):
        return []
    if isinstance(found, Recovered):
        return [(str(one), one.value) for one in found.interactions(names=explanation.names)]
    nodes = sorted(found.graph.layer("concept"), key=lambda node: -abs(node.value))
    names, between = explanation.names, (" AND ", " OR ")
    words = (between[node.is_or].join(names[i] for i in node.players) for node in nodes)
    return [(word, node.value) for word, node in zip(words, nodes, strict=True)]


def _told(explanation: Explanation, found: FewConcepts, shown: int) -> str:
    if found.table.empty:
        return f"No concepts: all 2^{explanation.n} coalitions have one value."
    return (
        f"The graph shows {shown} of {len(found.table)} concepts; refitted, they reproduce the "
        f"network on all 2^{explanation.n} coalitions with R² = {found.graph.r2:.3f}."
    )


def print_files(folder: Path, files: list[str]) -> None:
    """Print where the files are, those of one stem together."""
    stems: dict[str, list[str]] = {}
    for file in files:
        stem, _, kind = file.partition(".")
        stems.setdefault(stem, []).append(kind)
    told = [f"{s}.{k[0]}" if len(k) == 1 else f"{s}.{{{','.join(k)}}}" for s, k in stems.items()]
    print(f"Written to {folder}: {', '.join(told)}")


def _classes(explanation: Explanation, logits: Tensor) -> str:
    shares = logits.double().softmax(-1)
    best, label = int(shares.argmax()), int(explanation.labels[0])
    told = f"predicted {explanation.class_name(best)} ({100 * float(shares[best]):.1f} %)"
    if label != best:
        share = 100 * float(shares[label])
        told += f", explained {explanation.class_name(label)} ({share:.1f} %)"
    how = "all" if explanation.exact else "a sample of"
    return f"{told}; {how} {explanation.evaluations} coalitions of {explanation.n} players"
