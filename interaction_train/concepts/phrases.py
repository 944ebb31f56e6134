"""Interactions of all phrases: the sets of neighbouring players up to some length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from interaction_train.concepts.set_values import SetValues, open_game
from interaction_train.errors import in_range
from interaction_train.game.masked import MaskedGame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Phrase(SetValues):
    """The players ``start`` … ``stop − 1``, with B, T and φ of their set.

    Attributes:
        words: their names.
        start: the first player.
        stop: one more than the last.
        significant: whether |B| is above two standard errors (which chance passes in one of twenty
            phrases without interaction), or above rounding where values are exact.
    """

    words: str
    start: int
    stop: int
    significant: bool


@dataclass(frozen=True)
class Phrases:
    """What :func:`phrase_interactions` returns.

    Attributes:
        phrases: all of them, short ones first, then from left to right.
        evaluations: coalitions evaluated.
    """

    phrases: tuple[Phrase, ...]
    evaluations: int

    @property
    def significant(self) -> tuple[Phrase, ...]:
        """The significant ones, by falling |B|."""
        found = (phrase for phrase in self.phrases if phrase.significant)
        return tuple(sorted(found, key=lambda phrase: -abs(phrase.multivariate)))

    def frame(self) -> pd.DataFrame:
        """A row per phrase, in the order of ``phrases``."""
        import pandas as pd

        return pd.DataFrame([asdict(phrase) for phrase in self.phrases]).set_index("words")


def phrase_interactions(
    v_or_game: Tensor | MaskedGame,
    max_length: int,
    contexts: int | None = None,
    *,
    names: Sequence[str] | None = None,
    strength: bool = True,
    seed: int = 0,
) -> Phrases:
    """B([S]), T([S]) and φ([S]) of all sets S of 2 … ``max_length`` neighbouring players.

    Args:
        v_or_game: as :func:`~interaction_train.concepts.trees.interaction_tree` takes it.
        max_length: players of the longest phrases, 2 … n.
        contexts: sample from so many contexts of each phrase; default beyond 16 players: 100.
        names: of the players.
        strength: give T too, whose contexts cost about 2^|S| evaluations each where it is sampled
            (B's |S| + 2).
        seed: seed of the draws.

    Raises:
        InputError: a length out of its range, or what ``interaction_tree`` refuses.

    Examples:
        >>> import torch
        >>> from interaction_train.indices import all_coalitions
        >>> who = all_coalitions(3).double()
        >>> v = who[:, 0] - 2 * who[:, 1] * who[:, 2]
        >>> found = phrase_interactions(v, 2, names=["quite", "not", "good"])
        >>> [(phrase.words, phrase.multivariate) for phrase in found.significant]
        [('not good', -2.0)]
    """
    source = open_game(v_or_game, contexts, names, seed)
    in_range("max_length", max_length, 2, source.n)
    phrases = []
    for length in range(2, max_length + 1):
        for start in range(source.n - length + 1):
            stop = start + length
            values = source.within(range(start, stop), strength)
            bound = max(2 * values.multivariate_stderr, length * source.noise)
            phrases.append(
                Phrase(
                    words=" ".join(source.names[start:stop]),
                    start=start,
                    stop=stop,
                    significant=abs(values.multivariate) > bound,
                    **asdict(values),
                )
            )
    return Phrases(tuple(phrases), source.evaluations)
