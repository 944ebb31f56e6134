"""The figure of a concept graph: layers from left to right, everything placed in inches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path
from torch import Tensor

from interaction_train.concepts.layers import GraphNode, Layers
from interaction_train.errors import InputError
from interaction_train.tracking.figures import new_figure
from interaction_train.tracking.style import INK, NEGATIVE, POSITIVE, styled

GREY = "#8c8c8c"
FONT = 9  # points
LETTER = 0.085  # inches, a wide one
_ROW, _BOX, _GAP = 0.36, 0.26, 1.5  # inches: between rows, height of a box, between layers at least
_PAGE = 4.5  # inches, for title and legend, where the graph is smaller
_THUMBNAIL, _THUMBNAIL_ROW = 0.52, 0.62
_LETTERS = 30  # of a label, beyond which it is shortened


@dataclass(frozen=True)
class _Place:
    """Where a node is: its left edge, width and middle."""

    left: float
    width: float
    y: float

    @property
    def right(self) -> float:
        return self.left + self.width


@styled()
def graph_figure(
    graph: Layers, image: Tensor | None, cells: Tensor | None, title: str | None
) -> Figure:
    """The figure that :meth:`~interaction_train.concepts.graph.ConceptGraph.plot` returns."""
    pictures = {} if image is None and cells is None else _thumbnails(graph, image, cells)
    layers = [graph.layer(kind) for kind in ("player", "coalition", "concept") if graph.layer(kind)]
    layers.append(graph.layer("sum"))
    height = max(2, *map(len, layers)) * (_THUMBNAIL_ROW if pictures else _ROW)
    gap = max(_GAP, 0.2 * height)  # edges of tall figures would be steep
    places: dict[str, _Place] = {}
    left = 0.0
    for layer in layers:
        width = max(_text_width(graph, node) for node in layer)
        width += _THUMBNAIL * any(node.id in pictures for node in layer)
        for k, node in enumerate(_ordered(layer, places)):
            places[node.id] = _Place(left, width, height * (1 - (k + 0.5) / len(layer)))
        left += width + gap
    figure, axes = new_figure()
    page = max(left - gap, _PAGE)
    figure.set_size_inches(page + 0.3, height + 0.9)
    beside = 0.5 * (page - left + gap) + 0.1
    axes.set(xlim=(-beside, left - gap + beside), ylim=(-0.05, height + 0.05), aspect="equal")
    axes.axis("off")
    _draw_edges(axes, graph, places, _THUMBNAIL if pictures else _BOX)
    for node in graph.nodes:
        _draw_node(axes, graph, node, places[node.id], pictures.get(node.id))
    _draw_legend(figure, graph)
    title = default_title(graph) if title is None else title
    axes.set_title(fill(title, int(page / LETTER)), fontsize=FONT + 1)
    return figure


def _ordered(layer: list[GraphNode], places: dict[str, _Place]) -> list[GraphNode]:
    """From top to bottom: concepts by strength, coalitions beside their players, others as are."""
    if layer[0].kind == "concept":
        return sorted(layer, key=lambda node: -abs(node.value))
    if layer[0].kind == "coalition":
        heights = {node.id: [places[f"player{i}"].y for i in node.players] for node in layer}
        return sorted(layer, key=lambda node: -float(np.mean(heights[node.id])))
    return layer


def _text(graph: Layers, node: GraphNode) -> str:
    if node.kind == "sum":
        total, constant = (number(v, _strongest(graph)) for v in (node.value, graph.constant))
        return f"Σ = {total}\nconstant = {constant}"
    label = " ".join(node.label.split())
    if len(label) > _LETTERS and len(node.players) > 1:
        label = f"{'OR' if node.is_or else 'AND'} of {len(node.players)}"
    label = short(label, _LETTERS)
    if node.kind != "concept":
        return label
    return f"{number(node.value, _strongest(graph), sign='+')}   {label}"


def _strongest(graph: Layers) -> float:
    return max((abs(node.value) for node in graph.layer("concept")), default=0.0) or 1.0


def _text_width(graph: Layers, node: GraphNode) -> float:
    return max(0.35, LETTER * max(map(len, _text(graph, node).split("\n"))) + 0.12)


def _draw_edges(axes: Axes, graph: Layers, places: dict[str, _Place], height: float) -> None:
    """Edges, each in the look of its concept; ``height`` is that of a node."""
    concepts = {node.id: node for node in graph.layer("concept")}
    between = [places[node.id] for node in graph.layer("coalition")]
    for source, target in graph.edges:
        concept = concepts.get(target) or concepts.get(source)
        colour, width = GREY, 0.8
        if concept is not None:
            colour = POSITIVE if concept.value >= 0 else NEGATIVE
            width = 0.5 + 3.5 * abs(concept.value) / _strongest(graph)
        start, end = places[source], places[target]
        points = [(start.right, start.y)]
        if start.left == end.left:  # a coalition in a coalition
            points = [(start.left, start.y), *_curve(start.left, start.y, end.left, end.y)]
        elif between and start.right < between[0].left and end.left > between[0].right:
            column = between[0]
            middle = 0.5 * (column.left + column.right)
            share = (middle - start.right) / (end.left - start.right)
            y = _free(start.y + share * (end.y - start.y), between, 0.5 * height + 0.06)
            points += _curve(start.right, start.y, column.left, y)
            points += [(middle, y), (middle, y), (column.right, y)]
            points += _curve(column.right, y, end.left, end.y)
        else:
            points += _curve(start.right, start.y, end.left, end.y)
        codes = [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1)
        look = {"edgecolor": colour, "linewidth": width, "alpha": 0.6}
        axes.add_patch(PathPatch(Path(points, codes), fill=False, **look))


def _curve(x: float, y: float, to_x: float, to_y: float) -> list[tuple[float, float]]:
    """A curve that leaves and arrives level; within a column, around its left."""
    bend = 0.5 * (to_x - x) if to_x > x else -0.35
    return [(x + bend, y), (to_x - abs(bend), to_y), (to_x, to_y)]


def _free(y: float, nodes: list[_Place], distance: float) -> float:
    """The height nearest to y that passes no node of a column within a distance."""
    heights = [y, *(node.y + side * distance for node in nodes for side in (-1, 1))]
    free = [h for h in heights if all(abs(h - node.y) >= distance - 1e-9 for node in nodes)]
    return min(free, key=lambda h: abs(h - y))


def _draw_node(
    axes: Axes, graph: Layers, node: GraphNode, place: _Place, picture: np.ndarray | None
) -> None:
    colour = INK
    if node.kind == "concept":
        colour = POSITIVE if node.value >= 0 else NEGATIVE
    left = place.left
    if picture is not None:
        rows, columns = picture.shape[:2]
        half = 0.5 * _THUMBNAIL / max(rows, columns) * np.array([columns, rows])
        middle = left + 0.5 * _THUMBNAIL
        extent = (middle - half[0], middle + half[0], place.y - half[1], place.y + half[1])
        axes.imshow(picture, extent=extent, interpolation="nearest", zorder=3, vmin=0, vmax=1)
        axes.autoscale(False)
        left += _THUMBNAIL + 0.06
    text = _text(graph, node)
    width, height, pad = place.right - left, _BOX + 0.15 * text.count("\n"), 0.03
    axes.add_patch(
        FancyBboxPatch(
            (left + pad, place.y - 0.5 * height + pad),
            width - 2 * pad,
            height - 2 * pad,
            boxstyle=f"round,pad={pad}",
            facecolor="white",
            edgecolor=colour,
            linewidth=1.0,
            linestyle="--" if node.is_or else "-",
            zorder=4,
        )
    )
    axes.text(
        left + 0.5 * width,
        place.y,
        text,
        ha="center",
        va="center",
        fontsize=FONT,
        color=colour,
        zorder=5,
    )


def _draw_legend(figure: Figure, graph: Layers) -> None:
    handles = [
        Line2D([], [], color=POSITIVE, linewidth=2.5, label="raises the payoff"),
        Line2D([], [], color=NEGATIVE, linewidth=2.5, label="lowers it (width: |I|)"),
    ]
    if any(node.is_or for node in graph.nodes):
        handles.append(Line2D([], [], color=INK, linestyle="--", label="OR: one player is enough"))
    figure.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False, fontsize=FONT)


def short(name: str, most: int = 24) -> str:
    """A name in one line, cut where it is long."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most - 1]}…"


