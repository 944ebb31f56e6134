"""Figures of a transfer matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from interaction_train.attacks.transfer.cells import TransferCell

Line = list[TransferCell]
"""The cells of one row of the matrix, one per target."""


def matrix_figure(lines: Sequence[Line]) -> Figure:
    """The matrix as a heat map, white-box cells framed; of several ε, the largest."""
    lines = largest_eps(lines)
    targets = [cell.target for cell in lines[0]]
    labels = [_label(line[0]) for line in lines]
    rates = [[100 * cell.success.rate for cell in line] for line in lines]
    figure = Figure(figsize=(3.6 + 1.1 * len(targets), 1.6 + 0.3 * len(lines)), layout="tight")
    axes = figure.add_subplot()
    image = axes.imshow(rates, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(targets)), targets, rotation=20)
    axes.set_yticks(range(len(lines)), labels)
    for i, line in enumerate(lines):
        for j, cell in enumerate(line):
            rate = rates[i][j]
            colour = "black" if rate > 60 else "white"
            axes.text(j, i, percent(rate / 100), ha="center", va="center", color=colour)
            if cell.white_box:
                frame = Rectangle((j - 0.47, i - 0.4), 0.94, 0.8, fill=False, ec="red", lw=1.5)
                axes.add_patch(frame)
    axes.set(xlabel="target", title="attack success, % (framed: white box)")
    figure.colorbar(image)
    return figure


def epsilon_figure(lines: Sequence[Line]) -> Figure:
    """Success against ε, one panel per target and one curve per row, with 95 % intervals."""
    targets = [cell.target for cell in lines[0]]
    curves: dict[str, list[Line]] = {}
    for line in lines:
        if line[0].eps is not None:
            curves.setdefault(_label(line[0]), []).append(line)
    figure = Figure(figsize=(1.5 + 3.2 * len(targets), 4), layout="constrained")
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for t, (axes, target) in enumerate(zip(panels, targets, strict=True)):
        for label, points in curves.items():
            cells = sorted((line[t] for line in points), key=lambda cell: cell.eps or 0.0)
            eps = [cell.eps or 0.0 for cell in cells]
            bounds = [cell.success.interval for cell in cells]
            dashes = "--" if cells[0].white_box else "-"
            rates = [100 * cell.success.rate for cell in cells]
            axes.plot(eps, rates, dashes, marker="o", markersize=3, label=label)
            axes.fill_between(
                eps, [100 * low for low, _ in bounds], [100 * high for _, high in bounds], alpha=0.1
            )
        axes.set(title=target, xlabel="ε", ylim=(0, 100))
    panels[0].set_ylabel("attack success, % (dashed: white box)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return figure


def largest_eps(lines: Sequence[Line]) -> list[Line]:
    """Of every source and attack, the line with the largest ε."""
    chosen: dict[tuple[str | None, str], Line] = {}
    for line in lines:
        key = line[0].source, line[0].attack
        if key not in chosen or (line[0].eps or 0) > (chosen[key][0].eps or 0):
            chosen[key] = line
    return list(chosen.values())


def attack_label(cell: TransferCell) -> str:
    """The attack's name, marked where it aims at classes."""
    return f"{cell.attack} (targeted)" if cell.is_targeted else cell.attack


def percent(rate: float) -> str:
    """A rate in percent; a dash where it is one of nothing."""
    return "–" if math.isnan(rate) else f"{100 * rate:.1f}"


def _label(cell: TransferCell) -> str:
    return ": ".join([cell.source, attack_label(cell)] if cell.source else [attack_label(cell)])
