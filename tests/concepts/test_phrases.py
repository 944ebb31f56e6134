"""Interactions of phrases: every contiguous set, against the exact indices."""

import math

import pytest
import torch

from interaction_train.concepts.phrases import phrase_interactions
from interaction_train.errors import InputError
from interaction_train.indices.exact import values_from_dividends
from interaction_train.indices.exact_sets import (
    block_shapley_values,
    multivariate_interaction,
    multivariate_strength,
)
from tests.concepts.games import row
from tests.concepts.test_trees import ISSUE, game, random_values


def test_all_phrases_by_definition():
    v = random_values(6)
    found = phrase_interactions(v, 4, names="abcdef")
    spans = [(phrase.start, phrase.stop) for phrase in found.phrases]
    assert spans == [(start, start + size) for size in (2, 3, 4) for start in range(7 - size)]
    for phrase in found.phrases:
        who = list(range(phrase.start, phrase.stop))
        assert phrase.words == " ".join("abcdef"[phrase.start : phrase.stop])
        assert phrase.multivariate == pytest.approx(float(multivariate_interaction(v, who)))
        assert phrase.strength == pytest.approx(float(multivariate_strength(v, who)))
        assert phrase.shapley == pytest.approx(float(block_shapley_values(v, who)[-1]))
    assert found.evaluations == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_ones_above_rounding_are_significant(dtype):
    """Each player adds an amount that is rounded; two pairs interact, and what holds them."""
    alone = {(i,): 0.1 * i + 100 / 3 for i in range(6)}
    v = values_from_dividends(row({**ISSUE, **alone}, 6)).to(dtype)
    found = phrase_interactions(v, 3)
    expected = {(0, 3): 3, (0, 2): 2.5, (3, 5): -1.5, (2, 5): -1.5, (3, 6): -1.5}
    expected |= {(1, 3): 0.5, (1, 4): 0.5}
    values = {(p.start, p.stop): p.multivariate for p in found.significant}
    assert values == pytest.approx(expected, abs=1e-3)
    others = [p for p in found.phrases if not p.significant]
    assert [(p.multivariate, p.strength) for p in others] == [(0, 0)] * 2
    sizes = [abs(value) for value in values.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_sampled_beyond_sixteen_players():
    planted = {(3, 4): -2.0, (3, 4, 5): 1.0, (8, 9, 10, 11): 1.5}
    found = phrase_interactions(game(planted, 18), 3, contexts=60)
    assert found.evaluations == 2 + 60 * (17 * 4 + 16 * 5) + 60 * (17 * (4 + 6) + 16 * (8 + 8))
    spans = {(p.start, p.stop): p for p in found.phrases}
    assert abs(spans[3, 5].multivariate + 1.5) <= 4 * spans[3, 5].multivariate_stderr
    assert spans[3, 6].multivariate == pytest.approx(-1)
    assert spans[3, 6].strength == pytest.approx(2, abs=0.3)
    assert {(3, 5), (3, 6), (8, 11), (9, 12)} <= {(p.start, p.stop) for p in found.significant}
    # Phrases that meet no concept twice have none, not even by chance.
    assert not [p for (a, b), p in spans.items() if p.significant and (a >= 11 or b <= 4)]
    fast = phrase_interactions(game(planted, 18), 3, contexts=60, strength=False)
    assert fast.evaluations == 2 + 60 * (17 * 4 + 16 * 5)
    assert all(math.isnan(p.strength) for p in fast.phrases)
    assert [p.multivariate for p in fast.phrases] == [p.multivariate for p in found.phrases]


def test_frame():
    found = phrase_interactions(game(ISSUE, 5), 2, names=["it", "'s", "not", "so", "bad"])
    assert found.evaluations == 32
    frame = found.frame()
    assert list(frame.index) == ["it 's", "'s not", "not so", "so bad"]
    assert frame.multivariate.tolist() == pytest.approx([2.5, 0.5, 0, -1.5])
    assert frame.significant.tolist() == [True, True, False, True]
    assert frame.loc["so bad", ["start", "stop"]].tolist() == [3, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phrase_interactions(torch.zeros(8), 1), "max_length: got 1"),
        (lambda: phrase_interactions(torch.zeros(8), 4), "max_length: got 4"),
        (lambda: phrase_interactions(torch.zeros(2, 8), 2), "v_or_game: got shape"),
        (lambda: phrase_interactions(torch.zeros(8), 2, names="ab"), "names: got 2 names"),
        (lambda: phrase_interactions(torch.zeros(8), 2, 10), "contexts: got 10, expected None"),
        (lambda: phrase_interactions(game(ISSUE, 5), 2, 1), "contexts: got 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
