"""Spans of parses and controls, and the share that two trees have in common."""

import csv
import math
import random

import numpy as np
import pytest

from interaction_train.concepts.tree_spans import (
    CONTROLS,
    control_spans,
    span_agreement,
    tree_spans,
)
from interaction_train.errors import InputError


def as_parents(n, merges):
    """The numbers of a parse from (left, right) pairs of nodes, 0-based, in order of merging."""
    parents = [0] * (2 * n - 1)
    for k, pair in enumerate(merges):
        for child in pair:
            parents[child] = n + k + 1
    return parents


def test_spans_of_a_parse():
    parents = as_parents(5, [(3, 4), (0, 1), (6, 2), (7, 5)])
    assert tree_spans(parents) == ((3, 4), (0, 1), (0, 1, 2), (0, 1, 2, 3, 4))
    assert tree_spans([4, 4, 4, 0]) == ((0, 1, 2),)  # three children
    assert tree_spans([0]) == ()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("left", ((0, 1), (0, 1, 2), (0, 1, 2, 3))),
        ("right", ((2, 3), (1, 2, 3), (0, 1, 2, 3))),
        ("balanced", ((0, 1), (2, 3), (0, 1, 2, 3))),
    ],
)
def test_controls(kind, expected):
    assert control_spans(4, kind) == expected
    assert len(control_spans(7, kind)) == 6


def test_random_control():
    """Over four words all five trees come, those of merging neighbours at random as often."""
    state = random.getstate()
    found = [control_spans(4, "random", seed) for seed in range(600)]
    assert random.getstate() == state
    assert control_spans(4, "random", 5) == found[5]
    counts = {}
    for spans in found:
        counts[frozenset(spans)] = counts.get(frozenset(spans), 0) + 1
    balanced = counts.pop(frozenset([(0, 1), (2, 3), (0, 1, 2, 3)]))
    assert len(counts) == 4
    assert 150 < balanced < 250  # a third: either pair of words first
    assert all(65 < count < 135 for count in counts.values())  # a sixth


def test_agreement():
    parse = tree_spans(as_parents(5, [(3, 4), (0, 1), (6, 2), (7, 5)]))
    assert span_agreement(parse, parse) == 1
    assert span_agreement(control_spans(5, "left"), parse) == pytest.approx(2 / 3)
    assert span_agreement(control_spans(5, "right"), parse) == pytest.approx(1 / 3)
    assert span_agreement([(0, 3), (0, 1), (0, 1, 2, 3, 4)], parse) == 0.5
    # Without word 2: (0 1) and (3 4), which the tree that branches right has half of.
    assert span_agreement(control_spans(5, "right"), parse, [2]) == 0.5
    assert math.isnan(span_agreement(control_spans(2, "left"), [(0, 1)]))


@pytest.mark.parametrize(
    "parents",
    [
        [4, 4, 5, 5, 6],  # no root
        [0, 0, 4, 4],  # two
        [4, 4, 9, 0],  # none of these nodes
        [2, 0, 2],  # a word after a node
        [5, 5, 6, 6, 8, 8, 0, 5],  # a circle
        [],
    ],
)
def test_numbers_that_are_no_tree(parents):
    with pytest.raises(InputError, match="parents: got"):
        tree_spans(parents)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: control_spans(1, "left"), "n: got 1"),
        (lambda: control_spans(3, "up"), "kind: got 'up', expected one of 'left', 'right'"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_parses_of_sst2(project_data):
    """All 872 are binary trees over contiguous words.

    English branches to the right, but for the full stop, which joins last.
    """
    with (project_data / "sst2_dev_trees.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 872
    plain, bare = ({kind: [] for kind in CONTROLS} for _ in range(2))
    for number, one in enumerate(rows):
        words = one["sentence"].split(" ")
        parse = tree_spans([int(p) for p in one["parents"].split("|")])
        assert len(set(parse)) == len(words) - 1
        assert all(span == tuple(range(span[0], span[-1] + 1)) for span in parse)
        assert max(parse, key=len) == tuple(range(len(words)))
        marks = [k for k, word in enumerate(words) if not any(map(str.isalnum, word))]
        for kind in CONTROLS:
            control = control_spans(len(words), kind, number)
            plain[kind].append(span_agreement(control, parse))
            bare[kind].append(span_agreement(control, parse, marks))
    means = [{kind: float(np.nanmean(found[kind])) for kind in CONTROLS} for found in (plain, bare)]
    print(means)
    assert means[0]["right"] < means[0]["random"] < 0.25
    assert means[1]["right"] > 1.5 * means[1]["random"] > 1.5 * means[1]["left"]
