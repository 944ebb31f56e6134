"""The data module for sentences with labels, in batches of similar lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from interaction_train.data.frames import (
    class_numbers,
    classes_of,
    need_columns,
    no_files_beside,
    read_frames,
)
from interaction_train.data.grammar import grammar_sentences
from interaction_train.data.keyed import KeyedPart, KeyedSampler
from interaction_train.data.parts import PartsDataModule
from interaction_train.data.sources import Split
from interaction_train.data.vocabulary import Vocabulary
from interaction_train.errors import InputError, at_least

GRAMMAR = "grammar"
_LEAST = {"max_length": 1, "pad_multiple": 1, "min_count": 1, "sentences": 1}


@dataclass(eq=False)
class TokenPart(KeyedPart):
    """Token ids int64 ``(B, L)``, filled up with ``pad`` on the right.

    L is the longest sentence's length rounded up to a multiple of ``multiple``, at most
    ``max_length``.
    """

    sentences: Sequence[Sequence[int]]
    labels: Tensor
    pad: int
    multiple: int
    max_length: int

    def __post_init__(self) -> None:
        self.lengths = torch.tensor([len(sentence) for sentence in self.sentences])
        self._starts = self.lengths.cumsum(0) - self.lengths
        self._ids = torch.tensor([k for sentence in self.sentences for k in sentence] + [self.pad])

    def inputs(self, places: Tensor, epochs: Tensor | None) -> Tensor:
        lengths = self.lengths[places].unsqueeze(1)
        width = -(-int(lengths.max()) // self.multiple) * self.multiple
        at = torch.arange(min(width, self.max_length))
        # Past a sentence's end stands the last id of all, which is padding.
        return self._ids[torch.where(at < lengths, self._starts[places].unsqueeze(1) + at, -1)]


class BucketSampler(KeyedSampler):
    """Batches of similar lengths: whole epochs sorted by length, ties and batches shuffled.

    The last batch, which may be smaller, holds sentences of any lengths. All processes have batches
    of the same sorted run at a time. The other arguments are those of :class:`KeyedSampler`.

    Args:
        part: sentences with ``lengths``.
        batch_size: of each process.
    """

    def __init__(
        self, part: TokenPart, batch_size: int, seed: int = 0, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(part, seed, num_replicas, rank)
        self.lengths, self.batch_size = part.lengths, batch_size

    def order(self) -> Iterable[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator)
        shuffled = shuffled.repeat(-(-self.total_size // len(shuffled)))[: self.total_size]
        rows = self.batch_size * self.num_replicas  # of a batch, over all processes
        whole = len(shuffled) // rows * rows
        run = shuffled[:whole]
        run = run[self.lengths[run].argsort(stable=True)].view(-1, rows)
        run = run[torch.randperm(len(run), generator=generator)].flatten()
        return torch.cat([run, shuffled[whole:]])[self.rank :: self.num_replicas].tolist()


@dataclass(eq=False)
class TextDataModule(PartsDataModule):
    """Batches ``(ids, y)``: int64 ``(B, L)``, filled up with ``pad_id``, and labels ``(B,)``.

    Training batches hold sentences of similar lengths, in an order of (seed, epoch) alone. The
    vocabulary and the classes are those of the training sentences, or of the checkpoint that a run
    resumes, validates or tests.

    Args:
        source: the training sentences: a csv, tsv or jsonl file (an object a line); in a tsv, a
            quotation mark is a character. Or ``"grammar"``: sentences of
            :func:`~interaction_train.data.grammar.grammar_sentences`.
        val: a file with the validation sentences; default: split off, stratified by class.
        test: a file with the test sentences; default: split off likewise.
        text: the column of the sentences.
        label: the column of the labels, integers or strings, numbered in sorted order.
        tokenizer: a sentence → its tokens, or a mapping with ``input_ids``, as those of Hugging
            Face, whose vocabulary then counts; default: words between spaces.
        max_length: most tokens of a sentence.
        truncate: whether longer ones are cut, which is said, instead of refused.
        max_vocabulary: most ids, with three special ones; the most frequent tokens get one.
        min_count: of a token in training, to get an id.
        batch_size: sentences per batch and process.
        pad_multiple: what L is a multiple of, up to ``max_length``.
        val_fraction: part of the training sentences held out for validation, without ``val``.
        test_fraction: part of all sentences that is the test set, without ``test``.
        train_fraction: part of the remaining training sentences that is used, stratified too.
        sentences: how many the grammar gives.
        seed: of the order; the splits are always the same.
        num_workers: processes that load data beside the main one.
        predict_split: the part that ``predict`` goes over, in order.

    After ``setup()``: ``parts``, ``vocabulary`` (None where the tokenizer gives ids),
    ``vocabulary_size``, ``pad_id``, ``mask_id``, ``class_names``, ``num_classes``, and ``texts``,
    the sentences of each part.

    Raises:
        InputError: an argument out of its range; at ``setup()`` an unreadable file, a missing
            column, an empty or too long sentence, or a label that training has not.
    """

    source: str | Path
    val: str | Path | None = None
    test: str | Path | None = None
    text: str = "text"
    label: str = "label"
    tokenizer: Callable[[str], Any] | None = None
    max_length: int = 64
    truncate: bool = False
    max_vocabulary: int = 8192
    min_count: int = 1
    batch_size: int = 64
    pad_multiple: int = 8
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    train_fraction: float = 1.0
    sentences: int = 4000
    seed: int = 0
    num_workers: int = 0
    predict_split: Split = "test"
    parts: dict[Split, TokenPart] = field(default_factory=dict, init=False, repr=False)
    vocabulary: Vocabulary | None = field(default=None, init=False, repr=False)
    class_names: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in _LEAST.items():
            at_least(name, getattr(self, name), least)
        if not (self.tokenizer is None or callable(self.tokenizer)):
            expected = "something to call with a sentence; in YAML, a class by class_path"
            raise InputError("tokenizer", repr(self.tokenizer), expected)
        at_least("max_vocabulary", self.max_vocabulary, len(Vocabulary.SPECIAL))
        no_files_beside(self.source, (GRAMMAR,), val=self.val, test=self.test)
        self._frames: dict[Split, pd.DataFrame] = {}

    @property
    def num_classes(self) -> int | None:
        """None before ``setup()``."""
        return len(self.class_names) or None

    @property
    def texts(self) -> dict[Split, list[str]]:
        """The sentences of each part, as they were read."""
        return {name: frame[self.text].tolist() for name, frame in self._frames.items()}

    @property
    def vocabulary_size(self) -> int:
        """The number of ids; InputError where a tokenizer gives ids and does not tell."""
        own: Any = self.tokenizer if self.vocabulary is None else self.vocabulary
        if not hasattr(own, "__len__"):
            raise InputError("tokenizer", "ids, without their number", "tokens, or one with len()")
        return len(own)

    @property
    def pad_id(self) -> int:
        """The id that fills sentences up."""
        return self._special("pad_token_id", Vocabulary.PAD)

    @property
    def mask_id(self) -> int:
        """The id that stands for an absent token."""
        return self._special("mask_token_id", Vocabulary.MASK)

    def _special(self, name: str, own: int) -> int:
        given = getattr(self.tokenizer, name, None)
        return own if given is None else int(given)

    def setup(self, stage: str | None = None) -> None:
        """Read and number everything, once."""
        if not self.parts:
            self._frames = self._frames or self._read()
            self._number()

    def _read(self) -> dict[Split, pd.DataFrame]:
        found: dict[Split, pd.DataFrame]
        if self.source == GRAMMAR:
            rows = [(s.text, s.label) for s in grammar_sentences(self.sentences)]
            found = {"train": pd.DataFrame(rows, columns=[self.text, self.label])}
        else:
            found = read_frames(self.source, self.val, self.test, self.text)
        for name, frame in found.items():
            need_columns(frame, name, text=self.text, label=self.label)
            _check_texts(frame[self.text], name)
        classes = classes_of(found["train"][self.label])
        labels = {n: class_numbers(f[self.label], classes, n) for n, f in found.items()}
        parts = self.divide(labels)
        return {name: found[file].iloc[index.numpy()] for name, (file, index) in parts.items()}

    def _number(self) -> None:
        """The parts of the sentences read, by the vocabulary and the classes."""
        tokens = {name: self._tokens(name, frame) for name, frame in self._frames.items()}
        train = tokens["train"]
        if not self.class_names:
            self.class_names = classes_of(self._frames["train"][self.label])
        if self.vocabulary is None and isinstance(train[0][0], str):
            self.vocabulary = Vocabulary.build(train, self.max_vocabulary, self.min_count)
        encode = list if self.vocabulary is None else self.vocabulary.encode
        self.parts = {
            name: TokenPart(
                [encode(sentence) for sentence in tokens[name]],
                class_numbers(frame[self.label], self.class_names, name),
                self.pad_id,
                self.pad_multiple,
                self.max_length,
            )
            for name, frame in self._frames.items()
        }

    def _tokens(self, part: Split, frame: pd.DataFrame) -> list[Sequence[Any]]:
        """Tokens, or ids, of each sentence."""
        tokenize = self.tokenizer or str.split
        found: list[Any] = [tokenize(sentence) for sentence in frame[self.text]]
        if isinstance(found[0], Mapping):
            found = [tokens["input_ids"] for tokens in found]
        lengths = np.array([len(tokens) for tokens in found])
        if (empty := np.flatnonzero(lengths == 0)).size:
            got = f"no token of {frame[self.text].iloc[empty[0]]!r} in the {part} samples"
            raise InputError("tokenizer", got, "at least one per sentence")
        if (long := np.flatnonzero(lengths > self.max_length)).size:
            if not self.truncate:
                got = f"{self.max_length}, and {lengths.max()} tokens in a {part} sentence"
                raise InputError("max_length", got, "as many as the longest has, or truncate: true")
            rank_zero_warn(
                f"{long.size} of {len(found)} {part} sentences have more than max_length = "
                f"{self.max_length} tokens and are cut."
            )
        return [tokens[: self.max_length] for tokens in found]

    def state_dict(self) -> dict[str, Any]:
        words = None if self.vocabulary is None else list(self.vocabulary.tokens)
        return {"tokens": words, "class_names": list(self.class_names)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        words, self.class_names = state_dict["tokens"], tuple(state_dict["class_names"])
        self.vocabulary = None if words is None else Vocabulary(words)
        if self.parts:  # Lightning calls setup() before
            self._number()

    def _sampler(self, world_size: int, rank: int) -> KeyedSampler:
        return BucketSampler(self.parts["train"], self.batch_size, self.seed, world_size, rank)


def _check_texts(column: pd.Series, part: str) -> None:
    wrong = [not isinstance(text, str) or not text.strip() for text in column]
    if any(wrong):
        row = wrong.index(True)
        got = f"{column.iloc[row]!r} in row {row + 1} of the {part} file"
        raise InputError("text", got, "a sentence")
