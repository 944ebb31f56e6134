"""A small language of opinions with negation, intensifiers and idioms, whose truth is known.

A clause is a subject, a verb and an opinion: an adjective, worth ±1, which an intensifier doubles
and a negation around both turns; or an idiom, worth ±1, which its words alone do not say. A
sentence is a clause or two, which agree ("and") or contrast ("but", where the stronger one counts),
perhaps with a remark that says nothing. Its label is the sign of the clauses' sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from interaction_train.errors import at_least
from interaction_train.sampling.random import Draws

NEGATIVE, POSITIVE = 0, 1
_NUMBERS = 24  # that a sentence may use


def _options(*lines: str) -> list[str]:
    return [option.strip() for line in lines for option in line.split(",")]


ADJECTIVES = {
    +1: _options(
        "good, great, fine, lovely, clever, funny, warm, fresh, moving, brilliant, charming",
        "superb, honest, witty, graceful, gripping",
    ),
    -1: _options(
        "bad, dull, awful, boring, clumsy, stale, flat, tedious, silly, cold, bland, dreadful",
        "shallow, lazy, messy, painful",
    ),
}
INTENSIFIERS = _options("very, really, truly, extremely, so, deeply, utterly, remarkably")
NEGATIONS = _options("not, never, hardly")
IDIOMS = {  # with words of opinion, or of none, that other sentences use otherwise
    +1: _options("hard to beat, second to none, out of this world, so bad it works"),
    -1: _options("good for nothing, too good to last, for the birds, past its best"),
}
OWNERS = _options("the, this, its, their, that whole, the entire")
SUBJECTS = _options(
    "film, plot, cast, story, score, script, ending, camera, dialogue, opening, hero, villain",
    "second act, first scene, pace, humor, music, direction, world, last chapter",
)
VERBS = _options("is, was, seems, feels, looks, remains")
LINKS = {"and": 1, "but": -1, "yet": -1, "though": -1}  # the sign of the second clause
REMARKS = _options(
    "in the end, for a debut, at times, from the first scene, to this day, on the second try",
    "with the birds, out of nothing, all the way, in this world, before the last act",
)


@dataclass(frozen=True)
class Phrase:
    """Positions ``start`` to ``stop − 1`` of a sentence that belong together.

    ``kind`` is subject, intensified, negation, idiom, predicate, clause, remark or link (a link
    word with its clause).
    """

    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class Sentence:
    """Tokens, the label (0 negative, 1 positive), the sum of the clauses, and the phrases."""

    tokens: tuple[str, ...]
    label: int
    value: int
    phrases: tuple[Phrase, ...]

    @property
    def text(self) -> str:
        """The tokens with spaces between."""
        return " ".join(self.tokens)


def grammar_sentences(n: int, seed: int = 0) -> list[Sentence]:
    """Sentences 0 to n − 1 of a seed; each depends on the seed and its number alone.

    Raises:
        InputError: n below 1.

    Examples:
        >>> sentence = grammar_sentences(5)[4]
        >>> sentence.text, sentence.label, sentence.phrases[1]
        ('the entire film seems hardly boring', 1, Phrase(kind='negation', start=4, stop=6))
    """
    at_least("n", n, 1)
    numbers = Draws(torch.arange(n), seed, "grammar").uniform("choices", _NUMBERS).tolist()
    return [_sentence(iter(row)) for row in numbers]


class _Writer:
    """A sentence while it is written; choices take one of its random numbers each."""

    def __init__(self, numbers: Iterator[float]) -> None:
        self.numbers = numbers
        self.tokens: list[str] = []
        self.phrases: list[Phrase] = []

    def happens(self, probability: float) -> bool:
        return next(self.numbers) < probability

    def say(self, *words: str) -> None:
        self.tokens += " ".join(words).split()

    def one_of(self, options: list[str]) -> str:
        return options[int(next(self.numbers) * len(options))]

    def close(self, kind: str, start: int) -> None:
        """A phrase from there to the end, if it has several words."""
        if len(self.tokens) - start > 1:
            self.phrases.append(Phrase(kind, start, len(self.tokens)))

    def clause(self, sign: int) -> int:
        """One of that sign; its value."""
        start = len(self.tokens)
        self.say(self.one_of(OWNERS), self.one_of(SUBJECTS))
        self.close("subject", start)
        verb = len(self.tokens)
        self.say(self.one_of(VERBS))
        opinion = len(self.tokens)
        if self.happens(0.2):
            self.say(self.one_of(IDIOMS[sign]))
            self.close("idiom", opinion)
            value = sign
        else:
            value = self.adjective(sign)
        self.close("predicate", verb)
        self.close("clause", start)
        return value

    def adjective(self, sign: int) -> int:
        start = len(self.tokens)
        negated, intensified = self.happens(0.4), self.happens(0.4)
        if negated:
            self.say(self.one_of(NEGATIONS))
        inner = len(self.tokens)
        if intensified:
            self.say(self.one_of(INTENSIFIERS))
        self.say(self.one_of(ADJECTIVES[-sign if negated else sign]))
        if intensified:
            self.close("intensified", inner)
        if negated:
            self.close("negation", start)
        return 2 * sign if intensified else sign


def _sentence(numbers: Iterator[float]) -> Sentence:
    writer = _Writer(numbers)
    sign = 1 if writer.happens(0.5) else -1
    value = writer.clause(sign)
    one = len(writer.tokens), len(writer.phrases)
    if writer.happens(0.6):
        link = writer.one_of(list(LINKS))
        writer.say(link)
        total = value + writer.clause(sign * LINKS[link])
        writer.close("link", one[0])
        if total == 0:  # a tie says nothing: the first clause is all
            del writer.tokens[one[0] :], writer.phrases[one[1] :]
        value = total or value
    if writer.happens(0.3):
        start = len(writer.tokens)
        writer.say(writer.one_of(REMARKS))
        writer.close("remark", start)
    label = POSITIVE if value > 0 else NEGATIVE
    return Sentence(tuple(writer.tokens), label, value, tuple(writer.phrases))
