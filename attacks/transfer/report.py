"""A transfer matrix for people and for programs: tables, CSV, JSON and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import fill
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
from interaction_train.tracking.figures import (
    new_panels,
    pixel_step,
    save_figure,
    show_epsilons,
    show_image,
)
from interaction_train.tracking.loggers import log_figure, log_images, log_table
from interaction_train.tracking.style import COLOURS, INK, SEQUENTIAL, styled

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
            eps = "" if first.eps is None else pixel_step(first.eps)
            passes = (first.forwards, first.backwards)
            cells += ["–" if rows is None else f"{rows:.4g}" for rows in passes]
            table.add_row(source or "", first.title, eps, *cells)
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
            save_figure(figure, folder / name)
        if examples:
            save_figure(_examples_figure(examples), folder / "examples")
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


@styled()
def _matrix_figure(lines: Sequence[Line]) -> Figure:
    """The matrix with intervals as a heat map, white-box cells framed; of several ε the largest."""
    largest = {label: same[-1] for label, same in _by_label(lines).items()}
    lines = list(largest.values())
    targets = [cell.target for cell in lines[0]]
    rates = [[100 * cell.success.rate for cell in line] for line in lines]
    wide = 0.075 * max(map(len, largest)) + 1.2 * len(targets) + 1.2
    figure, panels = new_panels(1, 1, max(4.5, wide), 1.4 + 0.42 * len(lines))
    axes = panels[0, 0]
    image = axes.imshow(rates, vmin=0, vmax=100, cmap=SEQUENTIAL, aspect="auto")
    axes.set_xticks(range(len(targets)), [fill(name, 16) for name in targets])
    axes.set_yticks(range(len(lines)), list(largest))
    for i, line in enumerate(lines):
        for j, cell in enumerate(line):
            told = cell.success.total > 0
            colour = INK if rates[i][j] > 60 or not told else "white"
            low, high = cell.success.interval
            about = f"\n{100 * low:.0f}–{100 * high:.0f}" if told else ""
            text = _percent(cell.success.rate) + about
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
            if cell.white_box:
                frame = Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, fill=False, ec=COLOURS[1], lw=2)
                axes.add_patch(frame)
    axes.grid(visible=False)
    bounds = sorted({line[0].eps for line in lines if line[0].eps is not None})
    at = f" at ε = {pixel_step(bounds[0])}" if len(bounds) == 1 else ""
    axes.set(xlabel="target (frame: white box; small: 95 % Wilson interval)", title=f"Transfer{at}")
    figure.colorbar(image, label="attack success, %")
    return figure


@styled()
def _epsilon_figure(lines: Sequence[Line]) -> Figure:
    """Success against ε, one panel per target and one curve per row, with 95 % intervals."""
    targets = [cell.target for cell in lines[0]]
    curves = _by_label(line for line in lines if line[0].eps is not None)
    beside = 0.07 * max(map(len, curves)) + 0.8
    figure, panels = new_panels(1, len(targets), beside + 3.0 * len(targets), 3.6, sharey=True)
    for t, (axes, target) in enumerate(zip(panels[0], targets, strict=True)):
        found: list[float] = []
        for label, points in curves.items():
            cells = [line[t] for line in points]
            eps = [float(cell.eps or 0) for cell in cells]
            rates = [100 * cell.success.rate for cell in cells]
            low, high = ([100 * cell.success.interval[k] for cell in cells] for k in (0, 1))
            hollow = {"markerfacecolor": "white"} if cells[0].white_box else {}
            axes.plot(eps, rates, marker="o", label=label, clip_on=False, **hollow)
            axes.fill_between(eps, low, high, alpha=0.1, lw=0)
            found += eps
        axes.set(title=f"target {target}", ylim=(0, 100))
        show_epsilons(axes, found)
    panels[0, 0].set_ylabel("attack success, %")
    figure.suptitle("Transfer over ε (bands: 95 % Wilson intervals; hollow points: white box)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


@styled()
def _examples_figure(examples: Examples) -> Figure:
    """Clean images, magnified perturbations and adversarial examples side by side."""
    clean, _ = examples[""]
    rows, columns = len(clean), 2 * len(examples) - 1
    figure, panels = new_panels(rows, columns, 1.6 * columns, 0.4 + 1.9 * rows)
    for k, (title, (images, captions)) in enumerate(examples.items()):
        for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
            _show(panels[i, 2 * k], image, caption)
            if title:
                shift = image - clean[i]
                factor = 0.5 / (float(shift.abs().max()) or 0.5)
                name = f"perturbation × {factor:.3g}"
                above = f"{title}\n{name}" if i == 0 else name
                _show(panels[i, 2 * k - 1], 0.5 + factor * shift, above)
    return figure


def _show(axes: Any, image: Tensor, caption: str) -> None:
    pixels = image.detach().float().clamp(0, 1).cpu().movedim(0, -1).numpy()
    show_image(axes, pixels, caption)


def _percent(rate: float) -> str:
    return "–" if math.isnan(rate) else f"{100 * rate:.1f}"


def _by_label(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Source and attack → their rows, from the smallest ε to the largest."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        source, title = line[0].source, line[0].title
        found.setdefault(f"{source}: {title}" if source else title, []).append(line)
    return {name: sorted(same, key=lambda line: line[0].eps or 0) for name, same in found.items()}
