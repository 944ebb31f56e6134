"""A transfer matrix for people and for programs: tables, CSV, JSON and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from interaction_train.attacks.transfer.rates import Proportion, TransferCell
from interaction_train.tracking.figures import save_figure
from interaction_train.tracking.loggers import log_figure, log_images, log_table

_WIDEST = 1000  # columns of text in a file

Line = list[TransferCell]
"""The cells of one row of the matrix, one per target."""
Examples = Mapping[str, tuple[Tensor, list[str]]]
"""Title → images ``(n, C, H, W)`` with a caption each; the first, without a title, are clean."""


def print_transfer(lines: Sequence[Line]) -> None:
    """Print the matrix, that of the best steps where they were looked at, and warnings."""
    caption = (
        "attack success in % of the images that the target classifies correctly when clean, with "
        "95 % Wilson intervals; * white box; passes: rows through the source per image"
    )
    if any(line[0].is_targeted for line in lines):
        caption += "; (targeted): taken for the class aimed at, in % of all images"
    _print(lines, "success", "Transfer at the last step", caption)
    if stepped := [line for line in lines if any(cell.best_step.total for cell in line)]:
        caption = (
            "not comparable with the last step: for every image and target the step is taken that "
            "is best on all other images; in brackets the interval, after @ the mean step"
        )
        _print(stepped, "best_step", "Transfer at the best step", caption)
    clean = {cell.target: cell.clean for line in lines for cell in line if cell.clean.total}
    for target, share in clean.items():
        if not share.successes:
            rank_zero_warn(f"{target} classifies none of {share.total} clean images correctly")
    for line in lines:
        if not any(cell.clean.total or cell.success.total for cell in line):
            name = line[0].attack
            rank_zero_warn(f"{name} holds no clean images, so its success rates are of nothing")


def _print(lines: Sequence[Line], value: str, title: str, caption: str) -> None:
    numbers = ["ε", *(cell.target for cell in lines[0]), "forwards", "backwards"]
    columns = [Column(name, justify="right", no_wrap=True) for name in numbers]
    table = Table("source", Column("attack", no_wrap=True), *columns, title=title, caption=caption)
    if value == "success":
        clean = [_percent(cell.clean.rate) for cell in lines[0]]
        table.add_row("", "clean accuracy", "", *clean, "", "", end_section=True)
    for source, group in groupby(lines, key=lambda line: line[0].source):
        for line in group:
            first = line[0]
            cells = [_cell(cell, value) for cell in line]
            passes = (first.forwards, first.backwards)
            cells += ["–" if rows is None else f"{rows:.4g}" for rows in passes]
            table.add_row(source or "", first.title, _eps(first.eps), *cells)
        table.add_section()
    console = Console()
    if not console.is_terminal:  # a file has no width, and a cut table says nothing
        console.width = _WIDEST
    console.print(table)


def _cell(cell: TransferCell, value: str) -> str:
    proportion: Proportion = getattr(cell, value)
    if not proportion.total:
        return "–"
    low, high = (f"{100 * bound:.0f}" for bound in proportion.interval)
    at = f" @{cell.best_step_at:.1f}" if value == "best_step" else ""
    star = "*" if cell.white_box else " "
    return f"{_percent(proportion.rate)} ({low}–{high}){at}{star}"


def report_transfer(
    trainer: L.Trainer,
    folder: Path | None,
    lines: Sequence[Line],
    examples: Examples,
    about: dict[str, Any],
) -> None:
    """Write the matrix into a folder, where there is one, and send it to the trainer's loggers."""
    crafted = [(line[0].source, line[0].attack) for line in lines if line[0].source]
    several = len(set(crafted)) < len(crafted)
    figures = [("transfer", "matrix", _matrix_figure(lines))]
    if several:
        figures.append(("transfer_eps", "eps", _epsilon_figure(lines)))
    records = [cell.record() for line in lines for cell in line]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(records).to_csv(folder / "transfer.csv", index=False)
        document = json.dumps({**about, "cells": records}, indent=2)
        (folder / "transfer.json").write_text(document)
        for name, _, figure in figures:
            save_figure(figure, folder / f"{name}.png")
        if examples:
            save_figure(_examples_figure(examples), folder / "examples.png")
    step = trainer.global_step
    for logger in trainer.loggers:
        logger.log_metrics(_scalars(lines, several), step=step)
    # CSV files would say no more than the ones above.
    loggers = [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]
    table = [list(record.values()) for record in records]
    log_table(loggers, "test/transfer/table", list(records[0]), table, step)
    for _, key, figure in figures:
        log_figure(loggers, f"test/transfer/{key}", figure, step)
    if examples:
        captions = [f"{title}: {text}" for title, (_, said) in examples.items() for text in said]
        captions = [caption.removeprefix(": ") for caption in captions]
        images = torch.cat([images for images, _ in examples.values()])
        log_images(loggers, "test/transfer/examples", images, captions, step)


