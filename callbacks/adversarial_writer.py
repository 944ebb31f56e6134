"""Puts crafted adversarial examples on disk, and goes on with a job that was stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from rich.console import Console
from torch import Tensor

from interaction_train.attacks.sets.crafter import AdversarialCrafter
from interaction_train.attacks.sets.shards import (
    begin_set,
    can_go_on,
    check_stored,
    counts_table,
    describe_attack,
    describe_data,
    describe_network,
    finish_set,
    shard_path,
    write_batches,
)
from interaction_train.callbacks.samples import first_loader, is_fast
from interaction_train.errors import InputError, at_least


class AdversarialWriter(BasePredictionWriter):
    """Writes what an :class:`AdversarialCrafter` makes, in shards.

    The format is that of :mod:`interaction_train.attacks.sets.shards`. Process r of W writes
    the shards r, r + W, r + 2W and so on, all into one folder (of a shared disk, on several
    machines). At the end a table of counts is printed; ``fast_dev_run`` writes nothing.

    Started again on the folder of a job that was stopped, the same job (attack and its parameters,
    seed, weights, data, batches, number of processes) keeps the shards that are there and ends with
    the files of an uninterrupted one.

    Args:
        folder: where to; a relative path lies in the trainer's ``default_root_dir`` (``runs`` on
            the command line).
        png: whether to write each adversarial image as ``png/<index>.png`` too.
        batches_per_shard: batches of one process that make a shard.
        overwrite: replace another job's set in the folder instead of raising.

    Raises:
        InputError: an argument out of its range, a module that does not craft, a predict loader
            whose order is not known, or a folder that holds something else. Nothing in the folder
            is touched then.
    """

    def __init__(
        self,
        folder: str | Path,
        png: bool = False,
        batches_per_shard: int = 1,
        overwrite: bool = False,
    ) -> None:
        super().__init__("batch")
        at_least("batches_per_shard", batches_per_shard, 1)
        self.folder, self.png = Path(folder), png
        self.batches_per_shard, self.overwrite = batches_per_shard, overwrite

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, AdversarialCrafter):
            got = type(pl_module).__name__
            raise InputError("AdversarialWriter", got, "an AdversarialCrafter")
        if self.png and pl_module.pixels != "uint8":
            raise InputError("png", True, "false, or pixels: uint8")
        if is_fast(trainer):
            return
        self._started = time.monotonic()
        self._pending: list[dict[str, Tensor]] = []
        folder, job = self._folder(trainer), self._job(trainer, pl_module)
        # Checked on every process, so that all of them stop or none.
        goes_on = can_go_on(folder, job, self.overwrite)
        trainer.strategy.barrier("AdversarialWriter: checked")
        if trainer.is_global_zero and not goes_on:
            begin_set(folder, job)
        trainer.strategy.barrier("AdversarialWriter: begun")
        batches = range(int(trainer.num_predict_batches[0]))
        pl_module.on_disk = {b for b in batches if self._shard(trainer, b).is_file()}

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: dict[str, Tensor],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if is_fast(trainer):
            return
        if batch_indices is None or len(batch_indices) != len(batch[1]):
            got = "batches in an unknown order"
            raise InputError("predict_dataloader", got, "a DataLoader with a sampler")
        indices = torch.tensor(batch_indices)
        if not prediction:
            check_stored(self._shard(trainer, batch_idx), indices, batch[0])
            return
        self._pending.append({**prediction, "indices": indices})
        last = batch_idx + 1 == trainer.num_predict_batches[0]
        if last or (batch_idx + 1) % self.batches_per_shard == 0:
            pending, self._pending = self._pending, []
            write_batches(self._shard(trainer, batch_idx), pending, self.png)

    # Not at the end of the loop: the table comes below the progress bar.
    def teardown(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if stage != "predict" or is_fast(trainer):
            return
        pl_module.on_disk = ()
        trainer.strategy.barrier("AdversarialWriter: written")
        if trainer.is_global_zero:
            folder, device = self._folder(trainer), trainer.strategy.root_device
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
            counts = finish_set(folder, round(time.monotonic() - self._started, 3), name)
            Console().print(counts_table(folder, counts))

    def _folder(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.folder

    def _shard(self, trainer: L.Trainer, batch_idx: int) -> Path:
        number = batch_idx // self.batches_per_shard * trainer.world_size + trainer.global_rank
        return shard_path(self._folder(trainer), number)

    def _job(self, trainer: L.Trainer, crafter: AdversarialCrafter) -> dict[str, Any]:
        loader = first_loader(trainer.predict_dataloaders)  # Lightning refuses several
        data = getattr(trainer, "datamodule", None)
        eps, norm = crafter.bound
        return {
            "attack": describe_attack(crafter.attack),
            "surrogate": describe_network(crafter.model),
            "targets": crafter.targets,
            "seed": crafter.seed,
            "eps": eps,
            "norm": norm,
            "pixels": crafter.pixels,
            "data": {
                "class": type(loader.dataset if data is None else data).__name__,
                "split": getattr(data, "predict_split", None),
                **describe_data(loader.dataset),
            },
            "batch_size": getattr(loader.batch_sampler, "batch_size", None),
            "limit_batches": trainer.limit_predict_batches,
            "batches_per_shard": self.batches_per_shard,
            "processes": trainer.world_size,
            "png": self.png,
        }
