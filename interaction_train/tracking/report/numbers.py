"""The few numbers that sum a run up, and the table of all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from interaction_train.tracking.report.material import Series, Table, number

_HEADLINES = (
    (r"test/acc", "Test accuracy", "last"),
    (r"val/acc", "Best validation accuracy", "max"),
    (r"(test|val)/robust_acc/(?!clean$)[^/]+", "Robust accuracy", "last"),
    (r"val/gap/acc", "Generalisation gap", "last"),
    (r"test/interaction/mean_abs", "Mean |I| on test images", "last"),
    (r"test/interaction/strength", "Strength of interactions", "last"),
    (r"train/loss", "Training loss", "last"),
    (r"val/loss", "Best validation loss", "min"),
)


def headlines(series: Mapping[str, Series], count: int = 6) -> list[tuple[str, str, str]]:
    """The most telling numbers of a run.

    Args:
        series: metric → its values.
        count: at most so many.

    Returns:
        (what, value, where it comes from) for each.
    """
    found = []
    for pattern, label, kind in _HEADLINES:
        keys = [key for key in sorted(series) if re.fullmatch(pattern, key)]
        for key in keys[:2]:
            line = series[key]
            best = {"max": max, "min": min}.get(kind)
            value = best(line.values) if best else line.values[-1]
            where = f"{key}, step {line.steps[line.values.index(value)]}" if best else key
            found.append((label, number(value), where))
    return found[:count]


def all_numbers(series: Mapping[str, Series]) -> Table:
    """Last, smallest and largest value of every metric."""
    rows = [
        [
            key,
            number(line.values[-1]),
            number(min(line.values)),
            number(max(line.values)),
            str(len(line.values)),
        ]
        for key, line in sorted(series.items())
    ]
    return Table("All metrics", ["metric", "last", "smallest", "largest", "points"], rows)
