"""Sentences as token ids, in batches of similar lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.data.keyed import KeyedPart, KeyedSampler


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
