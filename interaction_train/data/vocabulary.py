"""The tokens that a network knows, by number: our vocabularies, and those of Hugging Face."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from interaction_train.errors import InputError, at_least, reason


@dataclass(repr=False, unsafe_hash=True)
class Vocabulary:
    """Tokens and their ids: padding 0, unknown 1, mask 2, then the given ones from 3 on.

    Args:
        tokens: in the order of their ids.

    Raises:
        InputError: a token that comes twice.

    Examples:
        >>> words = Vocabulary.build([["not", "good"], ["good"]])
        >>> words.tokens, words.encode(["good", "grief"])
        (('good', 'not'), [3, 1])
    """

    PAD, UNKNOWN, MASK = 0, 1, 2
    SPECIAL = ("[PAD]", "[UNK]", "[MASK]")

    tokens: Sequence[str]

    def __post_init__(self) -> None:
        self.tokens = tuple(self.tokens)
        self._ids = {token: k for k, token in enumerate(self.tokens, len(self.SPECIAL))}
        if len(self._ids) < len(self.tokens):
            again = next(t for k, t in enumerate(self.tokens) if t in self.tokens[:k])
            raise InputError("tokens", f"{again!r} twice", "distinct tokens")

    @classmethod
    def build(
        cls, sentences: Iterable[Sequence[str]], max_size: int | None = None, min_count: int = 1
    ) -> Vocabulary:
        """The most frequent tokens of sentences, of equally frequent ones the first by alphabet.

        Args:
            sentences: tokens each.
            max_size: largest ``len()``, with the three special ids.
            min_count: of a token, to be in it.
        """
        at_least("min_count", min_count, 1)
        if max_size is not None:
            at_least("max_size", max_size, len(cls.SPECIAL))
        counts = Counter(token for sentence in sentences for token in sentence)
        frequent = sorted(
            (token for token, count in counts.items() if count >= min_count),
            key=lambda token: (-counts[token], token),
        )
        return cls(frequent if max_size is None else frequent[: max_size - len(cls.SPECIAL)])

    def __len__(self) -> int:
        return len(self.SPECIAL) + len(self.tokens)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids; of tokens outside the vocabulary 1."""
        return [self._ids.get(token, self.UNKNOWN) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens; the special ids as [PAD], [UNK], [MASK]."""
        names = (*self.SPECIAL, *self.tokens)
        return [names[k] for k in ids]


class HuggingFaceTokenizer:
    """The tokenizer of a network of Hugging Face, as the library gives it.

    Args:
        name: a folder, or the name that it has there.

    Raises:
        InputError: the package ``transformers`` is missing, or there is no such tokenizer.
    """

    def __init__(self, name: str) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            expected = "the package transformers: pip install 'interaction-train[text]'"
            raise InputError("name", repr(name), expected) from error
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, KeyError) as error:
            expected = f"a folder or name of a tokenizer ({reason(error)[:200]})"
            raise InputError("name", repr(name), expected) from error

    def __call__(self, text: Any, **settings: Any) -> Any:
        return self.tokenizer(text, **settings)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # while a copy is made
            raise AttributeError(name)
        return getattr(self.tokenizer, name)
