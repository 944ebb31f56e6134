"""Order and augmentation that depend on (seed, epoch, index) alone.

Neither the global RNG state, the number of workers or processes nor the run's history matter: a
resumed run sees what the uninterrupted run sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info
from torchvision.transforms import v2

from interaction_train.data.sources import Source, images, labels
from interaction_train.errors import InputError, at_least, checked_images, in_range
from interaction_train.sampling.random import Draws

Batch = tuple[Tensor, Tensor]
Key = int | tuple[int, int]
Augmentation = Callable[[Tensor, Draws], Tensor]
"""``(B, C, H, W)`` and one draw per sample → ``(B, ...)``."""


class KeyedSampler(DistributedSampler[tuple[int, int]]):
    """Yields ``(epoch, index)``, shuffled by (seed, epoch).

    Lightning, or the caller in a plain loop, calls :meth:`set_epoch` before every epoch. Processes
    share one order, padded by repetition. ``skip`` samples of this epoch were seen before.
    """

    def __init__(
        self, dataset: Dataset[Batch], seed: int = 0, num_replicas: int = 1, rank: int = 0
    ) -> None:
        # The parent seeds an epoch with seed + epoch; apart by 2^20, the seeds share no order.
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed << 20)
        self.skip = 0
        self.trainer: Trainer | None = None

    def go_on(self, trainer: Trainer, batch_size: int) -> None:
        """Begin where a trainer is, which a checkpoint may have put into the midst of an epoch."""
        self.trainer, self.epoch = trainer, trainer.current_epoch
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        seen, ready = progress.current.processed, progress.current.ready
        if trainer.fit_loop.restarting and not (progress.is_last_batch and seen == ready):
            self.skip = seen * batch_size

    def set_epoch(self, epoch: int) -> None:
        if self.trainer is not None and self.trainer.training:
            # Lightning's number is one too high after the end of an epoch resumed by max_steps.
            epoch = self.trainer.current_epoch
        self.skip = self.skip if epoch == self.epoch else 0
        super().set_epoch(epoch)

    def order(self) -> Iterable[int]:
        """The indices of this process in the epoch."""
        return cast(Iterator[int], super().__iter__())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        return ((epoch, index) for index in islice(self.order(), self.skip, None))


class KeyedPart(Dataset[Batch], ABC):
    """A part of a data set, of finished batches; items may be asked for by ``(epoch, index)``."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> Batch:
        x, y = self.__getitems__([key])
        return x[0], y[0]

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """A finished batch, which a DataLoader passes on with ``collate_fn=as_is``."""
        table = torch.tensor(keys)
        epochs, places = table.T if table.dim() == 2 else (None, table)
        try:
            return self.inputs(places, epochs), self.labels[places]
        except InputError as error:
            if get_worker_info() is None:
                raise
            return cast(Batch, error)  # as a value: PyTorch would turn it into text

    @abstractmethod
    def inputs(self, places: Tensor, epochs: Tensor | None) -> Tensor:
        """The inputs ``(B, ...)`` at places ``(B,)``; the epochs ``(B,)`` come in training."""


@dataclass(eq=False)
class KeyedDataset(KeyedPart):
    """Images; items by ``(epoch, index)`` are augmented, items by index are not."""

    source: Source
    indices: Tensor
    resize: nn.Module
    augmentations: Sequence[Augmentation] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        self.labels = labels(self.source)[self.indices]

    def inputs(self, places: Tensor, epochs: Tensor | None) -> Tensor:
        index = self.indices[places]
        x = self.resize(images(self.source, index))
        if epochs is not None:
            for augmentation in self.augmentations:
                x = augmentation(x, Draws((epochs << 40) | index, self.seed, "augmentation"))
        byte = x.dtype == torch.uint8
        return x.float().div_(255) if byte else checked_images(x, "transform").float()


class KeyedLoader(DataLoader[Batch]):
    """A DataLoader that raises what workers found, and that Lightning resumes within an epoch."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator: workers start with the first batch, after Lightning has set the epoch.
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch

    # Lightning asks for both; the place in the epoch is in the trainer's progress.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def as_is(batch: Batch) -> Batch:
    """The collate function for a dataset that returns finished batches."""
    return batch


@dataclass(frozen=True)
class RandomCropFlip:
    """Random crop after zero padding, and flip: one gather, ten times as fast as v2 by sample."""

    padding: int
    flip: bool

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        size = 2 * self.padding + 1
        row, column, side = (draws.uniform("crop and flip", 3) * torch.tensor([size, size, 2])).T
        windows = F.pad(x, [self.padding] * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
        x = windows[torch.arange(len(x)), :, row.long(), column.long()]
        return torch.where((side < 1)[:, None, None, None], x.flip(-1), x) if self.flip else x


def per_sample(transform: nn.Module, x: Tensor, draws: Draws) -> Tensor:
    """A transform of ``(C, H, W)``; torch's generator is seeded for each sample and put back."""
    out = []
    with torch.random.fork_rng(devices=[]):
        for sample, seed in zip(x, draws.bits("transform").tolist(), strict=True):
            # torch.manual_seed would reseed the accelerators too.
            torch.default_generator.manual_seed(seed)
            out.append(transform(sample))
    kinds = {tuple(o.shape) if isinstance(o, Tensor) else type(o).__name__ for o in out}
    if len(kinds) > 1 or not isinstance(out[0], Tensor):
        raise InputError("transform", f"outputs of {kinds}", "tensors of one shape")
    return torch.stack(out)


class Cutout(v2.Transform):
    """Cover a square around a random pixel (DeVries and Taylor, 2017); it may cross the border.

    Args:
        size: the square's side in pixels.
        fill: what it shows, in [0, 1]. (The paper's zeros come after the normalisation, which here
            is the network's: they are the training mean.)

    Raises:
        InputError: a size below 1 or a fill outside [0, 1].
    """

    def __init__(self, size: int, fill: float = 0.5) -> None:
        super().__init__()
        at_least("size", size, 1)
        in_range("fill", fill, 0, 1)
        self.size, self.fill = size, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"place": torch.rand(2)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """``(..., C, H, W)``, covered at ``params["place"]``, ``(..., 2)`` in [0, 1)."""
        square = torch.ones((), dtype=torch.bool)
        for axis, place in zip((-2, -1), params["place"].unbind(-1), strict=True):
            length = inpt.shape[axis]
            at = torch.arange(length) - ((place * length).long() - self.size // 2)[..., None]
            square = square & ((at >= 0) & (at < self.size)).unsqueeze(-3 - axis)
        fill = round(self.fill * 255) if inpt.dtype == torch.uint8 else self.fill
        return inpt.masked_fill(square.unsqueeze(-3), fill)

    def keyed(self, x: Tensor, draws: Draws) -> Tensor:
        """``(B, C, H, W)``, each sample covered at a place of its own."""
        return self.transform(x, {"place": draws.uniform("cutout", 2)})
