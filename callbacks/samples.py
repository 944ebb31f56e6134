"""A fixed sample of what a loader goes through: spread evenly, and shared among processes."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    default_collate,
)
from torchmetrics.utilities.distributed import gather_all_tensors

from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers, Players
from interaction_train.game.precision import wide

PlayersT = TypeVar("PlayersT", bound=Players)


def first_loader(loaders: Any) -> Any:
    """The first of a trainer's loaders, in lists, mappings and CombinedLoaders, or InputError."""
    combined = loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)
    loader = next(iter(combined.flattened), None)
    dataset = getattr(loader, "dataset", None)
    indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not (indexed and isinstance(loader, DataLoader)) or isinstance(dataset, IterableDataset):
        got = type(loader if dataset is None else dataset).__name__
        expected = "a DataLoader of a data set with a length and items by index"
        raise InputError("dataloader", got, expected)
    if loader.batch_sampler is None and not isinstance(loader.sampler, BatchSampler):
        got = f"finished batches of {type(dataset).__name__}"
        raise InputError("dataloader", got, "a data set of samples, and a batch_size")
    return loader


def population(loader: Any) -> Sequence[int]:
    """The places of its data set that a loader goes through, ascending.

    A subset is known from a sampler that is a sequence or has ``indices``. Any other sampler stands
    for the whole data set, with a warning where it gives fewer samples.
    """
    whole, batches = range(len(loader.dataset)), loader.batch_sampler
    if isinstance(batches, Sequence):
        return sorted({int(place) for batch in batches for place in batch})
    outer = loader.sampler if batches is None else batches  # ones of whole batches, perhaps
    sampler = getattr(outer, "sampler", loader.sampler)
    inner = getattr(sampler, "dataset", None)
    sampler = getattr(inner, "_sampler", sampler)  # for several processes Lightning wraps it
    places = sampler if isinstance(sampler, Sequence) else getattr(sampler, "indices", None)
    if places is not None:
        return sorted({int(place) for place in places})
    known = isinstance(sampler, DistributedSampler) or not isinstance(sampler, Sized)
    if not known and len(sampler) < len(whole):
        rank_zero_warn(
            f"All {len(whole)} samples of the data set are measured, of which the loader's "
            f"{type(sampler).__name__} gives {len(sampler)}; a Subset of the data set says which."
        )
    return whole


def spread(places: Sequence[int], count: int) -> list[int]:
    """``count`` of some places, at most all, spread evenly over them."""
    count = min(count, len(places))
    return [places[i * len(places) // count] for i in range(count)]


def shard(places: Sequence[int], trainer: L.Trainer, block: int = 1) -> list[list[int]]:
    """The blocks of places that this process takes; the same for any number of processes."""
    blocks = [list(places[k : k + block]) for k in range(0, len(places), block)]
    return blocks[trainer.global_rank :: trainer.world_size]


def fetch(trainer: L.Trainer, loader: Any, places: Sequence[int]) -> Any:
    """The samples at some places as a batch as the loop has it; random states stay as they are."""
    dataset, collate = loader.dataset, loader.collate_fn
    if loader.batch_sampler is None:  # its sampler gives the places of whole batches
        collate = default_collate
    with isolate_rng():
        several = getattr(dataset, "__getitems__", lambda at: [dataset[i] for i in at])
        batch = trainer.precision_plugin.convert_input(collate(several(list(places))))
        batch = trainer.lightning_module._on_before_batch_transfer(batch)
        return trainer.strategy.batch_to_device(batch)


def gather(blocks: Sequence[Tensor], columns: int, trainer: L.Trainer) -> Tensor:
    """The rows ``(b, columns)`` of all processes' blocks, by their first column; float64 if it can.

    A process may have none.
    """
    nothing = wide(torch.zeros(0, columns, device=trainer.strategy.root_device))
    rows = wide(torch.cat(list(blocks))) if blocks else nothing
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rows = torch.cat(gather_all_tensors(rows.contiguous()))
    return rows[rows[:, 0].argsort(stable=True)]


def is_fast(trainer: L.Trainer) -> bool:
    """Whether this is ``fast_dev_run``, which shall cost next to nothing and write nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))


def few_cells(players: PlayersT, trainer: L.Trainer) -> PlayersT | GridPlayers:
    """The players; in ``fast_dev_run``, of a grid at most 2 × 2 cells."""
    if not (is_fast(trainer) and isinstance(players, GridPlayers)):
        return players
    return GridPlayers(min(2, players.rows), min(2, players.cols))


def check_alone(trainer: Any, callback: L.Callback, keys: str, argument: str) -> None:
    """Refuse two callbacks that log the same, as their attribute ``keys`` says (InputError)."""
    if sum(getattr(c, keys, ...) == getattr(callback, keys) for c in trainer.callbacks) > 1:
        got = f"two {type(callback).__name__} that log the same keys"
        raise InputError("callbacks", got, f"another {argument}= for each")
