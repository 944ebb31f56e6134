"""The job of ``interaction-train tune-attack``: search on some images, confirm on others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks.jobs import Targets, check_targets, checked_batch
from interaction_train.attacks.norms import NORMS, Norm
from interaction_train.attacks.transfer.module import TransferEvaluation
from interaction_train.attacks.transfer.rates import TransferCell
from interaction_train.attacks.tuning.score import Bench
from interaction_train.attacks.tuning.search import Search, import_optuna, title
from interaction_train.attacks.tuning.space import Space, read_attack, with_budget
from interaction_train.errors import InputError, one_of, whole
from interaction_train.models import weights_tag
from interaction_train.sampling.random import Draws, sample_hash

_MOMENTUM: dict[str, Any] = {
    "class_path": "TransferAttack",
    "init_args": {"parts": [{"class_path": "Momentum"}]},
}


def tune_attack(
    networks: dict[str, nn.Module],
    data: L.LightningDataModule,
    passes: int = 40,
    eps: float = 8 / 255,
    norm: Norm = "Linf",
    sources: list[str] | None = None,
    targets: list[str] | None = None,
    target_classes: Targets | None = None,
    space: dict[str, Any] | None = None,
    trials: int = 100,
    images: int = 200,
    confirm: int = 500,
    seed: int = 0,
    folder: str | Path = "runs/tune_attack",
    accelerator: str = "auto",
) -> list[TransferCell]:
    """Search the parts and settings of a TransferAttack that fools the targets most.

    Every attack takes as many steps as the passes allow. Tuned on images of the validation loader;
    the winner, beside momentum alone (MI), is confirmed on other ones, of the test loader. Called
    again, the job goes on. The folder gets ``winner.yaml``, which names the attack wherever a
    config or an option does (``attack: winner.yaml``), ``trials.csv``, ``tuning.json``, and
    ``confirmed`` with the files of
    :class:`~interaction_train.attacks.transfer.module.TransferEvaluation`.

    Args:
        networks: name → network, values in [0, 1] → logits; all with the same classes.
        data: with a validation and a test loader of images ``(B, C, H, W)`` and labels ``(B,)``.
        passes: rows of an image that go through the source, forward and backward; each member of
            an :class:`~interaction_train.attacks.ensemble.Ensemble` counts.
        eps: bound on the perturbation.
        norm: that it is in, ``"Linf"`` or ``"L2"``.
        sources: names of the networks that are attacked; default: the first.
        targets: names of the networks that are to be fooled; default: those not attacked.
        target_classes: classes to aim at; default: none.
        space: what to choose from (:class:`~interaction_train.attacks.tuning.space.Space`).
        trials: number of attacks to try, those of earlier calls included.
        images: how many to tune on.
        confirm: how many to confirm on.
        seed: of the choice of images and attacks.
        folder: where the files go.
        accelerator: as the Trainer's.

    Returns:
        The cells of the confirmation.

    Raises:
        InputError: settings that do not fit, no optuna, or a folder of another search.
    """
    counts = {"passes": passes, "trials": trials, "images": images, "confirm": confirm}
    for argument, value in counts.items():
        whole(argument, value, 1)
    if not 0 < eps < float("inf"):
        raise InputError("eps", eps, "a positive number")
    one_of("norm", norm, NORMS)
    check_targets("target_classes", target_classes)
    import_optuna()  # now, not after the images were read
    chosen, folder = Space(space), Path(folder)
    baseline = with_budget(_MOMENTUM, eps, norm, passes, 1.0)
    sources = list(networks)[:1] if sources is None else sources
    targets = [name for name in networks if name not in sources] if targets is None else targets
    about: dict[str, Any] = {"networks": networks, "sources": sources, "targets": targets}
    evaluation: dict[str, Any] = {**about, "target_classes": target_classes, "seed": seed}
    TransferEvaluation(**evaluation, attacks={"MI": read_attack(baseline)})  # checks the names
    pairs = [(source, target) for source in sources for target in targets if source != target]
    if not pairs:
        raise InputError("targets", targets, f"networks other than {', '.join(sources)}")

    trainer = _trainer(folder, accelerator)
    tuned, batch = _sample(trainer, data, "validate", images, seed)
    bench_batches = [
        tuple(part.to(trainer.strategy.root_device) for part in some)
        for some in DataLoader(tuned, batch)
    ]
    moved = {name: network.to(trainer.strategy.root_device) for name, network in networks.items()}
    bench = Bench(moved, pairs, bench_batches, target_classes, seed)
    settings = {
        "passes": passes, "eps": eps, "norm": norm, "sources": sources, "targets": targets,
        "target_classes": target_classes, "space": chosen.described, "images": images, "seed": seed,
        "networks": {name: weights_tag(network) for name, network in networks.items()},
        "data": [f"{h & 0xFFFF_FFFF:08x}" for h in sample_hash(*tuned.tensors)[:4].tolist()],
    }  # fmt: skip
    search = Search(folder, chosen, settings, seed)
    winner = search.run(bench, trials, passes, eps, norm)
    _write_yaml(folder / "winner.yaml", winner, title(winner))

    other, _ = _sample(trainer, data, "test", confirm, seed, sample_hash(*tuned.tensors))
    attacks = {"winner": read_attack(winner), "MI": read_attack(baseline)}
    module = TransferEvaluation(
        **evaluation, attacks=attacks, folder=(folder / "confirmed").resolve()
    )
    trainer.test(module, DataLoader(other, batch), verbose=False)
    cells = [c for c in module.cells if c.attack == "winner" and (c.source, c.target) in pairs]
    said = [f"on {len(other)} other images, with 95 % Wilson intervals:"]
    for cell in cells:
        low, high = cell.success.interval
        rate = f"{100 * cell.success.rate:.1f} % ({100 * low:.0f}–{100 * high:.0f})"
        said.append(f"{cell.source} → {cell.target} {rate}")
    _write_yaml(folder / "winner.yaml", winner, title(winner), *said)
    confirmed = [cell.record() for cell in module.cells]
    document = {**settings, "winner": winner, "confirmed": confirmed, "trials": search.records()}
    (folder / "tuning.json").write_text(json.dumps(document, indent=2))
    rank_zero_info(f"the winner is in {folder / 'winner.yaml'}")
    return module.cells


class _Sample(L.LightningModule):
    """Keeps so many images of a loader, the same ones whatever their order."""

    def __init__(self, count: int, seed: int, without: Tensor | None) -> None:
        super().__init__()
        self.count, self.seed, self.without = count, seed, without
        self.kept: tuple[Tensor, ...] = ()
        self.batch_size = 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        found = tuple(part.cpu() for part in checked_batch(batch))
        self.batch_size = max(self.batch_size, len(found[0]))
        if self.without is not None:
            other = ~torch.isin(sample_hash(*found), self.without)
            found = tuple(part[other] for part in found)
        if self.kept:
            found = tuple(torch.cat(pair) for pair in zip(self.kept, found, strict=True))
        lots = Draws(sample_hash(*found), self.seed, "tune-attack").bits("images")
        first = lots.argsort(stable=True)[: self.count]
        self.kept = tuple(part[first] for part in found)

    test_step = validation_step


def _sample(
    trainer: L.Trainer,
    data: L.LightningDataModule,
    stage: Literal["validate", "test"],
    count: int,
    seed: int,
    without: Tensor | None = None,
) -> tuple[TensorDataset, int]:
    """Images of a stage's loader, without those of some hashes, and its batch size."""
    sample = _Sample(count, seed, without)
    getattr(trainer, stage)(sample, datamodule=data, verbose=False)
    if not sample.kept or not len(sample.kept[0]):
        raise InputError("data", f"no images to {stage}", "images other than those tuned on")
    return TensorDataset(*sample.kept), sample.batch_size


def _trainer(folder: Path, accelerator: str) -> L.Trainer:
    return L.Trainer(
        accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        inference_mode=False,
    )  # fmt: skip


def _write_yaml(path: Path, attack: dict[str, Any], *comments: str) -> None:
    text = yaml.safe_dump(attack, sort_keys=False)
    path.write_text("".join(f"# {line}\n" for line in comments) + text, encoding="utf-8")