def number(value: float, largest: float, digits: int = 3, sign: str = "") -> str:
    """A number to so many digits of the largest; as powers of ten where these would be many."""
    power = math.floor(math.log10(largest))
    if -4 < power < 5:
        decimals = max(0, digits - 1 - power)
        text = f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"  # no negative zero
    else:
        text = f"{value + 0.0:{sign}.{digits - 1}e}"
    return text.replace("-", "−")


def default_title(graph: Layers) -> str:
    """How many concepts there are, and what they explain."""
    r2 = f", R² = {graph.r2:.3f} over all coalitions" if graph.r2 == graph.r2 else ""
    count = len(graph.layer("concept"))
    return f"{count} concept{'s' * (count != 1)} of {len(graph.names)} players{r2}"


def _thumbnails(graph: Layers, image: Tensor | None, cells: Tensor | None) -> dict[str, np.ndarray]:
    """The image with all but a node's cells greyed, ``(H, W, 3)``, for all nodes but the sum."""
    if image is None or cells is None:
        missing = "image" if image is None else "cells"
        raise InputError(missing, None, "image and cells, or neither")
    if image.dim() != 3 or image.shape[0] not in (1, 3) or not image.is_floating_point():
        expected = "floating point (1, H, W) or (3, H, W), in [0, 1]"
        raise InputError("image", f"{image.dtype} {tuple(image.shape)}", expected)
    if cells.dtype != torch.int64 or cells.shape != image.shape[1:]:
        expected = f"int64 {tuple(image.shape[1:])}, the player of each pixel"
        raise InputError("cells", f"{cells.dtype} {tuple(cells.shape)}", expected)
    shown = image.detach().float().cpu().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    greyed = 0.65 + 0.25 * shown.mean(-1, keepdims=True).repeat(3, -1)
    player = cells.cpu().numpy()[..., None]
    nodes = [node for node in graph.nodes if node.kind != "sum"]
    return {node.id: np.where(np.isin(player, node.players), shown, greyed) for node in nodes}
