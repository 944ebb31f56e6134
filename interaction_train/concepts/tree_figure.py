"""The figure of an interaction tree: a dendrogram over the words, everything placed in inches."""

from __future__ import annotations

import math
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from interaction_train.concepts.graph_figure import FONT, GREY, LETTER, number, short
from interaction_train.concepts.tree_nodes import TreeNode, TreeNodes
from interaction_train.tracking.figures import new_figure
from interaction_train.tracking.style import INK, NEGATIVE, POSITIVE, styled

_LEVEL = 0.42  # inches between levels
_WORD, _TURNED = 0.55, 0.5  # inches a word takes at least, and takes when turned
_PAGE, _WIDEST = 4.5, 16.0  # inches, for title and legend; beyond which words are turned


@styled()
def tree_figure(tree: TreeNodes, title: str | None) -> Figure:
    """The figure that :meth:`~interaction_train.concepts.trees.InteractionTree.plot` returns."""
    order = _leaves(tree)
    words = [short(tree.names[i]) for i in order]
    widths = [max(_WORD, LETTER * len(word) + 0.12) for word in words]
    turned = sum(widths) > _WIDEST
    if turned:
        widths = [_TURNED] * len(words)
    x, left = [0.0] * len(tree.nodes), 0.0
    for i, width in zip(order, widths, strict=True):
        x[i] = left + 0.5 * width
        left += width
    height = [0] * len(tree.nodes)
    for k, node in enumerate(tree.nodes):
        if node.parts:
            x[k] = sum(x[part] for part in node.parts) / 2
            height[k] = 1 + max(height[part] for part in node.parts)
    top, page = _LEVEL * height[-1], max(left, _PAGE)
    below = LETTER * max(map(len, words)) + 0.1 if turned else 0.25
    title = fill(_default_title(tree) if title is None else title, int(page / LETTER))
    figure, axes = new_figure()
    figure.set_size_inches(page + 0.3, top + below + 1.1 + 0.17 * title.count("\n"))
    side = 0.5 * (page - left) + 0.1
    axes.set(xlim=(-side, left + side), ylim=(-below, top + 0.2), aspect="equal")
    axes.axis("off")
    strongest = max((abs(node.psi) for node in tree.merges), default=0.0) or 1.0
    for k in sorted(range(len(tree.names), len(tree.nodes)), key=lambda k: abs(tree.nodes[k].psi)):
        _draw_merge(axes, tree.nodes[k], x, height, k, strongest)
    for i, word in zip(order, words, strict=True):
        look = {"rotation": 90, "va": "top"} if turned else {"va": "center"}
        y = -0.06 if turned else -0.14
        axes.text(x[i], y, word, ha="center", fontsize=FONT, color=INK, **look)
    _draw_legend(figure, tree)
    axes.set_title(title, fontsize=FONT + 1)
    return figure


def _leaves(tree: TreeNodes) -> list[int]:
    """The players from left to right: those of a node side by side."""
    found, open_nodes = [], [len(tree.nodes) - 1]
    while open_nodes:
        k = open_nodes.pop()
        if tree.nodes[k].parts:
            open_nodes += reversed(tree.nodes[k].parts)
        else:
            found.append(k)
    return found


def _draw_merge(
    axes: Axes, node: TreeNode, x: list[float], height: list[int], at: int, strongest: float
) -> None:
    """The bracket over a node's two parts, and ψ below its bar."""
    first, second = node.parts
    y = _LEVEL * height[at]
    colour = GREY if node.psi == 0 else POSITIVE if node.psi > 0 else NEGATIVE
    axes.plot(
        [x[first], x[first], x[second], x[second]],
        [_LEVEL * height[first], y, y, _LEVEL * height[second]],
        color=colour,
        linewidth=0.8 + 4 * abs(node.psi) / strongest,
        linestyle="--" if node.tie else "-",
        solid_joinstyle="miter",
        solid_capstyle="butt",
    )
    axes.text(
        x[at],
        y - 0.06,
        number(node.psi, strongest, sign="+") if node.psi else "0",
        ha="center",
        va="top",
        fontsize=FONT - 2,
        color=colour,
        zorder=5,
    )


def _draw_legend(figure: Figure, tree: TreeNodes) -> None:
    handles = [
        Line2D([], [], color=POSITIVE, linewidth=2.5, label="ψ > 0"),
        Line2D([], [], color=NEGATIVE, linewidth=2.5, label="ψ < 0 (width: |ψ|)"),
    ]
    if any(node.tie for node in tree.merges):
        label = "tie: another within two errors"
        handles.append(Line2D([], [], color=INK, linestyle="--", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncol=3, fontsize=FONT)


def _default_title(tree: TreeNodes) -> str:
    """How merges were chosen, and what share of Σ|ψ| neighbours leave out."""
    chosen = "ψ(a,b) of merged nodes, chosen by " + ("r" if tree.rule == "density" else "|ψ|")
    if math.isnan(tree.neglected):
        return chosen
    return f"{chosen}; pairs apart hold {tree.neglected:.0%} of Σ|ψ|"
