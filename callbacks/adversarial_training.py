"""Adversarial training for any LightningModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchattacks.attack import Attack

from interaction_train.attacks import TransferAttack
from interaction_train.attacks.jobs import Targets, check_factory, make_attack
from interaction_train.attacks.run import AttackFactory, craft
from interaction_train.callbacks.adapter import Adapter, Keys, Model, Normalization, with_inputs
from interaction_train.callbacks.step_wrapper import Step, StepCallback
from interaction_train.errors import InputError, at_least, in_range
from interaction_train.sampling.random import Draws, content_hash
from interaction_train.training.module import progress


class AdversarialTraining(StepCallback):
    """Replaces training images by adversarial versions, crafted on the network as it is.

    ``training_step`` is wrapped while ``fit`` runs and gets the same batch with other inputs. The
    attack runs on the bare network in eval mode, without a trace. With the share 1 and PGD this is
    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018).

    What is random depends on the samples, the seed and the step alone, so a resumed run sees the
    same perturbations. Put it after an ``InteractionRegularizer`` in the list of callbacks, so that
    its losses take the adversarial images too.

    Args:
        attack: makes the attack on the network.
        share: the part of the samples that is attacked, each by a draw of its own; in (0, 1].
        warmup_epochs: epochs at the start that train on clean images.
        phases: epoch → another attack from that epoch on, or null for clean images.
        seed: seed of the draws.
        model: where the network is (:func:`~interaction_train.callbacks.adapter.find_model`).
        batch: two indices or keys, of inputs and labels in a batch.
        normalization: ``mean`` and ``std`` per channel of the inputs; attacks work on pixels.
        targets: what the attack aims at, ``random``, ``least_likely`` or the target of every class
            by its number; null: as it is made.

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
        model: Model = None,
        batch: Keys = (0, 1),
        normalization: Normalization | None = None,
        targets: Targets | None = None,
    ) -> None:
        in_range("share", share, 0, 1, above=True)
        at_least("warmup_epochs", warmup_epochs, 0)
        phases = phases or {}
        for factory in (attack, *(f for f in phases.values() if f is not None)):
            check_factory("attack", factory)
        if phases and min(phases) <= warmup_epochs:
            raise InputError("phases", f"epoch {min(phases)}", f"later than {warmup_epochs}")
        if callable(batch):
            raise InputError("batch", batch, "two indices or keys, of inputs and labels")
        self.phases: Mapping[int, AttackFactory | None] = {0: None, warmup_epochs: attack, **phases}
        self.share, self.seed, self.batch, self.targets = share, seed, batch, targets
        self.adapter = Adapter(model, batch, normalization)
        self._attack: tuple[int, Attack | None] | None = None  # with the epoch that it began in

    def around(self, trainer: Any, pl_module: L.LightningModule, step: Step, batch: Any) -> Any:
        return step(self.attacked(trainer, pl_module, batch))

    def detach(self, pl_module: L.LightningModule) -> None:
        super().detach(pl_module)
        self._attack = None

    def attacked(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> Any:
        """The batch with the adversarial inputs of this epoch's attack."""
        x, y = self.adapter.read(batch)
        attack = self._current(trainer.current_epoch, pl_module, x)
        if attack is None:
            return batch
        step, _ = progress(trainer)
        seed = self.seed + (step << 32)
        if isinstance(attack, TransferAttack):
            attack.seed = seed  # else an image would have the same random start in every epoch
        chosen = torch.arange(len(x), device=x.device)
        if self.share < 1:
            draws = Draws(content_hash(x), self.seed, "adversarial training", step)
            chosen = chosen[(draws.uniform("share", 1) < self.share).flatten()]
            if not len(chosen):
                return batch
        crafted = craft(attack, self.adapter.pixels(x[chosen]), y[chosen], seed=seed)
        moved = x.index_copy(0, chosen, self.adapter.inputs(crafted))
        return with_inputs(batch, self.batch[0], moved)

    def _current(self, epoch: int, pl_module: L.LightningModule, x: Tensor) -> Attack | None:
        begun = max(start for start in self.phases if start <= epoch)
        if self._attack is None or self._attack[0] != begun:
            factory, attack = self.phases[begun], None
            if factory is not None:
                network = self.adapter.network(pl_module, x)
                attack = make_attack(factory, network, targets=self.targets)
            self._attack = begun, attack
            images = "clean images" if attack is None else f"{self.share:.0%} {attack}"
            rank_zero_info(f"Adversarial training from epoch {begun}: {images}")
        return self._attack[1]
