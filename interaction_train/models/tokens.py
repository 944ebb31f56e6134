"""Networks of Hugging Face as networks for tokens: ids in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from interaction_train.errors import InputError, at_least, reason
from interaction_train.game.evaluation import Logits


class TokenNetwork(Logits):
    """A classifier ``model(input_ids, attention_mask)`` that knows what an absent token shows.

    ``forward(ids)`` gives logits ``(B, classes)`` of ids ``(B, L)`` and leaves padding out of the
    attention, so that they do not depend on how far sentences are filled up. ``mask_id`` and
    ``kept_ids`` tell games what they mean
    (:func:`~interaction_train.game.tokens.special_ids`).

    Args:
        model: takes ``input_ids`` and ``attention_mask``, and returns logits, or an object, mapping
            or tuple with them.
        mask_id: the id that stands for an absent token.
        pad_id: that of padding; default: the model's ``config.pad_token_id``.
        kept_ids: of further tokens that are always present, such as [CLS] and [SEP].

    Raises:
        InputError: a model that takes something else, or no id of padding.
    """

    def __init__(
        self,
        model: nn.Module,
        mask_id: int,
        pad_id: int | None = None,
        kept_ids: Sequence[int] = (),
    ) -> None:
        if not {"input_ids", "attention_mask"} <= set(inspect.signature(model.forward).parameters):
            expected = "one whose forward takes input_ids and attention_mask"
            raise InputError("model", type(model).__name__, expected)
        at_least("mask_id", mask_id, 0)
        if pad_id is None:
            pad_id = getattr(getattr(model, "config", None), "pad_token_id", None)
        if pad_id is None:
            raise InputError("pad_id", None, "an id, as the model's config has no pad_token_id")
        super().__init__(model)
        self.mask_id, self.pad_id = mask_id, pad_id
        self.kept_ids = tuple(dict.fromkeys((pad_id, *kept_ids)))

    def forward(  # type: ignore[override]  # one named input, where others have any
        self, ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        shown = ids != self.pad_id if attention_mask is None else attention_mask
        return super().forward(ids, attention_mask=shown.long())


def hugging_face(name: str) -> TokenNetwork:
    """A sequence classifier of Hugging Face, from a folder or by the name it has there.

    With its tokenizer's ids of the mask, of padding and of other special tokens.

    Raises:
        InputError: the package ``transformers`` is missing, there is no such classifier, or its
            tokenizer has no mask: then ``TokenNetwork(model, mask_id)`` says what stands for it.
    """
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        expected = "the package transformers: pip install 'interaction-train[text]'"
        raise InputError("name", repr(name), expected) from error
    try:
        model = AutoModelForSequenceClassification.from_pretrained(name)
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        expected = f"a folder or name of a classifier with its tokenizer ({reason(error)[:200]})"
        raise InputError("name", repr(name), expected) from error
    if tokenizer.mask_token_id is None:
        expected = "a tokenizer with a mask token; TokenNetwork(model, mask_id) takes another id"
        raise InputError("name", repr(name), expected)
    hidden = (tokenizer.mask_token_id, tokenizer.unk_token_id)
    kept = [one for one in tokenizer.all_special_ids if one not in hidden]
    network = TokenNetwork(model, tokenizer.mask_token_id, tokenizer.pad_token_id, kept)
    return network.train()  # loaded models are in eval, in which nothing should be fine-tuned
