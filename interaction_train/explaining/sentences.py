"""Sentences as the ids and the words that a tokenizer makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.tokens import TokenPlayers

if TYPE_CHECKING:  # the room of data loads Lightning
    from interaction_train.data.vocabulary import Vocabulary

Tokenizer = Callable[..., Any]
Text = str | Sequence[str]


@dataclass(frozen=True)
class Sentence:
    """Ids int64 ``(L,)``, the words as players, special tokens in none, and the words' names.

    ``unknown`` are the words that the vocabulary has not, which the network cannot tell apart.
    """

    ids: Tensor
    players: TokenPlayers
    names: list[str]
    unknown: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The unknown words in a line; empty without any."""
        return f"not in the vocabulary: {', '.join(self.unknown)}" if self.unknown else ""


def read_sentence(
    text: Text,
    tokenizer: Tokenizer | None = None,
    vocabulary: Vocabulary | None = None,
    argument: str = "texts",
) -> Sentence:
    """A sentence's ids and words.

    Args:
        text: a string, or its words.
        tokenizer: a string → tokens, default: what is between spaces; or one of Hugging Face, whose
            pieces of a word become one player.
        vocabulary: the ids of tokens; not for a tokenizer of Hugging Face, which has its own.
        argument: what the error calls the sentence.

    Raises:
        InputError: no sentence, one of fewer than two words, or tokens without a vocabulary.
    """
    words = text if isinstance(text, str) else list(text)
    if not isinstance(words, str):
        own = vocabulary is None and tokenizer is not None
        tokens = tokenizer(words, is_split_into_words=True) if own else words  # type: ignore[misc]
    else:
        tokens = (tokenizer or str.split)(words)
    if isinstance(tokens, Mapping):
        sentence = _pieces(words, tokens, tokenizer)
    elif vocabulary is None:
        raise InputError("vocabulary", None, "the ids of the tokens, such as data.vocabulary")
    else:
        names = [str(token) for token in tokens]
        ids = torch.tensor(vocabulary.encode(names), dtype=torch.int64)
        known = set(vocabulary.tokens)
        unknown = tuple(dict.fromkeys(name for name in names if name not in known))
        sentence = Sentence(ids, TokenPlayers(), names, unknown)
    if len(sentence.names) < 2:
        raise InputError(argument, repr(text), "sentences of at least 2 words")
    return sentence


def _pieces(text: Text, encoding: Mapping[str, Any], tokenizer: Any) -> Sentence:
    """What a tokenizer of Hugging Face made of a text: the pieces of a word belong together."""
    ids = list(encoding["input_ids"])
    if getattr(encoding, "is_fast", False):
        own = encoding.word_ids()  # type: ignore[attr-defined]
    else:  # it does not tell which pieces are one word's
        special = set(tokenizer.all_special_ids)
        own = [None if one in special else place for place, one in enumerate(ids)]
    groups: dict[int, list[int]] = {}
    for place, word in enumerate(own):
        if word is not None:
            groups.setdefault(word, []).append(place)
    if not getattr(encoding, "is_fast", False):
        names = [str(tokenizer.convert_ids_to_tokens(ids[word])) for word in groups]
    elif isinstance(text, str):
        spans = [encoding.word_to_chars(word) for word in groups]  # type: ignore[attr-defined]
        names = [text[span.start : span.end] for span in spans]
    else:
        names = [text[word] for word in groups]
    players = TokenPlayers(list(groups.values())) if groups else TokenPlayers()
    return Sentence(torch.tensor(ids), players, names)
