"""A fixed sample of a loader's data set: spread evenly, and shared among processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """The first of a trainer's loaders, which may lie in lists, mappings and CombinedLoaders.

    Raises:
        InputError: it has no data set with a length and items by index.
    """
    loader = loaders
    while isinstance(loader, CombinedLoader | Mapping | list | tuple):
        if isinstance(loader, CombinedLoader):
            loader = loader.iterables
        else:
            parts = loader.values() if isinstance(loader, Mapping) else loader
            loader = next(iter(parts), None)
    dataset = getattr(loader, "dataset", None)
    indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not indexed or isinstance(dataset, IterableDataset):
        raise InputError(
            "dataloader", type(dataset).__name__, "a data set with a length and items by index"
        )
    return loader


def spread(length: int, count: int) -> list[int]:
    """``count`` places, at most ``length``, evenly over 0 … length−1."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def shard(places: Sequence[int], trainer: L.Trainer, block: int = 1) -> list[list[int]]:
    """The blocks of places that this process takes; perhaps none.

    Blocks are the same for any number of processes. So what depends on who is in a batch with whom,
    such as an attack's random start, does not depend on that number.

    Args:
        places: all places.
        trainer: gives this process's rank and the number of processes.
        block: places per block.
    """
    blocks = [list(places[k : k + block]) for k in range(0, len(places), block)]
    return blocks[trainer.global_rank :: trainer.world_size]


def batches(places: Sequence[int], trainer: L.Trainer, size: int) -> list[list[int]]:
    """This process's places, in batches, for what does not depend on who is in a batch."""
    mine = [place for block in shard(places, trainer) for place in block]
    return [mine[k : k + size] for k in range(0, len(mine), size)]


def fetch(trainer: L.Trainer, loader: Any, places: Sequence[int]) -> Any:
    """The samples at some places as one batch, made as the loader and the loop make theirs.

    Precision, device, and the batch hooks of module and data module are the loop's. The global
    random states stay as they are, also where the data set or a hook draws from them.

    Args:
        trainer: what runs the loop.
        loader: a loader (:func:`first_loader`).
        places: at least one.
    """
    dataset = loader.dataset
    collate: Callable[[Any], Any] = loader.collate_fn
    if getattr(loader, "batch_sampler", None) is None:  # its data set gives finished batches
        collate = default_collate
    with isolate_rng():
        if hasattr(dataset, "__getitems__"):
            batch = collate(dataset.__getitems__(list(places)))
        else:
            batch = collate([dataset[i] for i in places])
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch)
        return trainer.strategy.batch_to_device(batch)


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes, ordered by their first column.

    Args:
        rows: ``(b, columns)``; b may differ between processes, and be 0.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rows = torch.cat(gather_all_tensors(rows.contiguous()))
    return rows[rows[:, 0].argsort(stable=True)]
