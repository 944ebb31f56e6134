import pytest

from interaction_train.data import grammar_sentences
from interaction_train.data.grammar import ADJECTIVES, IDIOMS, INTENSIFIERS, NEGATIONS
from tests.data.files import raises

SENTENCES = grammar_sentences(2000, seed=1)
SIGN = {word: sign for sign, words in ADJECTIVES.items() for word in words}
IDIOM = {text: sign for sign, texts in IDIOMS.items() for text in texts}


def words(sentence, phrase):
    return " ".join(sentence.tokens[phrase.start : phrase.stop])


def opinion(text):
    """What an opinion is worth, read from its words from left to right."""
    if text in IDIOM:
        return IDIOM[text]
    first, _, rest = text.partition(" ")
    if first in NEGATIONS:
        return -opinion(rest)
    return 2 * opinion(rest) if first in INTENSIFIERS else SIGN[text]


def test_labels_are_the_signs_of_the_clauses_sums():
    for sentence in SENTENCES:
        clauses = [
            (p, q)
            for p in sentence.phrases
            if p.kind == "predicate"
            for q in sentence.phrases
            if q.kind == "clause" and q.stop == p.stop
        ]
        value = sum(opinion(words(sentence, p).partition(" ")[2]) for p, _ in clauses)
        assert value == sentence.value != 0, sentence.text
        assert sentence.label == (value > 0)
        assert len(clauses) in (1, 2)


def test_phrases_are_nested_and_name_their_words():
    kinds = set()
    for sentence in SENTENCES:
        for p in sentence.phrases:
            kinds.add(p.kind)
            assert 0 <= p.start < p.stop - 1 < len(sentence.tokens)
            for q in sentence.phrases:
                apart = p.stop <= q.start or q.stop <= p.start
                inside = p.start <= q.start and q.stop <= p.stop
                assert apart or inside or (q.start <= p.start and p.stop <= q.stop)
            text = words(sentence, p).split()
            if p.kind == "negation":
                assert text[0] in NEGATIONS
                assert text[-1] in SIGN
            if p.kind == "intensified":
                assert text[0] in INTENSIFIERS
            if p.kind == "idiom":
                assert " ".join(text) in IDIOM
    assert kinds == {
        "subject", "predicate", "clause", "link", "remark", "negation", "intensified", "idiom",
    }  # fmt: skip


def test_sentences_differ_and_no_single_word_tells_the_label():
    """Idioms aside, an adjective comes about as often with one label as its negations have it."""
    assert len({s.text for s in SENTENCES}) > 1950
    assert 0.45 < sum(s.label for s in SENTENCES) / 2000 < 0.55
    with_good = [s.label for s in SENTENCES if "good" in s.tokens]
    assert 0.3 < sum(with_good) / len(with_good) < 0.8
    assert sum("negation" in {p.kind for p in s.phrases} for s in SENTENCES) > 500


def test_a_sentence_depends_on_seed_and_number_alone():
    assert grammar_sentences(10, seed=1) == SENTENCES[:10]
    assert grammar_sentences(10, seed=2) != SENTENCES[:10]
    with raises("n", "0"):
        grammar_sentences(0)
    with pytest.raises(AttributeError):
        SENTENCES[0].label = 1
