"""One perturbation for all images: ``interaction-train fit --config universal_digits.yaml``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from safetensors.torch import save_file
from torch import Tensor, nn

from interaction_train.attacks.attack import TransferAttack
from interaction_train.attacks.jobs import (
    check_factory,
    checked_batch,
    class_logits,
    make_attack,
    refuse_normalization,
)
from interaction_train.attacks.norms import random_start, steepest, within
from interaction_train.attacks.objectives import Objective
from interaction_train.attacks.parts.base import Memory, Part
from interaction_train.attacks.problem import Problem
from interaction_train.attacks.run import AttackFactory, float32_outside
from interaction_train.attacks.transfer.rates import Outcome, Proportion, TransferRate
from interaction_train.errors import InputError, checked_classes
from interaction_train.game.evaluation import evaluation_mode
from interaction_train.sampling.random import Draws, content_hash, sample_hash
from interaction_train.tracking.folders import run_folder

_MEMORY, _NAMES = "universal_memory", "universal_parts"  # in a checkpoint
_OWN = "model"  # the surrogate's name among the networks that are measured


class UniversalPerturbation(L.LightningModule):
    """One perturbation δ that fools a network on most images of a data set.

    Moosavi-Dezfooli et al., "Universal adversarial perturbations", CVPR 2017, by the ascent of
    Shafahi et al., "Universal adversarial training", AAAI 2020: each batch of ``fit`` takes a
    projected step along its mean gradient. The attack gives objective, parts, norm, eps, alpha,
    seed and chunk size; its number of steps is that of the training. What parts keep from step to
    step is meaned over the batch, too.

    ``validate`` and ``test`` log ``fooling_rate``, the share of images whose predicted class
    changes, and ``success``, the same of those classified correctly when clean; with a ``target``,
    both are the share of images of other classes that are taken for it. After ``fit``,
    ``universal.safetensors`` in the run's folder holds ``delta``.

    Args:
        model: the surrogate, ``(B, C, H, W)`` in [0, 1] → logits ``(B, classes)``.
        attack: network → :class:`~interaction_train.attacks.attack.TransferAttack`.
        shape: of the images, ``[C, H, W]``.
        target: the class aimed at; default: none.
        others: name → network that δ is measured on as well, as ``fooling_rate/<name>``.

    Raises:
        InputError: another attack, parts that have no universal form, or batches that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        attack: AttackFactory,
        shape: Sequence[int],
        target: int | None = None,
        others: dict[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if not isinstance(model, nn.Module):
            raise InputError("model", type(model).__name__, "one torch.nn.Module")
        if len(shape) != 3 or min(shape) < 1:
            raise InputError("shape", list(shape), "the images' [C, H, W]")
        if target is not None and target < 0:
            raise InputError("target", target, "a class from 0 on")
        check_factory("attack", attack)
        self.model, self.others, self.target = model, nn.ModuleDict(others or {}), target
        if _OWN in self.others:
            raise InputError("others", repr(_OWN), "another name, which is not the surrogate's")
        made = make_attack(attack, model)
        if not isinstance(made, TransferAttack):
            raise InputError("attack", type(made).__name__, "a TransferAttack")
        refuse_normalization(made)
        for part in made.parts:
            if type(part).settle is not Part.settle:
                expected = "parts that leave the images where a step leads"
                raise InputError("parts", type(part).__name__, expected)
        if made.targeted and target is None:
            got = f"none, for {type(made).__name__}, which aims at classes"
            raise InputError("target", got, "the class aimed at")
        if target is not None:
            made.set_mode_targeted_by_label(quiet=True)
        self.attack = made
        delta = torch.zeros(1, *shape)
        if made.random_start:
            draws = Draws(torch.zeros(1, dtype=torch.int64), made.seed, "universal")
            delta = random_start(delta + 0.5, made.norm, made.eps, draws) - 0.5
        self.delta = nn.Parameter(delta[0])
        self.rate = TransferRate(1 + len(self.others))
        self._memory: Memory = defaultdict(dict)
        self._moved = self._known = False

    def forward(self, x: Tensor) -> Tensor:
        """The images with δ, in [0, 1]."""
        return (x + self.delta.detach().to(x)).clamp(0, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Takes the steps that it is given; Lightning counts and stores them.
        return torch.optim.SGD([self.delta], lr=1.0)

    def on_fit_start(self) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise InputError(
                "trainer.precision", self.trainer.precision, "'bf16-mixed' or '32-true'"
            )

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = self._checked(batch)
        attack, number = self.attack, self.global_step + 1
        labels = y if self.target is None else torch.full_like(y, self.target)
        whole = x + self.delta.detach().to(x)
        with ExitStack() as stack:
            stack.enter_context(evaluation_mode(self.model))
            stack.enter_context(float32_outside(self.model))
            for part in self._remembering:
                stack.enter_context(part.around(self.model))
            draws = Draws(content_hash(x), attack.seed, "universal", number)
            steps = max(number, self._planned_steps())
            problem, images = Problem(attack, x, labels), whole.clamp(0, 1)
            step, gradient = problem.step(number, steps, x, images, draws, self._memory)
        # By δ: none passes where an image is at its bounds. Batch sizes are in the losses' means.
        gradient = torch.where((whole >= 0) & (whole <= 1), gradient, 0).sum(0, keepdim=True)
        gradient = self._shared(gradient)
        if not bool(gradient.isfinite().all()):
            raise InputError("model", "NaN or infinite gradients", "finite ones")
        self._moved = self._moved or bool(gradient.any())
        direction, alpha = step.directed(gradient)
        for part in self._remembering:
            kept = self._memory[part]
            for key, value in kept.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    value = value.mean(0, keepdim=True) if len(value) == len(x) else value
                    kept[key] = self._shared(value)
        optimizer: Any = self.optimizers()
        self.delta.grad = -(alpha * steepest(direction, attack.norm)).to(self.delta)[0]
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            self.delta.copy_(within(self.delta[None], attack.norm, attack.eps)[0])

    def on_train_epoch_end(self) -> None:
        if not self._moved:
            rank_zero_warn(
                "the gradient was zero on all images, and δ stays as it was; the margin as loss, "
                "or a random start, may help"
            )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = self._checked(batch)
        if self.target is not None:
            x, y = x[y != self.target], y[y != self.target]
        if not len(x):
            return
        networks = {_OWN: self.model, **self.others}
        moved = self(x)
        before, seen = (
            torch.stack([class_logits(net, z, name).argmax(1) for name, net in networks.items()], 1)
            for z in (x, moved)
        )
        changed = seen != before if self.target is None else seen == self.target
        size = (moved - x).abs().flatten(1).amax(1)
        outcome = Outcome(changed, right=before == y.unsqueeze(1), size=size)
        self.rate.update(sample_hash(x, y), outcome)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        for name, found in self._report("test").items():
            low, high = found.interval
            said = f"{100 * found.rate:.1f} % ({100 * low:.0f}–{100 * high:.0f})"
            rank_zero_info(f"fooling rate on {name}: {said}")

    def on_fit_end(self) -> None:
        folder = run_folder(self.trainer)
        if folder is not None and self.trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / "universal.safetensors"
            about = {"eps": self.attack.eps, "norm": self.attack.norm, "target": self.target}
            delta = self.delta.detach().float().cpu().contiguous()
            save_file({"delta": delta}, file, {key: str(value) for key, value in about.items()})
            rank_zero_info(f"the perturbation is in {Path(file)}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_MEMORY] = [
            {key: value for key, value in self._memory[part].items() if isinstance(value, Tensor)}
            for part in self._remembering
        ]
        checkpoint[_NAMES] = self._names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get(_NAMES) != self._names:
            rank_zero_warn(
                "the checkpoint is of an attack with other parts: its δ goes on, without what its "
                "parts kept, such as momentum"
            )
            return
        for part, kept in zip(self._remembering, checkpoint[_MEMORY], strict=True):
            self._memory[part] = dict(kept)

    def on_train_start(self) -> None:
        for kept in self._memory.values():  # a checkpoint's are on the CPU
            for key, value in kept.items():
                kept[key] = value.to(self.device) if isinstance(value, Tensor) else value

    @property
    def _remembering(self) -> list[Objective | Part]:
        """What changes the network for the time of a step, and may keep something after it."""
        return [self.attack.objective, *self.attack.parts]

    @property
    def _names(self) -> list[str]:
        return [type(part).__name__ for part in self._remembering]

    def _checked(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, y = checked_batch(batch)
        if x.shape[1:] != self.delta.shape:
            expected = f"(B, {', '.join(map(str, self.delta.shape))}), as shape says"
            raise InputError("images", f"shape {tuple(x.shape)}", expected)
        if self.target is not None and not self._known:  # once, as it takes a forward pass
            classes = class_logits(self.model, x[:1], "model").shape[1]
            checked_classes(torch.tensor([self.target]), classes, "target")
            self._known = True
        return x, y

    def _planned_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            got = "a training without end, or of a loader without length"
            raise InputError("trainer.max_steps", got, "a number of steps, or of epochs")
        return int(steps)

    def _shared(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        return self.trainer.strategy.reduce(value, reduce_op="mean")

    def _report(self, stage: str) -> dict[str, Proportion]:
        """Log the rates of a stage; network → its fooling rate."""
        counts = {k: v.reshape(-1).tolist() for k, v in self.rate.compute().items()}
        self.rate.reset()
        found = {}
        for k, name in enumerate([_OWN, *self.others]):
            found[name] = Proportion(counts["fooled"][k], counts["images"][0])
            right = Proportion(counts["fooled_correct"][k], counts["correct"][k])
            end = "" if name == _OWN else f"/{name}"
            self.log(f"{stage}/fooling_rate{end}", found[name].rate, prog_bar=not end)
            self.log(f"{stage}/success{end}", right.rate)
        return found
