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
from rich.table import Table
from torch import Tensor

from interaction_train.attacks.proportion import Proportion
from interaction_train.attacks.sets.crafter import AdversarialCrafter
from interaction_train.attacks.sets.manifest import (
    describe_attack,
    describe_data,
    describe_network,
    first_difference,
    versions,
)
from interaction_train.attacks.sets.rounding import to_floats
from interaction_train.attacks.sets.shards import (
    Counts,
    count,
    joined,
    read_manifest,
    read_shard,
    remove_set,
    shard_path,
    write_manifest,
    write_pngs,
    write_shard,
)
from interaction_train.errors import InputError


class AdversarialWriter(BasePredictionWriter):
    """Writes what an :class:`~interaction_train.attacks.AdversarialCrafter` makes, in shards.

    The format is that of :mod:`interaction_train.attacks.sets.shards`. Process r of W writes
    the shards r, r + W, r + 2W and so on, all into one folder (of a shared disk, on several
    machines). At the end the first process counts what is there and prints a table.

    Started again on the folder of a job that was stopped, the same job (attack and its parameters,
    seed, weights, data, batches, number of processes) keeps the shards that are there, crafts the
    others, and ends with the files that an uninterrupted one ends with.

    ``fast_dev_run`` writes nothing.

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
        if batches_per_shard < 1:
            raise InputError("batches_per_shard", batches_per_shard, "at least 1")
        self.folder, self.png = Path(folder), png
        self.batches_per_shard, self.overwrite = batches_per_shard, overwrite
        self._manifest: dict[str, Any] = {}
        self._pending: list[dict[str, Tensor]] = []
        self._shown: tuple[Path, Counts] | None = None
        self._started = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            crafter = _crafter(pl_module)
            if self.png and crafter.pixels != "uint8":
                raise InputError("png", True, "false, or pixels: uint8")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if _only_tries(trainer):
            return
        crafter = _crafter(pl_module)
        self._started, self._pending = time.monotonic(), []
        folder = self._folder(trainer)
        job = self._job(trainer, crafter)
        manifest = self._checked(folder, job)  # on every process, so that all of them stop or none
        trainer.strategy.barrier("AdversarialWriter: checked")
        if trainer.is_global_zero and manifest is None:
            remove_set(folder)
            new = {"finished": False, "job": job, "counts": None, "seconds": None, "device": None}
            write_manifest(folder, {**new, "versions": versions()})
        trainer.strategy.barrier("AdversarialWriter: begun")
        self._manifest = read_manifest(folder) or {}
        batches = range(int(trainer.num_predict_batches[0]))
        crafter.on_disk = {b for b in batches if self._shard(trainer, b).is_file()}

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
        if _only_tries(trainer):
            return
        if batch_indices is None or len(batch_indices) != len(batch[1]):
            raise InputError(
                "predict_dataloader", "batches in an unknown order", "a DataLoader with a sampler"
            )
        indices = torch.tensor(batch_indices)
        if not prediction:
            self._check_on_disk(self._shard(trainer, batch_idx), indices, batch)
            return
        self._pending.append({**prediction, "indices": indices})
        last = batch_idx + 1 == trainer.num_predict_batches[0]
        if last or (batch_idx + 1) % self.batches_per_shard == 0:
            self._flush(self._shard(trainer, batch_idx))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if _only_tries(trainer):
            return
        _crafter(pl_module).on_disk = ()
        trainer.strategy.barrier("AdversarialWriter: written")
        if not trainer.is_global_zero:
            return
        folder = self._folder(trainer)
        counts = count(folder)
        self._shown = folder, counts
        if not self._manifest["finished"]:
            self._manifest |= {
                "finished": True,
                "counts": counts.to_json(),
                "seconds": round(time.monotonic() - self._started, 3),
                "device": _device(pl_module.device),
            }
            write_manifest(folder, self._manifest)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Shown here, so that it comes below the progress bar.
        if stage == "predict" and self._shown is not None:
            shown, self._shown = self._shown, None
            Console().print(_table(*shown))

    def _folder(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.folder

    def _shard(self, trainer: L.Trainer, batch_idx: int) -> Path:
        number = batch_idx // self.batches_per_shard * trainer.world_size + trainer.global_rank
        return shard_path(self._folder(trainer), number)

    def _job(self, trainer: L.Trainer, crafter: AdversarialCrafter) -> dict[str, Any]:
        loader: Any = trainer.predict_dataloaders
        if isinstance(loader, list):  # of one: Lightning refuses several
            (loader,) = loader
        data = trainer.datamodule if hasattr(trainer, "datamodule") else None
        return {
            "attack": describe_attack(crafter.attack),
            "surrogate": describe_network(crafter.model),
            "seed": crafter.seed,
            "eps": crafter.eps,
            "norm": None if crafter.eps is None else crafter.norm,
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

    def _checked(self, folder: Path, job: dict[str, Any]) -> dict[str, Any] | None:
        """The folder's manifest if it is this job's; None where a new set can begin."""
        manifest = read_manifest(folder)
        if manifest is None:
            found = [path.name for path in folder.glob("*") if not path.name.endswith(".tmp")]
            if found:
                got = f"{str(folder)!r} with {sorted(found)[0]} and without a manifest"
                raise InputError("folder", got, "a new or empty folder, or one of this job")
            return None
        difference = first_difference(manifest["job"], job)
        if difference is None:
            return manifest
        if self.overwrite:
            return None
        place, old, new = difference
        raise InputError(
            "folder",
            f"{str(folder)!r}, crafted with {place} = {old}",
            f"{place} = {new}; or another folder, or overwrite: true",
        )

    def _check_on_disk(self, path: Path, indices: Tensor, batch: Any) -> None:
        shard = read_shard(path)
        place = torch.isin(shard["indices"], indices)
        same = torch.equal(shard["indices"][place], indices)
        if not same or not torch.equal(to_floats(shard["clean"][place]), batch[0].float().cpu()):
            raise InputError("folder", f"{str(path)!r} with other images", "those of the data set")

    def _flush(self, path: Path) -> None:
        parts, self._pending = self._pending, []
        shard = {name: joined([part[name] for part in parts]) for name in parts[0]}
        if self.png:  # before the shard, so that a whole shard has all its pictures
            write_pngs(path.parent, shard["adversarial"], shard["indices"])
        write_shard(path, shard)


def _crafter(module: L.LightningModule) -> AdversarialCrafter:
    if not isinstance(module, AdversarialCrafter):
        raise InputError("AdversarialWriter", type(module).__name__, "an AdversarialCrafter")
    return module


def _only_tries(trainer: L.Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _table(folder: Path, counts: Counts) -> Table:
    clean = Proportion(counts.correct, counts.samples)
    fooled = Proportion(counts.successes, counts.correct)
    low, high = fooled.interval
    table = Table(title="Adversarial examples", show_header=False)
    table.add_row("images", str(counts.samples))
    table.add_row("clean accuracy", f"{clean.rate:.4f}")
    table.add_row("white-box success", f"{fooled.rate:.4f} (95 % interval {low:.4f} to {high:.4f})")
    mean, most = (
        f"{value:.4f} ({255 * value:.2f}/255)" for value in (counts.mean_linf, counts.max_linf)
    )
    table.add_row("‖δ‖∞, mean", mean)
    table.add_row("‖δ‖∞, maximum", most)
    table.add_row("folder", str(folder))
    table.caption = "success among the images that the surrogate classifies correctly"
    return table
