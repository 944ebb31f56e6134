"""The verdict of studies/prototypes.py follows from the numbers, over seeds and over images."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))

import prototypes


def run(seed, gains):
    """Two judges besides the own network; ``gains``: of the four revisions, one for each image."""
    keys = [f"{change}, {sets}" for change in prototypes.CHANGES for sets in prototypes.SETS]
    summary = {"right": {name: [1.0] * 4 for name in ("own", "cnn", "mlp")}}
    for key, gain in zip(keys, gains, strict=True):
        told = {
            "own": [99.0] * 4,
            "cnn": [value + 0.5 + 0.01 * seed for value in gain],
            "mlp": [value - 0.5 + 0.01 * seed for value in gain],
        }
        more = dict.fromkeys(("stronger", "weaker", "moved"), [1.0] * 4)
        summary[key] = {"gain": told, "right": summary["right"], **more}
    return summary


UP, LESS, DOWN, ONE = (
    [1.0, 1.1, 0.9, 1.0],
    [0.5, 0.6, 0.4, 0.6],
    [-1.0, -1.2, -1.1, -1.3],
    [9, 0, 0, 0],
)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("gains", "holds"),
    [
        ((UP, LESS, UP, DOWN), [True, True, True, True]),
        ((LESS, UP, DOWN, DOWN), [True, False, False, False]),
        ((ONE, LESS, DOWN, LESS), [False, False, False, False]),  # clear over seeds, by one image
    ],
)
def test_checks(gains, holds, seeds):
    found = prototypes.Findings([run(seed, gains) for seed in range(seeds)])
    assert [check.holds for check in prototypes.checks(found)] == holds
    rows = prototypes.rows(found)
    mean = sum(gains[0]) / 4 + 0.01 * (seeds - 1) / 2
    assert rows[0]["log-odds gained, others"] == pytest.approx(mean)
    assert rows[0]["log-odds gained, own"] == pytest.approx(99)


def test_gains_that_one_seed_makes_are_not_clear():
    runs = [run(0, (UP, LESS, UP, LESS)), *(run(seed, (LESS, UP, LESS, UP)) for seed in (1, 2))]
    holds = [check.holds for check in prototypes.checks(prototypes.Findings(runs))]
    assert holds == [True, False, True, False]
