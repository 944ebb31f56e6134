"""A transfer matrix for people and for programs: tables, CSV, JSON and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from interaction_train.attacks.transfer.cells import TransferCell
from interaction_train.attacks.transfer.examples import Examples, examples_figure
from interaction_train.attacks.transfer.figures import (
    Line,
    attack_label,
    epsilon_figure,
    matrix_figure,
    percent,
)
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.tracking.figures import save_figure
from interaction_train.tracking.loggers import log_figure, log_images, log_table

_WIDEST = 1000  # columns of text


def print_transfer(lines: Sequence[Line], jointly: bool) -> None:
    """Print the matrix, and below it that of the best steps where they were looked at."""
    which = "all targets classify" if jointly else "the target classifies"
    caption = (
        f"attack success in % of the images that {which} correctly when clean, with 95 % Wilson "
        "intervals; * white box; passes: rows through the source per image"
    )
    if any(line[0].is_targeted for line in lines):
        which = "the images that all targets get right when clean" if jointly else "all images"
        caption += f"; (targeted): taken for the class aimed at, in % of {which}"
    _print(_table(lines, "success", "Transfer at the last step", caption))
    stepped = [line for line in lines if any(cell.best_step.total for cell in line)]
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
    if value == "success":
        clean = [f"{percent(cell.clean.rate)}" for cell in lines[0]]
        table.add_row("", "clean accuracy", "", *clean, "", "", end_section=True)
    for i, line in enumerate(lines):
        first = line[0]
        cells = [_cell(cell, value) for cell in line]
        passes = [_count(first.forwards), _count(first.backwards)]
        end = i + 1 == len(lines) or lines[i + 1][0].source != first.source
        eps = "" if first.eps is None else _eps(first.eps)
        table.add_row(
            first.source or "", attack_label(first), eps, *cells, *passes, end_section=end
        )
    return table


def _cell(cell: TransferCell, value: str) -> str:
    proportion: Proportion = getattr(cell, value)
    if not proportion.total:
        return "–"
    low, high = (f"{100 * bound:.0f}" for bound in proportion.interval)
    at = f" @{cell.best_step_at:.1f}" if value == "best_step" else ""
    star = "*" if cell.white_box else " "
    return f"{percent(proportion.rate)} ({low}–{high}){at}{star}"


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:  # a file has no width, and a cut table says nothing
        wide = console.options.update(max_width=_WIDEST)
        console.width = max(console.width, Measurement.get(console, wide, table).maximum)
    console.print(table)


def report_transfer(
    trainer: L.Trainer,
    folder: Path | None,
    lines: Sequence[Line],
    examples: Examples | None,
    about: dict[str, Any],
) -> None:
    """Write the matrix into a folder, where there is one, and send it to the trainer's loggers."""
    crafted = [(line[0].source, line[0].attack) for line in lines if line[0].source]
    several = len(set(crafted)) < len(crafted)
    figures = {"transfer": matrix_figure(lines)}
    if several:
        figures["transfer_eps"] = epsilon_figure(lines)
    records = [cell.record() for line in lines for cell in line]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(records).to_csv(folder / "transfer.csv", index=False)
        document = json.dumps({**about, "cells": records}, indent=2)
        (folder / "transfer.json").write_text(document)
        shown = {} if examples is None else {"examples": examples_figure(examples)}
        for name, figure in {**figures, **shown}.items():
            save_figure(figure, folder / f"{name}.png")
    step = trainer.global_step
    for logger in trainer.loggers:
        logger.log_metrics(_scalars(lines, several), step=step)
    # CSV files would say no more than the ones above.
    loggers = [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]
    table = [list(record.values()) for record in records]
    log_table(loggers, "test/transfer/table", list(records[0]), table, step)
    keys = {"transfer": "matrix", "transfer_eps": "eps"}
    for name, figure in figures.items():
        log_figure(loggers, f"test/transfer/{keys[name]}", figure, step)
    if examples is not None:
        images, captions = [examples.clean], list(examples.captions)
        for title, (adversarial, said) in examples.adversarial.items():
            images.append(adversarial)
            captions += [f"{title}: {text}" for text in said]
        log_images(loggers, "test/transfer/examples", torch.cat(images), captions, step)


def empty_rates(lines: Sequence[Line], jointly: bool) -> Iterator[str]:
    """What the rates can say nothing about, in words."""
    if jointly and not any(cell.success.total for line in lines for cell in line):
        names = ", ".join(cell.target for cell in lines[0])
        yield f"no image is classified correctly by all of {names}: no rate says anything"
        return
    clean = {cell.target: cell.clean for line in lines for cell in line if cell.clean.total}
    for target, share in clean.items():
        if not share.successes:
            yield f"{target} classifies none of {share.total} clean images correctly"
    for line in lines:
        if not any(cell.clean.total or cell.success.total for cell in line):
            yield f"{line[0].attack} holds no clean images, so its success rates are of nothing"


def _scalars(lines: Sequence[Line], several: bool) -> dict[str, float]:
    scalars = {f"test/acc/{cell.target}": cell.clean.rate for cell in lines[0]}
    for cell in (cell for line in lines for cell in line):
        key = f"test/transfer/{cell.source or 'set'}/{cell.attack}/{cell.target}"
        if several and cell.eps is not None:
            key += f"/{cell.eps:g}"
        scalars[key] = cell.success.rate
    return scalars


def _count(passes: float | None) -> str:
    return "–" if passes is None else f"{passes:.4g}"


def _eps(eps: float) -> str:
    """As so many 255ths where it is."""
    levels = eps * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-4 else f"{eps:.4g}"
