"""A transfer matrix for people and for programs: tables, CSV, JSON and figures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from torch import Tensor

from interaction_train.attacks.proportion import Proportion
from interaction_train.attacks.transfer.rates import TransferCell

_WIDEST = 1000  # columns of text

Line = list[TransferCell]
"""The cells of one row of the matrix, one per target."""


class Examples(NamedTuple):
    """Images to show.

    Args:
        clean: ``(n, C, H, W)``.
        captions: one per clean image.
        adversarial: title → adversarial examples ``(n, C, H, W)``, and one caption each.
    """

    clean: Tensor
    captions: list[str]
    adversarial: dict[str, tuple[Tensor, list[str]]]


def print_transfer(lines: Sequence[Line], jointly: bool) -> None:
    """Print the matrix, and below it that of the best steps where they were looked at.

    Args:
        lines: the matrix.
        jointly: whether the rates are about samples that all targets get right.
    """
    which = "all targets classify" if jointly else "the target classifies"
    caption = (
        f"attack success in % of the images that {which} correctly when clean, with 95 % Wilson "
        "intervals; * white box; passes: rows through the source per image"
    )
    _print(_table(lines, "fooled_correct", "Transfer at the last step", caption))
    stepped = [line for line in lines if line[0].best_step.total]
    if stepped:
        caption = (
            "not comparable with the last step: for every image and target the step is taken that "
            "is best on all other images; in brackets the interval, after @ the mean step"
        )
        _print(_table(stepped, "best_step", "Transfer at the best step", caption))


def _table(lines: Sequence[Line], value: str, title: str, caption: str) -> Table:
    targets = [cell.target for cell in lines[0]]
    numbers = ["ε", *targets, "forwards", "backwards"]
    columns = [Column(name, justify="right", no_wrap=True) for name in numbers]
    table = Table("source", Column("attack", no_wrap=True), *columns, title=title, caption=caption)
    if value == "fooled_correct":
        clean = [f"{_percent(cell.clean.rate)}" for cell in lines[0]]
        table.add_row("", "clean accuracy", "", *clean, "", "", end_section=True)
    for i, line in enumerate(lines):
        first = line[0]
        cells = [_cell(cell, value) for cell in line]
        passes = [_count(first.forwards), _count(first.backwards)]
        last = i + 1 == len(lines) or lines[i + 1][0].source != first.source
        eps = "" if first.eps is None else _eps(first.eps)
        table.add_row(first.source or "", first.attack, eps, *cells, *passes, end_section=last)
    return table


def _cell(cell: TransferCell, value: str) -> str:
    proportion: Proportion = getattr(cell, value)
    if not proportion.total:
        return "–"
    low, high = (f"{100 * bound:.0f}" for bound in proportion.interval)
    at = f" @{cell.best_step_at:.1f}" if value == "best_step" else ""
    star = "*" if cell.white_box else " "
    return f"{_percent(proportion.rate)} ({low}–{high}){at}{star}"


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:  # a file has no width, and a cut table says nothing
        wide = console.options.update(max_width=_WIDEST)
        console.width = max(console.width, Measurement.get(console, wide, table).maximum)
    console.print(table)


def write_transfer(folder: Path, lines: Sequence[Line], about: dict[str, Any]) -> list[Path]:
    """Write ``transfer.csv``, one line per cell, and ``transfer.json``.

    Args:
        folder: made when needed.
        lines: the matrix.
        about: what else the JSON says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = [cell.record() for line in lines for cell in line]
    table, document = folder / "transfer.csv", folder / "transfer.json"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    document.write_text(json.dumps({**about, "cells": records}, indent=2))
    return [table, document]


