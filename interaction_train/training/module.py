"""The Lightning module: any classifier, with interaction losses injected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.classification import MulticlassAccuracy

from interaction_train.errors import (
    InputError,
    at_least,
    checked_logits,
    in_range,
    refuse_one_logit,
    refuse_probabilities,
)
from interaction_train.game.evaluation import unwrap
from interaction_train.game.layers import find_layer, record
from interaction_train.losses.base import checked_batch, hard, is_soft
from interaction_train.training import objective
from interaction_train.training.objective import WeightedTerm

_INJECTED = ["model", "losses", "optimizer", "lr_scheduler"]


class InteractionClassifier(L.LightningModule):
    """Trains a classifier with cross entropy plus weighted interaction losses.

    Logs ``train/loss``, ``train/loss/cross_entropy``, ``train/loss/<name>`` (past the warm-up),
    ``train/weight/<name>`` (where it changes in training), ``train/acc``, and ``val/loss``,
    ``val/acc``, ``test/loss``, ``test/acc``.

    Args:
        model: network, ``(B, ...)``, for images with values in [0, 1], → logits
            ``(B, num_classes)``. Modules of it with a method ``adapt_to`` are given the data module
            when a job starts.
        num_classes: number of classes.
        losses: name → loss term with its weight and warm-up; a bare term has weight 1.
        optimizer: parameters → optimizer; default: AdamW with a learning rate of 1e-3.
        lr_scheduler: optimizer → scheduler, stepped once an epoch.
        label_smoothing: of the cross entropy, in [0, 1].

    Labels are int64 ``(B,)``, or the classes' probabilities ``(B, num_classes)`` (mixup, CutMix),
    whose largest class counts for the accuracy. Checkpoints load with ``weights_only=True``; from
    one of the CLI ``InteractionClassifier.load_from_checkpoint(path)`` rebuilds everything, for one
    of plain Python pass ``model=`` (and the rest) again.

    Raises:
        InputError: arguments out of range, an unknown layer, or labels or logits that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int = 10,
        losses: dict[str, WeightedTerm] | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError("model", type(model).__name__, "a network, an nn.Module")
        at_least("num_classes", num_classes, 2)
        in_range("label_smoothing", label_smoothing, 0, 1)
        # From the CLI come plain configurations to keep. Objects, as plain Python gives them, would
        # make checkpoints that only an unsafe load can open.
        from_cli = _given_hyperparameters.get() is not None
        self.save_hyperparameters(ignore=[] if from_cli else _INJECTED)
        self.model, self.num_classes = model, num_classes
        self.losses = objective.weighted_terms(losses)
        self.optimizer_factory, self.scheduler_factory = optimizer, lr_scheduler
        self.label_smoothing = label_smoothing
        self._inspected = False
        for weighted in self.losses.values():
            for layer in weighted.term.layers:
                find_layer(model, layer)
        self.train_acc, self.val_acc, self.test_acc = (
            MulticlassAccuracy(num_classes, average="micro") for _ in range(3)
        )

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        found = getattr(data, "num_classes", None)
        if found is not None and found > self.num_classes:
            expected = f"at least {found}, the number of classes in the data"
            raise InputError("num_classes", self.num_classes, expected)
        if data is not None:
            for module in self.model.modules():
                if callable(adapt := getattr(module, "adapt_to", None)):
                    adapt(data)

    def on_fit_start(self) -> None:
        warn_of_schedule(self.losses, self.model, self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["interaction_losses"] = {k: w.state_dict() for k, w in self.losses.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("interaction_losses", {})
        for name, weighted in self.losses.items():
            weighted.load_state_dict(state.get(name, {}))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        step, epoch = progress(self.trainer)
        with record(self.model, objective.wanted_layers(self.losses, epoch)) as forward:
            forward.logits = logits = self._checked(self.model(x), x, y)
        cross_entropy = _cross_entropy(logits, y, self.label_smoothing)
        loss, logs = objective.add_terms(
            self.losses, cross_entropy, self.model, x, y, forward=forward, step=step, epoch=epoch
        )
        logs["loss/cross_entropy"] = cross_entropy.detach()
        self.train_acc(logits, hard(y))
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in logs.items()})
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_acc)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.model(batch[0])

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str, accuracy: Any) -> None:
        x, y = batch
        logits = self._checked(self.model(x), x, y)
        accuracy(logits, hard(y))
        self.log(f"{split}/loss", _cross_entropy(logits, y), sync_dist=True, prog_bar=True)
        self.log(f"{split}/acc", accuracy, prog_bar=True)

    def _checked(self, output: Any, x: Tensor, y: Tensor) -> Tensor:
        """The network's logits; inputs and labels are checked too, values once a run."""
        checked_batch(x, y)
        if not isinstance(output, Tensor):
            got = f"an output of {type(output).__name__}"
            raise InputError("model", got, "logits; wrap the network: logits_of(model)")
        logits = checked_logits(output, len(x))
        refuse_one_logit(logits)
        if logits.shape[1] != self.num_classes:
            wanted = f"{logits.shape[1]}, as the network has logits"
            raise InputError("num_classes", self.num_classes, wanted)
        if is_soft(y) and y.shape != logits.shape:
            raise InputError("y", f"shape {tuple(y.shape)}", f"probabilities {tuple(logits.shape)}")
        if not self._inspected:
            refuse_probabilities(logits)
            self._inspected = True
        return logits

    def configure_optimizers(self) -> Any:
        factory = self.optimizer_factory or partial(torch.optim.AdamW, lr=1e-3)
        optimizer = factory(self.parameters())
        if self.scheduler_factory is None:
            return optimizer
        scheduler = self.scheduler_factory(optimizer)
        monitor = {"monitor": scheduler.monitor} if hasattr(scheduler, "monitor") else {}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **monitor}}


def _cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    target = y.to(logits) if is_soft(y) else y
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)


def progress(trainer: L.Trainer) -> tuple[int, float]:
    """Micro-batches before this one, and epochs, with the fraction that is done if it is known."""
    loop = trainer.fit_loop
    done = loop.batch_idx / trainer.num_training_batches
    return loop.total_batch_idx, trainer.current_epoch + done


def warn_of_schedule(losses: Mapping[str, WeightedTerm], model: nn.Module, trainer: Any) -> None:
    """Warn of losses that start too early, with BatchNorm after their layer, too late, or never."""
    modules = list(unwrap(model).named_modules())

    def lags(layer: str | None) -> bool:
        first = next((k for k, (name, _) in enumerate(modules) if name == layer), 0)
        after = (m for name, m in modules[first:] if not name.startswith(f"{layer}."))
        return any(isinstance(m, _BatchNorm) for m in after)

    terms = {name: weighted.term for name, weighted in losses.items() if weighted.active(0)}
    if early := [name for name, term in terms.items() if lags(getattr(term, "layer", None))]:
        rank_zero_warn(
            f"losses {early} start in epoch 0 on a network with BatchNorm, whose running "
            "statistics lag at first and blow the terms up: give them warmup_epochs."
        )
    if trainer.fast_dev_run:  # which is short on purpose
        return
    if never := [name for name, weighted in losses.items() if weighted.weight == 0]:
        rank_zero_warn(f"losses {never} have a weight of 0 and take no part.")
    end = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
    if late := [name for name, w in losses.items() if w.weight and w.warmup_epochs >= end]:
        rank_zero_warn(
            f"losses {late} never start: their warmup_epochs are not below the run's {end} epochs."
        )
