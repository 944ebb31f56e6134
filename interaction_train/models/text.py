"""A network for sentences of token ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, at_least, in_range


class TextTransformer(nn.Module):
    """A small transformer: ids int64 ``(B, L)`` → logits ``(B, num_classes)``.

    Words and positions are embedded, attend to each other in pre-norm encoder layers, and the mean
    over the words that are no padding goes to ``classifier``. In training, words are hidden at
    random behind the mask's id, so that a network knows what their absence is.

    Args:
        vocabulary_size: number of ids.
        num_classes: number of logits.
        max_length: number of positions, most tokens of a sentence.
        width: of the embeddings, a multiple of ``heads``.
        heads: of the attention.
        layers: number of encoder layers.
        dropout: probability, after the embeddings and in each layer.
        word_dropout: probability that a word is hidden in training.
        pad_id: the id that fills sentences up.
        mask_id: the id shown where a word is absent.
        kept_ids: ids that are always present; default: the padding.

    Raises:
        InputError: an argument out of its range, inputs of another form, or a sentence longer than
            ``max_length``.
    """

    def __init__(
        self,
        vocabulary_size: int = 8192,
        num_classes: int = 2,
        max_length: int = 64,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.1,
        word_dropout: float = 0.1,
        pad_id: int = 0,
        mask_id: int = 2,
        kept_ids: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        sizes = {"num_classes": num_classes, "max_length": max_length, "layers": layers}
        for name, value in {**sizes, "heads": heads}.items():
            at_least(name, value, 1)
        if width < 1 or width % heads:
            raise InputError("width", width, f"a multiple of the {heads} heads")
        for name, place in {"pad_id": pad_id, "mask_id": mask_id}.items():
            in_range(name, place, 0, vocabulary_size, below=True)
        in_range("dropout", dropout, 0, 1, below=True)
        self.vocabulary_size, self.max_length = vocabulary_size, max_length
        self.pad_id, self.mask_id = pad_id, mask_id
        self.kept_ids = (pad_id,) if kept_ids is None else tuple(kept_ids)
        self.word_dropout = WordDropout(word_dropout, mask_id, self.kept_ids)
        self.embedding = nn.Embedding(vocabulary_size, width, padding_idx=pad_id)
        self.position = nn.Parameter(torch.randn(max_length, width) * 0.02)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.pool = MaskedMean()
        self.classifier = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_classes)
        )

    def adapt_to(self, data: Any) -> None:
        """Refuse a data module with ids that this network has not (see InteractionClassifier)."""
        size = getattr(data, "vocabulary_size", None)
        if size is None:
            return
        if size > self.vocabulary_size:
            raise InputError(
                "vocabulary_size", self.vocabulary_size, f"at least {size}, the data's"
            )
        for name in ("pad_id", "mask_id"):
            if getattr(self, name) != getattr(data, name):
                raise InputError(name, getattr(self, name), f"{getattr(data, name)}, the data's")

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits; ``attention_mask`` ``(B, L)`` says what is no padding, by default ``pad_id``."""
        if ids.dim() != 2 or ids.dtype != torch.int64:
            raise InputError("x", f"{ids.dtype} {tuple(ids.shape)}", "int64 token ids (B, L)")
        mask = ids != self.pad_id if attention_mask is None else attention_mask
        return self.encode(self.embed(self.word_dropout(ids)), mask)

    def embed(self, ids: Tensor) -> Tensor:
        """The words' embeddings ``(B, L, width)``, without positions."""
        return self.embedding(ids)

    def encode(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """The logits of sentences that :meth:`embed` gave, perhaps masked since."""
        length = embeddings.shape[1]
        if length > self.max_length:
            raise InputError("x", f"sentences of {length} tokens", f"at most {self.max_length}")
        mask = attention_mask.bool()
        x = self.dropout(embeddings + self.position[:length])
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(self.pool(self.norm(x), mask))


class WordDropout(nn.Module):
    """In training, shows the mask's id in the place of ids, each with some probability.

    Args:
        p: the probability.
        mask_id: what is shown.
        kept_ids: ids that stay.
    """

    kept: Tensor

    def __init__(self, p: float, mask_id: int, kept_ids: tuple[int, ...]) -> None:
        super().__init__()
        in_range("word_dropout", p, 0, 1, below=True)
        self.p, self.mask_id = p, mask_id
        self.register_buffer("kept", torch.tensor(kept_ids), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return ids
        hidden = torch.rand(ids.shape, device=ids.device) < self.p
        return ids.masked_fill(hidden & ~torch.isin(ids, self.kept), self.mask_id)


class EncoderLayer(nn.Module):
    """Self-attention and two linear layers, each added to its input after a LayerNorm of it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``(B, L, width)`` → the same; what ``mask`` ``(B, L)`` leaves out is not attended to."""
        x = x + self.dropout(self.out(self._attend(self.norm1(x), mask)))
        return x + self.dropout(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # In plain operations: fused attention has no second derivatives.
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        # A finite number, with which a sentence of nothing but padding gives no NaN.
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class MaskedMean(nn.Module):
    """The mean over positions that are no padding: ``(B, L, D)``, ``(B, L)`` → ``(B, D)``."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(2).to(x)
        return (x * weights).sum(1) / weights.sum(1).clamp_min(1)
