"""The report as Markdown, its figures as files beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from interaction_train.tracking.report.charts import SECTIONS, Chart
from interaction_train.tracking.report.material import Run, Table
from interaction_train.tracking.report.numbers import all_numbers, headlines
from interaction_train.tracking.report.places import caption, facts, figure_title, section_of


def markdown(run: Run, charts: Sequence[Chart], files: str) -> str:
    """The whole report.

    Args:
        run: what the run's folder holds.
        charts: the curves.
        files: the folder beside the report that holds their files.
    """
    blocks = [f"# {_text(run.name)}", _text(caption(run))]
    numbers = [list(row) for row in headlines(run.series)]
    if numbers:
        blocks.append(_table(Table("", ["", "value", "metric"], numbers)))
    for title in SECTIONS:
        found = [
            f"![{_text(chart.summary)}]({files}/{chart.slug}.svg)\n\n*{_text(chart.title)}*"
            for chart in charts
            if chart.section == title
        ]
        found += [
            f"![{_text(figure_title(path))}]({_link(os.path.relpath(path, run.folder))})"
            for path in run.figures
            if section_of(path) == title
        ]
        blocks += [f"## {title}", *found] if found else []
    blocks.append("## All numbers and tables")
    for table in (all_numbers(run.series), *run.tables):
        blocks += [f"### {_text(table.name)}", _table(table)] if table.rows else []
    blocks.append("## How it was made")
    for title, entries in facts(run):
        rows = [list(fact) for fact in entries]
        blocks += [f"### {_text(title)}", _table(Table(title, ["", "value"], rows))]
    for name, text in run.configs.items():
        blocks += [f"### {_text(name)}", _code(text)]
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    rows: Iterable[Sequence[str]] = (table.columns, ["---"] * len(table.columns), *table.rows)
    lines = (" | ".join(cell if cell == "---" else _text(cell) for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def _text(text: str) -> str:
    """Text that Markdown leaves alone."""
    for special in "\\`*_[]<>|#":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _link(path: str) -> str:
    return path.replace(os.sep, "/").replace(" ", "%20")


def _code(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"
