"""Crafting adversarial examples as a Lightning job: ``interaction-train predict``."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal, cast

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.jobs import (
    Targets,
    check_factory,
    check_targets,
    checked_batch,
    class_logits,
    make_attack,
    refuse_normalization,
)
from interaction_train.attacks.norms import NORMS, Norm, exact_bytes, round_to_bytes, to_floats
from interaction_train.attacks.run import AttackFactory, norm_of, run_attack
from interaction_train.errors import InputError, checked_classes, one_of

Pixels = Literal["uint8", "float32"]


class AdversarialCrafter(L.LightningModule):
    """Crafts an adversarial example for every image of the predict loader.

    Each batch ``(x, y)`` gives a dictionary of tensors on the CPU, named as in
    :mod:`interaction_train.attacks.sets.shards`, which
    :class:`~interaction_train.callbacks.AdversarialWriter` puts on disk. The progress bar shows the
    share that the attack fooled so far, among the images of this process that the surrogate
    classifies correctly. Attacks run as in :func:`~interaction_train.attacks.run.run_attack`.

    Args:
        model: the surrogate, ``(B, C, H, W)`` in [0, 1] → logits ``(B, classes)``.
        attack: network → attack; in YAML a class path without its ``model``.
        seed: seed of targets, and of attacks that draw from the global random states.
        pixels: ``"uint8"`` rounds to 8 bits, and the attack's bound holds exactly; ``"float32"``
            keeps what the attack returned. Success is judged on what is kept.
        targets: classes to aim at (:data:`~interaction_train.attacks.jobs.Targets`); default: as
            the attack is made, mostly at none.

    Raises:
        InputError: an unknown choice, what makes no attack, or batches or results that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        attack: AttackFactory,
        seed: int = 0,
        pixels: Pixels = "uint8",
        targets: Targets | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            wanted = "one torch.nn.Module (of several, an Ensemble)"
            raise InputError("model", type(model).__name__, wanted)
        one_of("pixels", pixels, ("uint8", "float32"))
        check_targets("targets", targets)
        check_factory("attack", attack)
        self.model, self._factory = model, attack
        self.seed, self.pixels, self.targets = seed, pixels, targets
        self.on_disk: Container[int] = ()
        """Numbers of batches that need no crafting; their step gives an empty dictionary."""
        self._attack: Attack | None = None
        self._correct = self._successes = 0

    @property
    def attack(self) -> Attack:
        """The attack on the surrogate, made when it is asked for first."""
        if self._attack is None:
            self._attack = make_attack(self._factory, self.model, None, self.targets, self.seed)
            refuse_normalization(self._attack)
        return self._attack

    @property
    def bound(self) -> tuple[float | None, Norm | None]:
        """The attack's bound and the norm that it is in; None where it has none."""
        eps, norm = getattr(self.attack, "eps", None), norm_of(self.attack)
        if eps is None:
            return None, None
        if norm not in NORMS:
            raise InputError("attack", f"one bounded in {norm}", "one bounded in 'Linf' or 'L2'")
        return float(eps), cast(Norm, norm)

    def setup(self, stage: str) -> None:
        self._attack = None  # an earlier run's may be on another device

    def on_predict_start(self) -> None:
        self._correct = self._successes = 0
        self.attack.set_device(self.device)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        if batch_idx in self.on_disk:
            return {}
        x, y = checked_batch(batch)
        if x.dim() != 4:
            raise InputError("images", f"shape {tuple(x.shape)}", "(B, C, H, W)")
        logits = class_logits(self.model, x, "model")
        checked_classes(y, logits.shape[1], "model")
        adversarial, targets = run_attack(self.attack, x, y, seed=self.seed)
        adversarial = adversarial.clamp(0, 1)
        if self.pixels == "uint8":
            eps, norm = self.bound
            kept = round_to_bytes(adversarial, x, eps, norm or "Linf")
        else:
            kept = adversarial.float().cpu()
        correct = logits.argmax(1) == y
        fooled = class_logits(self.model, to_floats(kept).to(x), "model").argmax(1)
        success = fooled != y if targets is None else fooled == targets
        self._correct += int(correct.sum())
        self._successes += int((correct & success).sum())
        shown = x.float().cpu()
        clean = exact_bytes(shown)
        crafted = {"adversarial": kept, "clean": shown if clean is None else clean, "labels": y}
        crafted |= {"correct": correct, "success": success}
        crafted |= {} if targets is None else {"targets": targets}
        return {name: value.cpu() for name, value in crafted.items()}

    def on_predict_batch_end(self, *_: Any) -> None:
        # Lightning's bars show no metrics in predict, so the description says it.
        bar = self.trainer.progress_bar_callback
        text = "Crafting"
        if self._correct:
            text += f", white-box success {self._successes / self._correct:.1%}"
        if isinstance(bar, TQDMProgressBar):
            bar.predict_progress_bar.set_description(text)
        elif isinstance(bar, RichProgressBar) and bar.progress is not None:
            assert bar.predict_progress_bar_id is not None  # it was made at this batch's start
            bar.progress.update(bar.predict_progress_bar_id, description=text)
