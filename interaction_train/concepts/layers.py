"""The nodes and edges that a graph of concepts is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["player", "coalition", "concept", "sum"]


@dataclass(frozen=True)
class GraphNode:
    """A node.

    Attributes:
        id: unique, such as ``"player3"``.
        kind: the layer it is in.
        label: names of its players, joined by ∧ or ∨.
        players: their numbers.
        value: of a concept, what it adds where it counts; of the sum, the surrogate's value with
            all players; of a player or coalition, the strength Σ|I| of the concepts that hold it.
        is_or: whether one of its players is enough.
    """

    id: str
    kind: Kind
    label: str
    players: tuple[int, ...]
    value: float
    is_or: bool


@dataclass(frozen=True)
class Layers:
    """Players, coalitions that concepts share, concepts, and their sum.

    Attributes:
        nodes: players, coalitions, concepts and the sum, in this order.
        edges: pairs of ids, from what is a part to what it is a part of.
        names: of all n players.
        constant: the surrogate's value with no player.
        r2: the surrogate's R² over all coalitions; NaN where the game is constant.
        description_length: of the concepts, before merging and after.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    constant: float
    r2: float
    description_length: tuple[float, float]

    def layer(self, kind: Kind) -> list[GraphNode]:
        """The nodes of one kind."""
        return [node for node in self.nodes if node.kind == kind]