def _scalars(lines: Sequence[Line], several: bool) -> dict[str, float]:
    scalars = {f"test/acc/{cell.target}": cell.clean.rate for cell in lines[0]}
    for cell in (cell for line in lines for cell in line):
        key = f"test/transfer/{cell.source or 'set'}/{cell.attack}/{cell.target}"
        if several and cell.eps is not None:
            key += f"/{cell.eps:g}"
        scalars[key] = cell.success.rate
    return scalars


def _eps(eps: float | None) -> str:
    """As so many 255ths where it is."""
    if eps is None:
        return ""
    levels = eps * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-4 else f"{eps:.4g}"


def _matrix_figure(lines: Sequence[Line]) -> Figure:
    """The matrix as a heat map, white-box cells framed; of several ε, the largest."""
    largest = {label: same[-1] for label, same in _by_label(lines).items()}
    lines = list(largest.values())
    targets = [cell.target for cell in lines[0]]
    rates = [[100 * cell.success.rate for cell in line] for line in lines]
    figure = Figure(figsize=(3.6 + 1.1 * len(targets), 1.6 + 0.3 * len(lines)), layout="tight")
    axes = figure.add_subplot()
    image = axes.imshow(rates, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(targets)), targets, rotation=20)
    axes.set_yticks(range(len(lines)), list(largest))
    for i, line in enumerate(lines):
        for j, cell in enumerate(line):
            colour = "black" if rates[i][j] > 60 else "white"
            axes.text(j, i, _percent(cell.success.rate), ha="center", va="center", color=colour)
            if cell.white_box:
                frame = Rectangle((j - 0.47, i - 0.4), 0.94, 0.8, fill=False, ec="red", lw=1.5)
                axes.add_patch(frame)
    axes.set(xlabel="target", title="attack success, % (framed: white box)")
    figure.colorbar(image)
    return figure


def _epsilon_figure(lines: Sequence[Line]) -> Figure:
    """Success against ε, one panel per target and one curve per row, with 95 % intervals."""
    targets = [cell.target for cell in lines[0]]
    curves = _by_label(line for line in lines if line[0].eps is not None)
    figure = Figure(figsize=(1.5 + 3.2 * len(targets), 4), layout="constrained")
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for t, (axes, target) in enumerate(zip(panels, targets, strict=True)):
        for label, points in curves.items():
            cells = [line[t] for line in points]
            eps = [cell.eps for cell in cells]
            rates = [100 * cell.success.rate for cell in cells]
            low, high = ([100 * cell.success.interval[k] for cell in cells] for k in (0, 1))
            dashes = "--" if cells[0].white_box else "-"
            axes.plot(eps, rates, dashes, marker="o", markersize=3, label=label)
            axes.fill_between(eps, low, high, alpha=0.1)
        axes.set(title=target, xlabel="ε", ylim=(0, 100))
    panels[0].set_ylabel("attack success, % (dashed: white box)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return figure


def _examples_figure(examples: Examples) -> Figure:
    """Clean images, magnified perturbations and adversarial examples side by side."""
    clean, _ = examples[""]
    rows, columns = len(clean), 2 * len(examples) - 1
    figure = Figure(figsize=(1.9 * columns, 0.4 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for k, (title, (images, captions)) in enumerate(examples.items()):
        for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
            _show(panels[i, 2 * k], image, caption)
            if title:
                shift, axes = image - clean[i], panels[i, 2 * k - 1]
                factor = 0.5 / (float(shift.abs().max()) or 0.5)
                _show(axes, 0.5 + factor * shift, f"perturbation × {factor:.3g}")
                if i == 0:
                    axes.text(0, 1.2, title, transform=axes.transAxes)
    return figure


def _show(axes: Any, image: Tensor, caption: str) -> None:
    pixels = image.detach().float().clamp(0, 1).cpu().movedim(0, -1).numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(caption, fontsize=7)
    axes.set_axis_off()


def _percent(rate: float) -> str:
    return "–" if math.isnan(rate) else f"{100 * rate:.1f}"


def _by_label(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Source and attack → their rows, from the smallest ε to the largest."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        source, title = line[0].source, line[0].title
        found.setdefault(f"{source}: {title}" if source else title, []).append(line)
    return {name: sorted(same, key=lambda line: line[0].eps or 0) for name, same in found.items()}