def matrix_figure(lines: Sequence[Line]) -> Figure:
    """The matrix as a heat map, white-box cells framed; of several ε, the largest.

    Args:
        lines: the matrix.
    """
    lines = largest_eps(lines)
    targets = [cell.target for cell in lines[0]]
    labels = [_label(line[0], ": ") for line in lines]
    rates = [[100 * cell.fooled_correct.rate for cell in line] for line in lines]
    figure = Figure(figsize=(3.6 + 1.1 * len(targets), 1.6 + 0.3 * len(lines)), layout="tight")
    axes = figure.add_subplot()
    image = axes.imshow(rates, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(targets)), targets, rotation=20)
    axes.set_yticks(range(len(lines)), labels)
    for i, line in enumerate(lines):
        for j, cell in enumerate(line):
            rate = rates[i][j]
            colour = "black" if rate > 60 else "white"
            axes.text(j, i, _percent(rate / 100), ha="center", va="center", color=colour)
            if cell.white_box:
                frame = Rectangle((j - 0.47, i - 0.4), 0.94, 0.8, fill=False, ec="red", lw=1.5)
                axes.add_patch(frame)
    axes.set(xlabel="target", title="attack success, % (framed: white box)")
    figure.colorbar(image)
    return figure


def epsilon_figure(lines: Sequence[Line]) -> Figure:
    """Success against ε, one panel per target and one curve per row, with 95 % intervals.

    Args:
        lines: the matrix, with several ε.
    """
    targets = [cell.target for cell in lines[0]]
    curves: dict[str, list[Line]] = {}
    for line in lines:
        if line[0].eps is not None:
            curves.setdefault(_label(line[0], ": "), []).append(line)
    figure = Figure(figsize=(1.5 + 3.2 * len(targets), 4), layout="constrained")
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for t, (axes, target) in enumerate(zip(panels, targets, strict=True)):
        for label, points in curves.items():
            cells = sorted((line[t] for line in points), key=lambda cell: cell.eps or 0.0)
            eps = [cell.eps or 0.0 for cell in cells]
            bounds = [cell.fooled_correct.interval for cell in cells]
            dashes = "--" if cells[0].white_box else "-"
            rates = [100 * cell.fooled_correct.rate for cell in cells]
            axes.plot(eps, rates, dashes, marker="o", markersize=3, label=label)
            axes.fill_between(
                eps, [100 * low for low, _ in bounds], [100 * high for _, high in bounds], alpha=0.1
            )
        axes.set(title=target, xlabel="ε", ylim=(0, 100))
    panels[0].set_ylabel("attack success, % (dashed: white box)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return figure


def examples_figure(examples: Examples) -> Figure:
    """Clean images, magnified perturbations and adversarial examples side by side.

    Args:
        examples: what to show.
    """
    count, extra = len(examples.clean), len(examples.adversarial)
    size = (1.9 * (1 + 2 * extra), 0.4 + 2.1 * count)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(count, 1 + 2 * extra, squeeze=False)
    for i in range(count):
        _show(panels[i][0], examples.clean[i], examples.captions[i])
        for k, (title, (images, captions)) in enumerate(examples.adversarial.items()):
            shift = images[i] - examples.clean[i]
            largest = float(shift.abs().max())
            magnified = 0.5 + shift / (2 * largest) if largest else shift + 0.5
            _show(panels[i][1 + 2 * k], magnified, f"perturbation × {_factor(largest)}")
            _show(panels[i][2 + 2 * k], images[i], captions[i])
            if i == 0:
                panels[0][1 + 2 * k].text(0, 1.2, title, transform=panels[0][1 + 2 * k].transAxes)
    return figure


def largest_eps(lines: Sequence[Line]) -> list[Line]:
    """Of every source and attack, the line with the largest ε."""
    chosen: dict[tuple[str | None, str], Line] = {}
    for line in lines:
        key = line[0].source, line[0].attack
        if key not in chosen or (line[0].eps or 0) > (chosen[key][0].eps or 0):
            chosen[key] = line
    return list(chosen.values())


def _show(axes: Any, image: Tensor, caption: str) -> None:
    pixels = image.detach().float().clamp(0, 1).cpu().movedim(0, -1).numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(caption, fontsize=7)
    axes.set_axis_off()


def _factor(largest: float) -> str:
    return f"{0.5 / largest:.3g}" if largest else "1"


def _label(cell: TransferCell, between: str) -> str:
    return f"{cell.source}{between}{cell.attack}" if cell.source else cell.attack


def _percent(rate: float) -> str:
    return "–" if math.isnan(rate) else f"{100 * rate:.1f}"


def _count(passes: float | None) -> str:
    return "–" if passes is None else f"{passes:.4g}"


def _eps(eps: float) -> str:
    """As so many 255ths where it is."""
    levels = eps * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-4 else f"{eps:.4g}"
