"""An interaction tree in the letters of a terminal."""

from __future__ import annotations

from interaction_train.concepts.tree_nodes import TreeNode, TreeNodes

_LETTERS = 60  # of a node's words, beyond which they are shortened


def tree_text(tree: TreeNodes) -> str:
    """What :meth:`~interaction_train.concepts.trees.InteractionTree.text` returns."""
    lines: list[str] = []
    _write(tree, tree.nodes[-1], "", "", lines)
    if any(node.tie for node in tree.merges):
        lines.append("~ another merge came within two errors")
    return "\n".join(lines)


def _write(tree: TreeNodes, node: TreeNode, first: str, rest: str, lines: list[str]) -> None:
    """Add a node's line, which begins with ``first``, and its parts', which begin with ``rest``."""
    words = _short(tree.label(node))
    if not node.parts:
        lines.append(f"{first}{words}")
        return
    error = f" ± {node.psi_stderr:.2g}" if node.psi_stderr else ""
    tie = " ~" if node.tie else ""
    psi = f"{node.psi:+.4g}" if node.psi else "0"
    lines.append(f"{first}{psi}{error}{tie}  {words}")
    for part, branch, below in zip(node.parts, ("├─ ", "└─ "), ("│  ", "   "), strict=True):
        _write(tree, tree.nodes[part], rest + branch, rest + below, lines)


def _short(words: str) -> str:
    """Whole words, as many as fit, or letters of the first."""
    if len(words) <= _LETTERS:
        return words
    most = words[: _LETTERS - 1]
    return f"{most.rpartition(' ')[0] or most[:-1]} …"
