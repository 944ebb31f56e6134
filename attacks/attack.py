"""One loop for all transferable attacks, in torchattacks' interface, and short names for two."""

from __future__ import annotations

import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import torch
import torchattacks
from torch import Tensor, nn

from interaction_train.attacks.norms import NORMS, Norm, random_start, step_and_project
from interaction_train.attacks.objectives import InteractionObjective, Loss, Objective
from interaction_train.attacks.parts.base import Memory, Part
from interaction_train.attacks.parts.gradients import Momentum, TranslationInvariance
from interaction_train.attacks.parts.inputs import InputDiversity, RandomNoise
from interaction_train.attacks.parts.skip import SkipGradient
from interaction_train.attacks.problem import Problem
from interaction_train.attacks.run import float32_outside, rounded_inward, warn_of_bound
from interaction_train.errors import (
    InputError,
    checked_classes,
    checked_images,
    checked_labels,
    one_of,
    refuse_probabilities,
    whole,
)
from interaction_train.game.evaluation import evaluation_mode, without_grad
from interaction_train.game.players import GridPlayers
from interaction_train.losses.base import show_shared
from interaction_train.losses.reduction import GroupReduction
from interaction_train.sampling.random import Draws, content_hash


class TransferAttack(torchattacks.attack.Attack):
    """Projected gradient ascent on an objective, changed by parts: momentum, diversity, and so on.

    Without parts and with the default objective this is PGD. A ``torchattacks`` attack in all its
    ways: modes, ``set_normalization_used``, ``save``, wrappers such as ``MultiAttack``. Random
    draws are stateless: a sample's result depends on neither its batch nor the global RNG state.
    The network comes back as it was, also after an exception; ``no_grad`` and ``inference_mode``
    around it do no harm. A sample whose gradient was zero in every step is named in a warning.

    Args:
        model: maps ``(B, C, H, W)`` in [0, 1] to logits ``(B, classes)``.
        eps: bound on the perturbation in pixel values (L∞ per pixel, L2 per sample).
        alpha: step size, in the same unit.
        steps: number of steps.
        objective: what is maximised; default: the cross entropy.
        parts: changes to the loop, applied in this order; two of one kind draw different numbers.
        norm: ``"Linf"`` or ``"L2"``.
        random_start: start at a random point, the same for every attack with this seed.
        seed: seed of the draws.
        chunk_size: rows sent through the network at once, at least one per sample of the batch;
            default: 64 on a CPU, on CUDA as many as large networks leave memory for.

    Shapes:
        images ``(B, C, H, W)`` float in [0, 1], labels ``(B,)`` int64 → ``(B, C, H, W)``.

    Raises:
        InputError: arguments out of range; on a call, inputs, logits or gradients that do not fit.
    """

    on_step: Callable[[int, Tensor], None] | None = None
    """Called with (step number from 1, adversarial images) after every step."""
    __signature__: inspect.Signature

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 10,
        *,
        objective: Objective | None = None,
        parts: Sequence[Part] = (),
        norm: Norm = "Linf",
        random_start: bool = False,
        seed: int = 0,
        chunk_size: int | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            several = isinstance(model, list | tuple)
            expected = "one network; several as Ensemble([...])" if several else "a torch.nn.Module"
            raise InputError("model", type(model).__name__, expected)
        for part in parts:
            if not isinstance(part, Part):
                raise InputError("parts", repr(part), "parts of an attack, such as Momentum()")
        if len(set(parts)) < len(parts):
            raise InputError("parts", "one object twice", "an object of its own for each place")
        for argument, value in (("eps", eps), ("alpha", alpha)):
            if not 0 <= value < float("inf"):
                raise InputError(argument, value, "a finite number, at least 0")
        whole("steps", steps, 1)
        if chunk_size is not None:
            whole("chunk_size", chunk_size, 1)
        one_of("norm", norm, NORMS)
        super().__init__(type(self).__name__, model)
        self.supported_mode = ["default", "targeted"]
        self.eps, self.alpha, self.steps, self.norm = eps, alpha, steps, norm
        self.objective = Objective() if objective is None else objective
        self.parts = list(parts)
        self.random_start, self.seed, self.chunk_size = random_start, seed, chunk_size
        warn_of_bound(self)

    def __init_subclass__(cls, sets: Sequence[str] = (), **kwargs: Any) -> None:
        """Show in the signature what ``**common`` passes on, less what the subclass ``sets``."""
        super().__init_subclass__(**kwargs)
        show_shared(cls, sets)

    def __setattr__(self, name: str, value: Any) -> None:
        # Not torchattacks', which looks for attacks inside of all values and never lets go of them.
        object.__setattr__(self, name, value)

    def __call__(self, inputs: Tensor, labels: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        if any(p.is_inference() for p in self.model.parameters()):
            got = "parameters made under torch.inference_mode"
            raise InputError("model", got, "a network made outside it: gradients are needed")
        for argument, value in (("images", inputs), ("labels", labels)):
            if not isinstance(value, Tensor | None):
                raise InputError(argument, type(value).__name__, "a tensor (torch.as_tensor)")
        if inputs.is_floating_point() and inputs.element_size() < 4:
            return rounded_inward(self(inputs.float(), labels), inputs)
        # Leaving inference mode makes room for autograd; the images are cloned below.
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            evaluation_mode(self.model),
            float32_outside(self.model),
            ExitStack() as stack,
        ):
            if self._model_training:
                self._change_model_mode(True)
            device = next((p.device for p in self.model.parameters()), inputs.device)
            inputs = inputs.detach().to(device, copy=True)
            labels = None if labels is None else labels.detach().to(device, copy=True)
            if self._normalization_applied is not True:
                return self.forward(inputs, labels)
            self._set_normalization_applied(False)
            stack.callback(self._set_normalization_applied, True)
            return self.normalize(self.forward(self.inverse_normalize(inputs), labels))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Craft; called by ``__call__``, which sees to modes, devices and normalisation."""
        clean = checked_images(images)
        labels = checked_labels(labels, len(clean))
        for part in self.parts:
            if part.spatial and clean.dim() != 4:
                shape = f"shape {tuple(clean.shape)}"
                raise InputError("images", shape, f"(B, C, H, W), for {type(part).__name__}")
        if self.targeted:
            labels = self.get_target_label(clean, labels)
            labels = checked_labels(labels, len(clean), "targets").to(clean.device)
        draws = Draws(content_hash(clean), self.seed, "attack")
        start = random_start(clean, self.norm, self.eps, draws) if self.random_start else clean
        problem = Problem(self, clean, labels)
        adversarial = start
        memory: Memory = defaultdict(dict)
        broken = torch.zeros_like(labels, dtype=torch.bool)
        moved = torch.zeros_like(broken)
        with ExitStack() as stack:
            stack.enter_context(self.objective.around(self.model))
            for part in self.parts:
                stack.enter_context(part.around(self.model))
            for number in range(1, self.steps + 1):
                step, gradient = problem.step(
                    number, self.steps, start, adversarial, replace(draws, step=number), memory
                )
                largest = gradient.abs().flatten(1).amax(1)
                broken |= ~largest.isfinite()
                moved |= largest != 0
                gradient, alpha = step.directed(gradient)
                adversarial = step_and_project(
                    adversarial, gradient, clean, self.norm, self.eps, alpha
                )
                for part, seen in step.by_part():
                    adversarial = part.settle(adversarial, seen)
                if self.on_step is not None:
                    self.on_step(number, adversarial)
        if bool(broken.any()):  # with the next line all that is read back to the host
            samples = broken.nonzero().flatten().tolist()
            got = f"NaN or infinite gradients for samples {samples}"
            raise InputError("model", got, "finite ones")
        if not bool(moved.all()):
            samples = (~moved).nonzero().flatten().tolist()
            warnings.warn(
                f"the gradient was zero in every step for samples {samples}, which come back as "
                "they started; the margin as loss, or a random start, may help",
                stacklevel=3,
            )
        return adversarial

    def get_random_target_label(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        logits, labels = self._outlook(inputs, labels)
        shift = Draws(content_hash(inputs), self.seed, "attack").uniform("target", 1).squeeze(1)
        classes = logits.shape[1]
        return (labels + 1 + (shift * (classes - 1)).long()) % classes

    def get_least_likely_label(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        logits, labels = self._outlook(inputs, labels)
        if not 1 <= self._kth_min < logits.shape[1]:
            expected = f"1 to {logits.shape[1] - 1}, kth_min below the number of classes"
            raise InputError("kth_min", self._kth_min, expected)
        return logits.scatter(1, labels.unsqueeze(1), torch.inf).argsort(1)[:, self._kth_min - 1]

    def _outlook(self, inputs: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        with without_grad():
            logits = self.get_logits(inputs)
        refuse_probabilities(logits)
        labels = logits.argmax(1) if labels is None else labels
        checked_classes(labels, logits.shape[1])
        return logits, labels


class IRAttack(TransferAttack, sets=("objective", "parts")):
    """The interaction-reduced attack (survey, Sec. 5.1, Eq. 18 and 19).

    Maximises loss − λ·Î, with Î the interactions inside the perturbation. On the margin that is
    (1 − λ)·v(N) + λ·E_A[v(N∖A) + v(A)] − λ·v(∅): no interaction is left at λ = 1. One group a step
    and momentum over steps stand in for the many groups of the published form, which is ``eps=16 /
    255, steps=100, weight=1, grid=16, draws=32, size=32, loss="cross_entropy", decay=None``.
    No form of it was found that transfers better than its ablation,
    :class:`~interaction_train.attacks.objectives.MaskedObjective`, at equal passes: for transfer
    take :mod:`~interaction_train.attacks.presets`.

    Args:
        model: this, ``eps``, ``alpha`` and ``steps`` as in :class:`TransferAttack`.
        weight: λ.
        grid: cells along each side of the image.
        draws: groups per step; a step costs 2·draws + 1 forward passes.
        size: cells in a group; default: a quarter of them.
        loss: as in :class:`~interaction_train.attacks.objectives.Objective`.
        mix: ``"losses"`` or ``"gradients"``, as in :class:`InteractionObjective`.
        decay: of momentum; None for no momentum.
        common: the other settings of :class:`TransferAttack`.

    Examples:
        >>> import torch
        >>> from interaction_train.models import DigitsNet, pretrained
        >>> model = pretrained(DigitsNet(), "digits_cnn")
        >>> attack = IRAttack(model, eps=0.1, alpha=0.02, steps=3, grid=4)
        >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([3, 8])
        >>> float((attack(images, labels) - images).abs().max()) <= 0.1 + 1e-6
        True
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 20,
        weight: float = 0.5,
        grid: int = 8,
        draws: int = 1,
        size: int | None = None,
        loss: Loss = "margin",
        mix: Literal["losses", "gradients"] = "losses",
        decay: float | None = 1.0,
        **common: Any,
    ) -> None:
        size = max(1, grid * grid // 4) if size is None else size
        reduction = GroupReduction(GridPlayers(grid, grid), draws, size)
        objective = InteractionObjective(loss, weight, mix, reduction)
        parts = [] if decay is None else [Momentum(decay)]
        super().__init__(model, eps, alpha, steps, objective=objective, parts=parts, **common)


class HybridIRAttack(IRAttack):
    """MI + VR + SGM + DI + TI + IR, the survey's strongest combination (Table 2): to reproduce it.

    A step costs ``samples`` forward passes for VR and 2·draws + 1 for IR. At equal passes one of
    the :mod:`~interaction_train.attacks.presets` transfers far better.

    Args:
        model: a network with residual blocks, for SGM.
        decay: of momentum (MI).
        samples: noisy copies per step (VR).
        sigma: standard deviation of their noise in units of ε (VR).
        gamma: share of the gradient through residual branches (SGM); 1 for networks without them.
        resize_rate: extreme scale (DI).
        probability: that an image is resized in a step (DI).
        kernel_size: width of the smoothing kernel in pixels (TI); default: by the images' size.
        common: the other arguments of :class:`IRAttack`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 1.0,
        samples: int = 20,
        sigma: float = 1.0,
        gamma: float = 0.5,
        resize_rate: float = 0.9,
        probability: float = 0.5,
        kernel_size: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(model, decay=None, **common)
        self.parts = [
            SkipGradient(gamma),
            RandomNoise(sigma, "normal", samples),
            InputDiversity(resize_rate, probability),
            TranslationInvariance(kernel_size),
            Momentum(decay),
        ]
