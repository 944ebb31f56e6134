"""What the study of sentences counts: the grammar's meaning, and phrases that are nodes."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))

import text

from interaction_train.data.grammar import Phrase, Sentence, grammar_sentences
from interaction_train.indices import dividends


def test_meaning_of_all_words_is_the_sentences_value():
    sentences = [one for one in grammar_sentences(200) if len(one.tokens) <= 12]
    assert len(sentences) > 100
    for one in sentences:
        v = text.meaning(one)
        assert v[-1] == one.value
        assert v[0] == 0


def test_meaning_of_a_negated_adjective():
    """−good twice over for "not", once more for "very", and what the three do together."""
    tokens = ("it", "is", "not", "very", "good")
    phrases = (Phrase("negation", 2, 5), Phrase("intensified", 3, 5), Phrase("predicate", 1, 5))
    found = dividends(text.meaning(Sentence(tokens, 0, -2, phrases)))
    named = {s: float(found[s]) for s in found.nonzero().flatten().tolist()}
    no, very, good = 4, 8, 16
    assert named == {good: 1, good + very: 1, good + no: -2, good + very + no: -2}


def test_joined_phrases():
    words = "the film is not good and so is this so bad it works"
    tokens = tuple(words.split(" "))
    phrases = (Phrase("negation", 3, 5), Phrase("idiom", 9, 13), Phrase("intensified", 6, 8))
    sentence = Sentence(tokens, 0, 0, phrases)
    deep = Sentence(tokens[:3], 0, 0, (Phrase("negation", 0, 3), Phrase("intensified", 1, 3)))
    found = text.joined([sentence, deep], [[(9, 10), (3, 4), (6, 7)], [(1, 2), (0, 1, 2)]])
    assert found.pop("idiom") == 0
    assert found == {
        "not + adjective": 1, "not + very + adjective": 1, "first of all": 0,
        "very + adjective": 1,
    }  # fmt: skip
    assert math.isnan(text.joined([deep], [[(0, 1), (0, 1, 2)]])["idiom"])


@pytest.mark.parametrize(("low", "harm"), [(-1, False), (1, True)])
def test_losses_are_judged_by_pairs_of_seeds(low, harm):
    def run(seed: int, shift: float) -> dict:
        return {
            "mean |I|": 1.0 - shift + seed, "mean |I| / |v(N) − v(∅)|": 1.0 - shift + seed,
            "mean order": 3.0 + low * shift + seed, "accuracy": 0.9 - harm * shift / 9 + seed,
            "NLL": 0.2 + seed,
        }  # fmt: skip

    seeds = (0, 1, 2)
    none = [run(seed, 0.0) for seed in seeds]
    ours = [run(seed, 0.5 + 0.01 * seed) for seed in seeds]
    found = text.loss_checks({text.NONE: none, text.LOSS: ours, text.LOW: ours})
    holds = [check.holds for check in found]
    assert holds == [True, True, low < 0, not harm, not harm]
