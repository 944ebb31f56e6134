"""Attacks by purpose, set by measurement: ``presets.strong(model, eps=8 / 255)``.

Many steps with one random transformation each transfer better than few steps with many. The
settings were searched for on tuning images of CIFAR-10 and ImageNet, and are shown on others in
``docs/attacks.md``; what depends on the image's size or on ε scales with it, so that one preset
serves images of any size. ``common`` are the other settings of
:class:`~interaction_train.attacks.attack.TransferAttack`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from interaction_train.attacks.attack import TransferAttack
from interaction_train.attacks.objectives import Objective
from interaction_train.attacks.parts.base import Part
from interaction_train.attacks.parts.gradients import Momentum
from interaction_train.attacks.parts.inputs import InputDiversity, RandomNoise
from interaction_train.attacks.parts.structure import StructureInvariance

PRESETS = ("fast", "strong", "best", "targeted")


def fast(model: nn.Module, eps: float = 8 / 255, **common: Any) -> TransferAttack:
    """10 forward and backward passes an image: resizing, noise and momentum on the margin."""
    return _made(model, eps, 10, Objective("margin"), InputDiversity(), common)


def strong(model: nn.Module, eps: float = 8 / 255, **common: Any) -> TransferAttack:
    """80 passes an image: changed blocks (SIA), noise and momentum on the margin."""
    return _made(model, eps, 80, Objective("margin"), StructureInvariance(), common)


def best(model: nn.Module, eps: float = 8 / 255, **common: Any) -> TransferAttack:
    """400 passes an image: :func:`strong` with more steps."""
    return _made(model, eps, 400, Objective("margin"), StructureInvariance(), common)


def targeted(model: nn.Module, eps: float = 16 / 255, **common: Any) -> TransferAttack:
    """400 passes an image, towards random classes, or others by ``set_mode_targeted_*``."""
    attack = _made(model, eps, 400, Objective("logit"), StructureInvariance(), common)
    attack.set_mode_targeted_random(quiet=True)
    return attack


def _made(
    model: nn.Module,
    eps: float,
    steps: int,
    objective: Objective,
    changes: Part,
    common: dict[str, Any],
) -> TransferAttack:
    """Steps of ε / 5, of few steps longer ones."""
    settings = {"alpha": max(0.2, 3 / steps) * eps, "steps": steps, "objective": objective}
    parts = [changes, RandomNoise(), Momentum()]
    return TransferAttack(model, eps, **{"parts": parts, **settings, **common})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
