"""Calling any torchattacks attack from anywhere: reproducible, and without a trace."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.errors import InputError
from interaction_train.sampling.random import Draws, content_hash, sample_hash

AttackFactory = Callable[[nn.Module], Attack]
"""Makes an attack on a network; in YAML its ``class_path`` and ``init_args`` without ``model``."""


class Crafted(NamedTuple):
    """What an attack returned.

    Attributes:
        adversarial: ``(B, C, H, W)``, detached.
        targets: ``(B,)`` int64, the classes a targeted attack aimed at; None for others.
    """

    adversarial: Tensor
    targets: Tensor | None


def run_attack(attack: Attack, x: Tensor, y: Tensor, *, seed: int = 0) -> Crafted:
    """Attack a batch, with whatever attack and around whatever the caller is doing.

    Works under ``no_grad`` and ``inference_mode``. The random numbers of torch, NumPy and Python
    that an attack takes from their global states are seeded from the batch's content and ``seed``
    and the states put back, so no result depends on what ran before; for such attacks it does
    depend on how samples are batched. Training modes are put back module by module, and no gradient
    reaches a weight. All of that also when the attack fails.

    Args:
        attack: built on a network on the device of ``x``.
        x: images ``(B, C, H, W)`` in [0, 1].
        y: labels ``(B,)`` int64.
        seed: seed of the random numbers; attacks that draw by themselves have their own.

    Raises:
        InputError: the attack returned another shape, or numbers that are not finite, or is
            targeted and does not say at what.
    """
    content = sample_hash(x, y)
    batch_seed = Draws(content_hash(content[None]), seed, "attack").bits("batch")
    targets: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_kept(attack.model))
        stack.enter_context(seeded(int(batch_seed) & 0xFFFF_FFFF, x.device))
        if attack.targeted:
            stack.enter_context(_recorded_targets(attack, targets))
        # Clones, because a tensor made under inference mode can take no part in autograd.
        adversarial = attack(x.clone(), y.clone()).detach()
    name = type(attack).__name__
    if adversarial.shape != x.shape:
        raise InputError(name, f"shape {tuple(adversarial.shape)}", f"{tuple(x.shape)}")
    if not bool(adversarial.isfinite().all()):
        raise InputError(name, "images with NaN or infinite pixels", "finite ones")
    if attack.targeted and not targets:
        raise InputError(name, "a targeted mode", "get_target_label to be called for the targets")
    return Crafted(adversarial, targets[-1].to(y.device) if targets else None)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random states of torch (CPU and ``device``), NumPy and Python for a while.

    Args:
        seed: from 0 to 2^32 − 1.
        device: its generator is seeded too where it is a CUDA device.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    cuda = device.type == "cuda"
    try:
        with torch.random.fork_rng([device] if cuda else []):
            # torch.manual_seed would reseed all accelerators, of which one is put back.
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextmanager
def _kept(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in weights:  # some attacks call backward(), which would add to weight.grad
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight in weights:
            weight.requires_grad_(True)


@contextmanager
def _recorded_targets(attack: Attack, targets: list[Tensor]) -> Iterator[None]:
    choose = attack.get_target_label

    def recorded(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        targets.append(choose(inputs, labels))
        return targets[-1]

    vars(attack)["get_target_label"] = recorded
    try:
        yield
    finally:
        del vars(attack)["get_target_label"]


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
