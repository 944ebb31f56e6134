"""Cases that must come out the same in one process and in two.

``python -m tests.callbacks.processes FILE`` runs them as one process of a group and saves results.
"""

import os
import sys
from typing import Any

import lightning as L
import torch
import torchattacks
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from interaction_train.attacks import TransferAttack
from interaction_train.callbacks import (
    AdversarialRobustness,
    AdversarialTraining,
    AttributionReport,
    ConceptMonitor,
    DisentanglementMonitor,
    GeneralizationGap,
    RecoveryMonitor,
    SpectrumMonitor,
)
from interaction_train.sampling.pairs import RandomPairs
from interaction_train.training.module import InteractionClassifier
from tests.callbacks.plain import Plain, both, data, fit, weights
from tests.metrics.watch import RATIOS, images, metric


def classifier() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def attack(net: nn.Module) -> TransferAttack:
    return TransferAttack(net, 0.1, 0.05, 3, random_start=True)


def foreign(net: nn.Module) -> torchattacks.PGD:
    """Draws from the global random state, for all samples of a batch."""
    return torchattacks.PGD(net, eps=0.1, alpha=0.05, steps=3)


def monitors(**changes: Any) -> list[L.Callback]:
    common = {
        "rows": 4,
        "cols": 4,
        "pairs": RandomPairs(1, 5),
        "contexts": 6,
        "baseline": 0.3,
        **changes,
    }
    orders = {"ratios": RATIOS, "only_correct": False, "n_samples": 19, "attack": foreign}
    return [
        SpectrumMonitor(**common, **orders, groups="correct"),
        DisentanglementMonitor(**common, **orders),
        GeneralizationGap(11, strength_samples=5, **common),
        AdversarialRobustness(
            {"pgd": foreign, "own": attack},
            [0.02, 0.05, 0.1],
            n_samples=19,
            batch_size=4,
            **changes,
        ),
        ConceptMonitor(2, 2, n_samples=5, count=3, baseline=0.3, **changes),
        RecoveryMonitor(
            4, 4, n_samples=5, budget=32, count=3, rho="loo", shown=0, baseline=0.3, **changes
        ),
    ]


class Watched(InteractionClassifier):
    """Has a metric of its own, over every validation sample, padded repeats included."""

    def __init__(self) -> None:
        super().__init__(classifier())
        self.metric, self.found = metric(baseline=0.3, groups="label"), {}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.metric.update(self.model, *batch)

    def on_validation_epoch_end(self) -> None:
        self.found = self.metric.compute()
        self.metric.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)  # padding changes a training step


def monitored(world: int, rank: int, **arguments: Any) -> dict[str, Any]:
    """What all monitors log in ``fit``, on 19 validation and 13 training samples."""
    net = classifier()

    def loader(count: int) -> DataLoader:
        x, _ = images(count)
        y = net(x).argmax(-1)
        y[::4] = (y[::4] + 1) % 10
        part = TensorDataset(x, y)
        sampler = DistributedSampler(part, world, rank, shuffle=False)
        return DataLoader(part, batch_size=4, sampler=sampler)

    callbacks, module = monitors(), Watched()
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, callbacks=callbacks, **arguments,
    )  # fmt: skip
    trainer.fit(module, loader(13), loader(19))
    assert trainer.num_val_batches[0] == (3 if world == 2 else 5)
    found = {f"metric/{key}": value.double() for key, value in module.found.items()}
    for callback in callbacks:
        for key, value in callback.history[-1]["values"].items():
            found[key] = torch.tensor(value, dtype=torch.float64)
    return found


class Kept(AttributionReport):
    """Keeps what it measured."""

    def measure(self, trainer: L.Trainer, loader: Any) -> dict[str, Any]:
        self.kept = super().measure(trainer, loader)
        return self.kept


def reported(**arguments: Any) -> dict[str, Any]:
    """What this process measures of attributions after ``test``."""
    methods = ["occlusion", "deeplift_rescale", "grad_cam"]  # no layer here has positions
    report = Kept(2, 2, samples=4, methods=methods, baseline=0.0)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, fast_dev_run=2, callbacks=[report], **arguments,
    )  # fmt: skip
    module = InteractionClassifier(classifier())
    trainer.test(module, DataLoader(TensorDataset(*images(8)), batch_size=2), verbose=False)
    return report.kept


def cases(batch_size: int, world: int = 1, rank: int = 0, **arguments: Any) -> dict[str, Any]:
    result = both(batch_size, **arguments)
    for name, share in (("adversarial", 1.0), ("adversarial share", 0.5)):
        training = AdversarialTraining(attack, share)
        result[name] = weights(fit(Plain(), training, batch_size=batch_size, **arguments))
    arguments.pop("sampler", None)
    result["report"] = reported(**arguments)
    return result | monitored(world, rank, **arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = int(os.environ["LOCAL_RANK"])
    mine = DistributedSampler(data(), 2, here, shuffle=False)
    ddp = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    torch.save(cases(4, 2, here, sampler=mine, **ddp), sys.argv[1])
