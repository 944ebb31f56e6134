"""Attacks by purpose, set by measurement: ``presets.Strong(model, eps=8 / 255)``.

Many steps with one random transformation each transfer better than few steps with many. The
settings were searched for on tuning images of CIFAR-10 and ImageNet, and are shown on others in
``docs/attacks.md``; what depends on the image's size or on ε scales with it, so that one preset
serves images of any size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from interaction_train.attacks.attack import TransferAttack
from interaction_train.attacks.objectives import Loss, Objective
from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.gradients import Momentum
from interaction_train.attacks.parts.inputs import InputDiversity, RandomNoise
from interaction_train.attacks.parts.structure import StructureInvariance
from interaction_train.attacks.parts.warp import AdaptiveWarp
from interaction_train.errors import whole

_SMALL = 16  # pixels of a side, below which blocks are too small to be changed
# Without what turns blocks upside down or smooths them: these transfer worse, and smoothing costs.
CHANGES = (
    "vertical shift",
    "horizontal shift",
    "horizontal flip",
    "scale",
    "noise",
    "dropout",
)


class _BySize(Part):
    """Changed blocks (SIA, six of its ten changes); of small images, resizing (DI)."""

    spatial = shared = True

    def __init__(self) -> None:
        self.large, self.small = StructureInvariance(changes=CHANGES), InputDiversity()

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        part = self.small if min(rows.shape[-2:]) < _SMALL else self.large
        return part.vary(rows, copy, step)


class _Preset(TransferAttack):
    """Random changes of one copy a step, noise and momentum."""

    loss: Loss = "margin"

    @staticmethod
    def changes() -> list[Part]:
        """What changes the images."""
        return [AdaptiveWarp(), _BySize()]

    def __init__(
        self, model: nn.Module, eps: float, alpha: float | None, steps: int, **common: Any
    ) -> None:
        whole("steps", steps, 1)
        alpha = max(0.2, 3 / steps) * eps if alpha is None else alpha
        parts = [*self.changes(), RandomNoise(), Momentum()]
        objective = Objective(self.loss)
        super().__init__(model, eps, alpha, steps, objective=objective, parts=parts, **common)


class Fast(_Preset, sets=("objective", "parts")):
    """10 forward and backward passes an image: resizing, noise and momentum on the margin.

    Args:
        model: this and ``eps`` as in :class:`TransferAttack`.
        eps: the bound.
        alpha: step size; default: ε / 5, of few steps longer.
        steps: number of steps, of one pass each.
        common: the other settings of :class:`TransferAttack`.
    """

    @staticmethod
    def changes() -> list[Part]:
        """Resizing alone."""
        return [InputDiversity()]

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 10,
        **common: Any,
    ) -> None:
        super().__init__(model, eps, alpha, steps, **common)


class Strong(_Preset, sets=("objective", "parts")):
    """80 passes: an adaptive warp, changed blocks (SIA), noise and momentum.

    Of SIA's changes those that neither turn blocks upside down nor smooth them; below 16 pixels
    resizing. Arguments as of :class:`Fast`.
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 80,
        **common: Any,
    ) -> None:
        super().__init__(model, eps, alpha, steps, **common)


class Best(Strong, sets=("objective", "parts")):
    """400 passes of :class:`Strong`."""

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 400,
        **common: Any,
    ) -> None:
        super().__init__(model, eps, alpha, steps, **common)


class Targeted(Best, sets=("objective", "parts")):
    """400 passes that raise the logit of random classes, or of others: ``set_mode_targeted_*``."""

    loss = "logit"

    def __init__(
        self,
        model: nn.Module,
        eps: float = 16 / 255,
        alpha: float | None = None,
        steps: int = 400,
        **common: Any,
    ) -> None:
        super().__init__(model, eps, alpha, steps, **common)
        self.set_mode_targeted_random(quiet=True)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"no preset {name!r}; there are Fast, Strong, Best and Targeted")
