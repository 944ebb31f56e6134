"""Crafting adversarial examples while a network is being trained or measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.run import run_attack
from interaction_train.errors import InputError

AttackFactory = Callable[[nn.Module], Attack]
"""Makes an attack on a network; in YAML its ``class_path`` and ``init_args`` without ``model``."""

_ROUNDING = 1e-4


def craft(attack: Attack, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """Adversarial versions of a batch, from anywhere, with no trace on the network.

    As :func:`~interaction_train.attacks.run.run_attack`; moreover no gradient reaches a parameter,
    not even from an attack that calls ``backward()``, and autocast is off meanwhile: the gradients
    of pixels vanish in float16, and many attacks expect float32 logits.

    Args:
        attack: any attack of torchattacks' interface.
        x: images ``(B, C, H, W)`` in [0, 1].
        y: labels ``(B,)`` int64.
        seed: seed of the attacks that draw from the global random states.

    Returns:
        ``(B, C, H, W)``.

    Raises:
        InputError: the attack returns another shape, or pixels that are not in [0, 1].
    """
    with torch.autocast(x.device.type, enabled=False), _frozen(attack.model):
        adversarial = run_attack(attack, x, y, seed=seed).adversarial
    low, high = (float(bound) for bound in adversarial.aminmax())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        got = f"pixels from {low:.6g} to {high:.6g}"
        raise InputError(type(attack).__name__, got, "pixels in [0, 1]")
    return adversarial.to(x)


def set_epsilon(attack: Attack, epsilon: float) -> None:
    """Give an attack another bound, and a step size in the same proportion to it.

    Args:
        attack: an attack, or one made of several, with the attribute ``eps``.
        epsilon: the bound, in pixel values and in the norm that the attack bounds.

    Raises:
        InputError: an attack without such a bound.
    """
    parts = [part for part in (attack, *attack._attacks.values()) if hasattr(part, "eps")]
    if not parts:
        raise InputError("epsilons", type(attack).__name__, "an attack with a bound 'eps'")
    for part in parts:
        if part.eps and isinstance(getattr(part, "alpha", None), float | int):
            part.alpha = part.alpha * epsilon / part.eps
        part.eps = epsilon


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
