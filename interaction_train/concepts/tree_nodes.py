"""What an interaction tree is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from interaction_train.concepts.set_values import SetValues

_LETTERS = 60  # of a node's words in a line, beyond which they are shortened
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

    def text(self) -> str:
        """The tree as lines for a terminal: ψ, then the words of a node; its parts below it."""
        lines = [*self._lines(self.nodes[-1], "", "")]
        if any(node.tie for node in self.merges):
            lines.append("~ another merge came within two errors")
        return "\n".join(lines)

    __str__ = text

    def to_json(self) -> str:
        """Nodes and the rest as an object of JSON; NaN is null."""
        return json.dumps(_without_nan(asdict(self)), ensure_ascii=False, indent=2, allow_nan=False)

    def _lines(self, node: TreeNode, first: str, rest: str) -> Iterator[str]:
        """A node's line, which begins with ``first``, and its parts', which begin with ``rest``."""
        words = _short(self.label(node))
        if not node.parts:
            yield f"{first}{words}"
            return
        error = f" ± {node.psi_stderr:.2g}" if node.psi_stderr else ""
        tie = " ~" if node.tie else ""
        psi = f"{node.psi:+.4g}" if node.psi else "0"
        yield f"{first}{psi}{error}{tie}  {words}"
        for part, branch, below in zip(node.parts, ("├─ ", "└─ "), ("│  ", "   "), strict=True):
            yield from self._lines(self.nodes[part], rest + branch, rest + below)


def _short(words: str) -> str:
    """Whole words, as many as fit, or letters of the first."""
    if len(words) <= _LETTERS:
        return words
    most = words[: _LETTERS - 1]
    return f"{most.rpartition(' ')[0] or most[:-1]} …"


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
