"""A fixed sample of a loader's data set: spread evenly, and shared among processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate
from torchmetrics.utilities.distributed import gather_all_tensors

from interaction_train.errors import InputError


def first_loader(loaders: Any) -> Any:
    """The first of a trainer's loaders, in lists, mappings and CombinedLoaders, or InputError."""
    combined = loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)
    loader = next(iter(combined.flattened), None)
    dataset = getattr(loader, "dataset", None)
    indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not indexed or isinstance(dataset, IterableDataset):
        expected = "a data set with a length and items by index"
        raise InputError("dataloader", type(dataset).__name__, expected)
    return loader


def spread(length: int, count: int) -> list[int]:
    """``count`` places, at most ``length``, evenly over 0 … length−1."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def shard(places: Sequence[int], trainer: L.Trainer, block: int = 1) -> list[list[int]]:
    """The blocks of places that this process takes; the same for any number of processes."""
    blocks = [list(places[k : k + block]) for k in range(0, len(places), block)]
    return blocks[trainer.global_rank :: trainer.world_size]


def fetch(trainer: L.Trainer, loader: Any, places: Sequence[int]) -> Any:
    """The samples at some places as a batch as the loop has it; random states stay as they are."""
    dataset, collate = loader.dataset, loader.collate_fn
    if getattr(loader, "batch_sampler", None) is None:  # its data set gives finished batches
        collate = default_collate
    with isolate_rng():
        several = getattr(dataset, "__getitems__", lambda at: [dataset[i] for i in at])
        batch = trainer.precision_plugin.convert_input(collate(several(list(places))))
        batch = trainer.lightning_module._on_before_batch_transfer(batch)
        return trainer.strategy.batch_to_device(batch)


def gather(rows: Tensor) -> Tensor:
    """The rows ``(b, columns)`` of all processes, by their first column; b may differ, and be 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rows = torch.cat(gather_all_tensors(rows.contiguous()))
    return rows[rows[:, 0].argsort(stable=True)]


def is_fast(trainer: L.Trainer) -> bool:
    """Whether this is ``fast_dev_run``, which shall cost next to nothing and write nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))


def check_alone(trainer: Any, callback: L.Callback, keys: str, argument: str) -> None:
    """Refuse two callbacks that log the same, as their attribute ``keys`` says (InputError)."""
    if sum(getattr(c, keys, ...) == getattr(callback, keys) for c in trainer.callbacks) > 1:
        got = f"two {type(callback).__name__} that log the same keys"
        raise InputError("callbacks", got, f"another {argument}= for each")
