"""One prediction as a graph: players, coalitions that concepts share, concepts, and their sum."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import torch
from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.concepts.graph_figure import graph_figure
from interaction_train.concepts.layers import GraphNode, Kind, Layers
from interaction_train.concepts.merging import Merging, merge_shared
from interaction_train.concepts.selection import Surrogate
from interaction_train.errors import InputError, at_least


class ConceptGraph(Layers):
    """What :func:`concept_graph` returns: :class:`~interaction_train.concepts.layers.Layers`."""

    def to_dot(self) -> str:
        """The graph in Graphviz's language."""
        shapes = {"player": "box", "coalition": "ellipse", "concept": "box", "sum": "circle"}
        lines = ["digraph concepts {", "  rankdir=LR;"]
        for node in self.nodes:
            text = node.label if node.kind == "player" else f"{node.label}\n{node.value:+.4g}"
            style = "dashed" if node.is_or else "solid"
            look = f"shape={shapes[node.kind]}, style={style}"
            lines.append(f"  {node.id} [label={_quoted(text)}, {look}];")
        for kind in ("player", "coalition", "concept"):
            same = "; ".join(node.id for node in self.layer(kind))
            lines.append(f"  {{ rank=same; {same} }}")
        lines += [f"  {source} -> {target};" for source, target in self.edges]
        return "\n".join([*lines, "}"]) + "\n"

    def to_json(self) -> str:
        """Nodes, edges and the rest as an object of JSON; an R² of NaN is null."""
        before, after = self.description_length
        content = {
            "players": self.names,
            "constant": self.constant,
            "r2": self.r2 if self.r2 == self.r2 else None,
            "description_length": {"before": before, "after": after},
            "nodes": [asdict(node) for node in self.nodes],
            "edges": self.edges,
        }
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)

    def plot(
        self, image: Tensor | None = None, cells: Tensor | None = None, title: str | None = None
    ) -> Figure:
        """The graph from left to right; colour is sign, width is strength, dashes are ORs.

        Args:
            image: ``(C, H, W)`` in [0, 1] with 1 or 3 channels; players, coalitions and concepts
                then show it with all but their cells greyed.
            cells: ``(H, W)`` int64, the player of each pixel; needed with ``image``.
            title: default: the number of concepts and R².

        Raises:
            InputError: an image without cells or the other way round, or of other shapes.
        """
        return graph_figure(self, image, cells, title)


def concept_graph(
    surrogate: Surrogate, names: Sequence[str] | None = None, merges: int = 5
) -> ConceptGraph:
    """The graph of one sample's concepts, with coalitions that several of them share.

    Merging follows the description length of :mod:`~interaction_train.concepts.merging`. ANDs share
    coalitions that are ANDs, ORs share coalitions that are ORs, never one with the other: a concept
    stays what it is when a coalition stands for its players, a ∧ b ∧ c = (a ∧ b) ∧ c and
    a ∨ b ∨ c = (a ∨ b) ∨ c, which no mixture does. Players in no concept are no nodes.
    Deterministic: ties go to ANDs, then to the lowest index.

    Args:
        surrogate: of one sample; ``surrogate[i]`` of a batch.
        names: of the n players; default: their numbers.
        merges: at most so many coalitions, at least 0.

    Raises:
        InputError: a surrogate of several samples, names of another number, ``merges`` below 0.
    """
    if len(surrogate) != 1:
        expected = "one sample, such as surrogate[0]"
        raise InputError("surrogate", f"{len(surrogate)} samples", expected)
    n = surrogate.n
    players = tuple(map(str, range(n) if names is None else names))
    if len(players) != n:
        raise InputError("names", f"{len(players)} names", f"{n}, one per player")
    at_least("merges", merges, 0)
    one = surrogate[0]
    members, is_or = one.members[0].cpu(), one.is_or[0].cpu()
    value = one.value[0].detach().double().cpu()
    merging = merge_shared(members, is_or, value.abs(), merges)
    everyone = surrogate(torch.ones(1, n, dtype=torch.bool, device=surrogate.members.device))
    total = GraphNode("sum", "sum", "Σ", tuple(range(n)), float(everyone), False)
    words = _words(merging, value.abs(), players)
    rows = zip(map(numbers_of, members), is_or.tolist(), value.tolist(), strict=True)
    concepts = [
        GraphNode(f"concept{k}", "concept", _label(players, who, either), who, x, either)
        for k, (who, either, x) in enumerate(rows)
    ]
    edges = _edges(merging, words, concepts, total)
    sources = {source for source, _ in edges}
    return ConceptGraph(
        nodes=(*(word for word in words if word.id in sources), *concepts, total),
        edges=edges,
        names=players,
        constant=float(one.constant[0]),
        r2=float(one.r2[0]),
        description_length=(merging.before, merging.after),
    )


def _words(merging: Merging, strength: Tensor, names: Sequence[str]) -> list[GraphNode]:
    """Nodes of all players and coalitions, in the order of the words."""
    n = merging.players.shape[1]
    kinds = [False] * n + merging.is_or.tolist()
    holds = _holds(merging)
    nodes = []
    for w, (who, is_or) in enumerate(zip(map(numbers_of, merging.players), kinds, strict=True)):
        kind: Kind = "player" if w < n else "coalition"
        name = f"{kind}{w if w < n else w - n}"
        value = float(strength @ holds[:, w].double())
        nodes.append(GraphNode(name, kind, _label(names, who, is_or), who, value, is_or))
    return nodes


def _holds(merging: Merging) -> Tensor:
    """Which concepts hold a word, itself or inside of another, bool ``(k, n + m)``."""
    holds = merging.uses.clone()
    n = merging.players.shape[1]
    for m in reversed(range(len(merging.parts))):  # a coalition's parts are older than itself
        holds |= holds[:, n + m, None] & merging.parts[m]
    return holds


def _edges(
    merging: Merging, words: list[GraphNode], concepts: list[GraphNode], total: GraphNode
) -> tuple[tuple[str, str], ...]:
    coalitions = [word for word in words if word.kind == "coalition"]
    inner = [
        (words[w].id, coalition.id)
        for coalition, part in zip(coalitions, merging.parts, strict=True)
        for w in numbers_of(part)
    ]
    used = [
        (words[w].id, concept.id)
        for concept, part in zip(concepts, merging.uses, strict=True)
        for w in numbers_of(part)
    ]
    return (*inner, *used, *((concept.id, total.id) for concept in concepts))


def numbers_of(chosen: Tensor) -> tuple[int, ...]:
    """The places where a bool ``(n,)`` is true."""
    return tuple(chosen.nonzero().flatten().tolist())


def _label(names: Sequence[str], players: Sequence[int], is_or: bool) -> str:
    return (" ∨ " if is_or else " ∧ ").join(names[i] for i in players)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
