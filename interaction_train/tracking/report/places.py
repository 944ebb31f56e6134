"""What both forms of the report say alike: captions, sections, where the run comes from."""

from __future__ import annotations

import re
from pathlib import Path

from interaction_train.tracking.report.material import Run


def caption(run: Run) -> str:
    """One line on how long the run is."""
    trained = [line.steps[-1] for key, line in run.series.items() if key.startswith("train/")]
    parts = []
    if not run.series:
        parts.append("no metrics.csv in the run's folder, so there are no curves")
    if trained and run.epochs:
        parts.append(f"{run.epochs} epoch{'s' * (run.epochs > 1)}, {max(trained) + 1} steps")
    fits = [start for start in run.starts if start.get("stage") == "fit"]
    if len(fits) > 1:
        steps = ", ".join(str(start["step"]) for start in fits[1:])
        parts.append(f"started {len(fits)} times, resumed at step {steps}")
    if run.starts:
        parts.append(f"first started {run.starts[0]['time']}")
    return " · ".join(parts)


def section_of(figure: Path) -> str:
    """The section that a figure's file belongs to, by its name."""
    name = figure.stem
    if re.search(r"robust|adversarial|attack|transfer", name):
        return "Robustness"
    known = r"interaction|spectrum|orders|disentanglement|strength"
    return "Interactions" if re.search(known, name) else "Other metrics"


def figure_title(figure: Path) -> str:
    """A figure's name for people."""
    words = figure.stem.replace("_", " ")
    return words[:1].upper() + words[1:]


def facts(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each start of the run a title, and what is known of it and was not so before."""
    found = []
    known: dict[str, str] = {}
    for i, start in enumerate(run.starts, 1):
        entries = {
            "command": start["command"],
            "from step": str(start["step"]),
            "processes": str(start["processes"]),
            **start["machine"],
            **start["versions"],
        }
        new = [(key, value) for key, value in entries.items() if known.get(key) != value]
        found.append((f"Start {i}: {start['stage']}, {start['time']}", new))
        known = entries
    return found
