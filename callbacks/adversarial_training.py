"""Adversarial training for any LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from torchattacks.attack import Attack

from interaction_train.attacks import TransferAttack
from interaction_train.callbacks.adapter import (
    FindModel,
    Keys,
    check_keys,
    find_batch,
    find_model,
    with_inputs,
)
from interaction_train.callbacks.crafting import AttackFactory, craft
from interaction_train.callbacks.step_wrapper import StepWrapper
from interaction_train.errors import InputError
from interaction_train.game.evaluation import unwrap
from interaction_train.sampling.random import Draws, content_hash
from interaction_train.training.module import progress


class AdversarialTraining(L.Callback):
    """Replaces training images by adversarial versions, crafted on the network as it is.

    ``training_step`` is wrapped in ``setup`` and put back in ``teardown``; it gets the same batch
    with other inputs, so that losses, logging, accumulation, DDP and mixed precision go on as
    before. The attack runs on the bare network in eval mode: BatchNorm statistics, gradients and
    the global random states do not notice it. Madry et al., "Towards Deep Learning Models Resistant
    to Adversarial Attacks" (2018), is the share 1 with a PGD attack.

    What is random depends on the samples, the seed and the step alone, so a resumed run sees the
    same perturbations; for attacks of this package it does not depend on the batch's size or on
    the number of processes either. (Attacks that draw from the global random states start from one
    made of the whole batch.)

    Put it after an ``InteractionRegularizer`` in the list of callbacks, so that its losses take the
    adversarial images too.

    Args:
        attack: makes the attack on the network.
        share: the part of the samples that is attacked, each by a draw of its own; in (0, 1].
        warmup_epochs: epochs at the start that train on clean images.
        phases: epoch → another attack from that epoch on, or null for clean images.
        seed: seed of the draws.
        model: where the network is (:func:`~interaction_train.callbacks.adapter.find_model`).
        batch: two indices or keys, of inputs and labels in a batch.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(
        self,
        attack: AttackFactory,
        share: float = 1.0,
        warmup_epochs: int = 0,
        phases: dict[int, AttackFactory | None] | None = None,
        seed: int = 0,
        model: str | FindModel | None = None,
        batch: Keys = (0, 1),
    ) -> None:
        if not 0 < share <= 1:
            raise InputError("share", share, "a number above 0 and up to 1")
        if warmup_epochs < 0:
            raise InputError("warmup_epochs", warmup_epochs, "at least 0")
        for epoch in phases or {}:
            if epoch <= warmup_epochs:
                raise InputError("phases", f"epoch {epoch}", f"later than {warmup_epochs}")
        if callable(batch):
            raise InputError("batch", batch, "two indices or keys, of inputs and labels")
        check_keys(batch)
        self.phases: Mapping[int, AttackFactory | None] = {
            0: None,
            warmup_epochs: attack,
            **dict(sorted((phases or {}).items())),
        }
        self.share, self.seed, self.model, self.batch = share, seed, model, batch
        self._layer: StepWrapper | None = None
        self._attack: tuple[int, Attack | None] | None = None  # with the epoch that it began in

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._detach()

        def around(step: Callable[[Any], Any], batch: Any) -> Any:
            return step(self.attacked(trainer, pl_module, batch))

        self._layer = StepWrapper(pl_module, around)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._detach()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._detach()  # Lightning calls no teardown then

    def attacked(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> Any:
        """The batch with the adversarial inputs of this epoch's attack."""
        attack = self._current(trainer.current_epoch, pl_module)
        if attack is None:
            return batch
        x, y = find_batch(batch, self.batch)
        step, _ = progress(trainer)
        seed = self.seed + (step << 32)
        if isinstance(attack, TransferAttack):
            attack.seed = seed  # else an image would have the same random start in every epoch
        if self.share == 1:
            crafted = craft(attack, x, y, seed=seed)
        else:
            draws = Draws(content_hash(x), self.seed, "adversarial training", step)
            chosen = (draws.uniform("share", 1) < self.share).flatten().nonzero().flatten()
            if not len(chosen):
                return batch
            crafted = x.index_copy(0, chosen, craft(attack, x[chosen], y[chosen], seed=seed))
        return with_inputs(batch, self.batch[0], crafted)

    def _current(self, epoch: int, pl_module: L.LightningModule) -> Attack | None:
        begun = max(start for start in self.phases if start <= epoch)
        if self._attack is None or self._attack[0] != begun:
            factory = self.phases[begun]
            network = unwrap(find_model(pl_module, self.model))
            attack = None if factory is None else factory(network)
            self._attack = begun, attack
            images = "clean images" if attack is None else f"{self.share:.0%} {attack}"
            rank_zero_info(f"Adversarial training from epoch {begun}: {images}")
        return self._attack[1]

    def _detach(self) -> None:
        self._attack = None
        if self._layer is not None:
            self._layer.detach()
            self._layer = None
