"""Explain what a network says about sentences."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from interaction_train.errors import InputError, at_least
from interaction_train.explaining.explain import ask
from interaction_train.explaining.explanation import Explanation
from interaction_train.explaining.progress import reported
from interaction_train.explaining.sentences import Text, Tokenizer, read_sentence
from interaction_train.game.batch import GameBatch
from interaction_train.game.evaluation import logits_of
from interaction_train.game.payoffs import Payoff
from interaction_train.game.tokens import special_ids
from interaction_train.indices.exact import exact_values

if TYPE_CHECKING:  # the room of data loads Lightning
    from interaction_train.data.vocabulary import Vocabulary


def explain_texts(
    model: nn.Module,
    texts: Sequence[Text],
    tokenizer: Tokenizer | None = None,
    vocabulary: Vocabulary | None = None,
    y: int | Sequence[int] | None = None,
    *,
    baseline: int | None = None,
    payoff: str | Payoff = "log_odds",
    classes: Sequence[str] | Mapping[int, str] | None = None,
    network: str | None = None,
    budget: int = 2**16,
    seed: int = 0,
    chunk_size: int | None = None,
    progress: bool | None = None,
) -> list[Explanation]:
    """What the words of sentences, alone and together, add to what a network says about each.

    Sentences may differ in length; those with no more coalitions than the budget share the
    network's batches. Warns (``UserWarning``) of words that the vocabulary has not.

    Args:
        model: maps ids ``(rows, L)`` to logits ``(rows, classes)``, or to an object with them.
        texts: sentences, each a string or its words.
        tokenizer: a string → tokens, default: what is between spaces; or one of Hugging Face, whose
            pieces of a word become one player and whose special tokens are always present.
        vocabulary: the ids of tokens, as ``TextDataModule`` has it; not for Hugging Face.
        y: the classes to explain, one for all or one each; default: the predicted ones.
        baseline: the id that absent words show; default: the network's ``mask_id``.
        payoff: as in :func:`~interaction_train.explaining.explain.explain`, like the rest.
        classes: names of the classes.
        network: a name for titles.
        budget: coalitions to evaluate for each sentence, at most.
        seed: of the draws where the budget allows only a part.
        chunk_size: rows sent through the network at once.
        progress: whether to show a bar.

    Returns:
        An explanation of each sentence, of one sample whose players are its words.

    Raises:
        InputError: as ``explain``, or what is no sentence of two words or more.
    """
    at_least("budget", budget, 1)
    if isinstance(texts, str) or not texts:
        raise InputError("texts", repr(texts), "a list of sentences, at least one")
    labels = [y] * len(texts) if y is None or isinstance(y, int) else list(y)
    if len(labels) != len(texts):
        raise InputError("y", f"{len(labels)} classes", f"{len(texts)}, one for each sentence")
    questions, one = [], logits_of(model)  # games of one batch are of one network
    for text, label in zip(texts, labels, strict=True):
        sentence = read_sentence(text, tokenizer, vocabulary)
        if sentence.unknown:
            warnings.warn(f"{text!r}: {sentence.told}", stacklevel=2)
        questions.append(
            ask(
                one, sentence.ids[None], label, sentence.players, baseline=baseline,
                payoff=payoff, names=sentence.names, classes=classes, network=network,
                chunk_size=chunk_size,
            )
        )  # fmt: skip
    short = [question for question in questions if 2**question.game.n <= budget]
    values: Iterator[Tensor] = iter(())
    if short:
        special = special_ids(model)
        pad = None if special is None else special.pad
        batch = GameBatch([question.game for question in short], pad, chunk_size)
        rows = sum(2**game.n for game in batch.games)
        with reported(batch, "all coalitions", rows, progress):
            values = iter(exact_values(batch, budget))
    return [
        question.exact(next(values))
        if 2**question.game.n <= budget
        else question.sampled(budget, seed, progress)
        for question in questions
    ]
