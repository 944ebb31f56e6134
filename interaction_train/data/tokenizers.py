"""Tokenizers of Hugging Face by their names, for configurations."""

from __future__ import annotations

from typing import Any

from interaction_train.errors import InputError, reason


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
