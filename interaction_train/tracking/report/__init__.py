"""A report of a run from what lies in its folder: one HTML file that asks for nothing outside."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader

from interaction_train.tracking.history import write_whole
from interaction_train.tracking.report.charts import SECTIONS, charts, section_of
from interaction_train.tracking.report.material import Run, Table, number, words

__all__ = ["write_report"]

_HEADLINES: tuple[tuple[str, str, Callable[[list[float]], float] | None], ...] = (
    (r"test/acc", "Test accuracy", None),
    (r"val/acc", "Best validation accuracy", max),
    (r"(test|val)/robust_acc/(?!clean$)[^/]+", "Robust accuracy", None),
    (r"val/gap/acc", "Generalisation gap", None),
    (r"test/interaction/mean_abs", "Mean |I| on test images", None),
    (r"test/interaction/strength", "Strength of interactions", None),
    (r"train/loss", "Training loss", None),
    (r"val/loss", "Best validation loss", min),
)


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run's folder.

    Curves come from ``history.jsonl`` there and in the folders of the runs that this one was
    resumed from, the configuration from ``config*.yaml``, figures from ``*.png`` and tables from
    ``*.csv`` and ``*.json``, also in ``figures/``, ``images/`` and ``tables/``. Returns its path.
    """
    run = Run(folder)
    pages = Environment(
        loader=PackageLoader(__name__), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters["base64"] = lambda data: base64.b64encode(data).decode()
    text = pages.get_template("report.html.j2").render(
        run=run,
        caption=_caption(run),
        headlines=_headlines(run),
        sections=SECTIONS,
        charts=charts(run.series),
        figures=[(section_of(path.stem), words(path.stem), path) for path in run.figures],
        tables=[_numbers(run), *run.tables],
        starts=_starts(run),
    )
    return write_whole(folder / "report.html", text)


def _caption(run: Run) -> str:
    """One line on how long the run is, and whether it came to its end."""
    trained = [line.steps[-1] for key, line in run.series.items() if key.startswith("train/")]
    parts = [] if run.series else ["nothing has been logged, so there are no curves"]
    fits = [start for start in run.starts if start.get("stage") == "fit"]
    if fits and not fits[-1].get("finished", True):
        planned = fits[-1].get("epochs") or -1  # -1: without end
        parts.append(f"unfinished, epoch {run.epochs}" + f" of {planned}" * (planned > 0))
    if trained and run.epochs:
        parts.append(f"{run.epochs} epoch{'s' * (run.epochs > 1)}, {max(trained) + 1} steps")
    if len(fits) > 1:
        steps = ", ".join(str(start["step"]) for start in fits[1:])
        parts.append(f"started {len(fits)} times, resumed at step {steps}")
    if run.starts:
        parts.append(f"first started {run.starts[0]['time']}")
    return " · ".join(parts)


def _headlines(run: Run, count: int = 6) -> list[tuple[str, str, str]]:
    """The most telling numbers: what, value, where it comes from."""
    found = []
    for pattern, label, best in _HEADLINES:
        for key in [key for key in sorted(run.series) if re.fullmatch(pattern, key)][:2]:
            line = run.series[key]
            value = best(line.values) if best else line.values[-1]
            where = f"step {line.steps[line.values.index(value)]}" if best else "the last value"
            told = f"{label}, {key.rpartition('/')[2]}" if label == "Robust accuracy" else label
            found.append((told, number(value), where))
    return found[:count]


def _numbers(run: Run) -> Table:
    """Last, smallest and largest value of every metric."""
    rows = [
        [words(key), *map(number, (v[-1], min(v), max(v))), str(len(v)), key]
        for key, v in sorted((key, line.values) for key, line in run.series.items())
    ]
    columns = ["metric", "last", "smallest", "largest", "points", "logged as"]
    return Table("All metrics", columns, rows)


def _starts(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each start of the run a title, and what is known of it and was not so before."""
    found, known = [], dict[str, str]()
    for i, start in enumerate(run.starts, 1):
        origin = start.get("resumed_from")
        entries = {
            "command": start["command"],
            "from step": str(start["step"]),
            **({"resumed from": origin["folder"]} if origin else {}),
            "processes": str(start["processes"]),
            **start["machine"],
            **start["versions"],
        }
        new = [(key, value) for key, value in entries.items() if known.get(key) != value]
        found.append((f"Start {i}: {start['stage']}, {start['time']}", new))
        known = entries
    return found
