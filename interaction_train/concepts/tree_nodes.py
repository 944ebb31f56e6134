"""What an interaction tree is made of."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from interaction_train.concepts.set_values import SetValues

Nested = str | int | tuple["Nested", "Nested"]


@dataclass(frozen=True, kw_only=True)
class TreeNode(SetValues):
    """A set of players S that were merged, or one player; with B, T and φ of S.

    Attributes:
        players: S, in their order.
        parts: which two nodes it was merged from; none for a player.
        psi: ψ of its two parts, in the unit of the payoff; 0 for a player.
        psi_stderr: its standard error; 0 where exact.
        density: r, the share of its |ψ| in those of all candidates that touch its parts; 0 where
            these are all 0.
        tie: whether another candidate came within two errors of what it was chosen by.
    """

    players: tuple[int, ...]
    parts: tuple[int, ...] = ()
    psi: float = 0.0
    psi_stderr: float = 0.0
    density: float = 0.0
    tie: bool = False


@dataclass(frozen=True)
class TreeNodes:
    """The nodes of a binary tree over n players.

    Attributes:
        nodes: the n players, then the n − 1 merges in the order of merging; the last is the root.
        names: of the players.
        rule: what the next merge was chosen by.
        neglected: the share of Σ|ψ| over all pairs of nodes that pairs of neighbours leave out,
            over all levels; NaN where it was not measured. Where ψ are sampled their noise counts,
            so that many far pairs without interaction show as some.
        neglected_by_level: the same before each of the n − 1 merges.
        evaluations: coalitions evaluated.
    """

    nodes: tuple[TreeNode, ...]
    names: tuple[str, ...]
    rule: str
    neglected: float
    neglected_by_level: tuple[float, ...]
    evaluations: int

    @property
    def merges(self) -> tuple[TreeNode, ...]:
        """The n − 1 inner nodes, in the order of merging."""
        return self.nodes[len(self.names) :]

    def spans(self) -> tuple[tuple[int, ...], ...]:
        """The players of every merge, in the order of merging."""
        return tuple(node.players for node in self.merges)

    def nested(self, names: bool = True) -> Nested:
        """The tree as pairs of pairs of names, or of numbers of players."""
        built: list[Nested] = list(self.names if names else range(len(self.names)))
        for node in self.merges:
            first, second = node.parts
            built.append((built[first], built[second]))
        return built[-1]

    def label(self, node: TreeNode) -> str:
        """The names of a node's players, with … where there is a gap between two of them."""
        words: list[str] = []
        for k, player in enumerate(node.players):
            if k and player > node.players[k - 1] + 1:
                words.append("…")
            words.append(" ".join(self.names[player].split()))
        return " ".join(words)

    def to_json(self) -> str:
        """Nodes and the rest as an object of JSON; NaN is null."""
        return json.dumps(_without_nan(asdict(self)), ensure_ascii=False, indent=2, allow_nan=False)


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
