"""A report of a run from what lies in its folder: one HTML file, and the same as Markdown."""

from __future__ import annotations

from pathlib import Path

from interaction_train.tracking.report.charts import charts
from interaction_train.tracking.report.markdown import markdown
from interaction_train.tracking.report.material import read_run
from interaction_train.tracking.report.page import page

__all__ = ["write_report"]


def write_report(folder: Path) -> Path:
    """Write ``report.html`` and ``report.md`` into a run's folder.

    Curves come from ``metrics.csv``, figures from ``*.png``, tables from the other ``*.csv`` and
    ``*.json``, the configuration from ``config*.yaml``, in the folder itself and in ``figures/``,
    ``images/`` and ``tables/``; whatever is missing is left out. The HTML file holds everything and
    asks for nothing from outside; the Markdown file's charts lie in ``report_files/``.

    Args:
        folder: the run's folder.

    Returns:
        The path of ``report.html``.
    """
    run = read_run(folder)
    drawn = charts(run.series)
    files = folder / "report_files"
    files.mkdir(exist_ok=True)
    for chart in drawn:
        (files / f"{chart.slug}.svg").write_text(chart.standalone(), encoding="utf-8")
    _replace(folder / "report.md", markdown(run, drawn, files.name))
    return _replace(folder / "report.html", page(run, drawn))


def _replace(path: Path, text: str) -> Path:
    """Write a file so that no one ever sees half of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    return draft.replace(path)
