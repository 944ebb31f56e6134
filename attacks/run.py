"""The one way to run any attack of torchattacks' interface: reproducible, and without a trace."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.errors import InputError, checked_images
from interaction_train.game.evaluation import evaluation_mode
from interaction_train.sampling.random import Draws, content_hash, sample_hash

AttackFactory = Callable[[nn.Module], Attack]
"""Makes an attack on a network; in YAML its ``class_path`` and ``init_args`` without ``model``."""

_ROUNDING = 1e-4
_SCALE = 1024.0  # of gradients in float16, where those of pixels vanish
_wrapped: WeakSet[nn.Module] = WeakSet()


def run_attack(
    attack: Attack, x: Tensor, y: Tensor, *, seed: int = 0
) -> tuple[Tensor, Tensor | None]:
    """Attack a batch, with whatever attack and around whatever the caller is doing.

    Works under ``no_grad``, ``inference_mode`` and autocast. The global random states of torch,
    NumPy and Python are seeded from the batch's content and ``seed``, so that a result depends on
    its batch alone; they and all modes are put back, and no gradient reaches a weight, also when
    the attack fails. Half precision is cast to float32, and the result rounded towards the clean
    image.

    Args:
        attack: built on a network on the device of ``x``.
        x: images ``(B, C, H, W)`` in [0, 1], normalised for ``set_normalization_used``.
        y: labels ``(B,)`` int64.
        seed: seed of the random numbers; attacks that draw by themselves have their own.

    Returns:
        The adversarial images in the dtype of ``x``; of a targeted attack, its targets ``(B,)``.

    Raises:
        InputError: images, given or returned, that do not fit; targets equal to labels or not told.
    """
    name = type(attack).__name__
    normalized = getattr(attack, "_normalization_applied", None) is True
    pixels = attack.inverse_normalize if normalized else torch.clone
    try:
        checked_images(pixels(x))
    except InputError as error:
        hint = f"{error.expected}; callbacks take normalization={{mean, std}} of other inputs"
        raise InputError(error.argument, error.got, hint) from None
    batch_seed = Draws(content_hash(sample_hash(x, y)[None]), seed, "attack").bits("batch")
    parts = attack_parts(attack)
    targets: list[Tensor] = []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(x.device.type, enabled=False),
        seeded(int(batch_seed) & 0xFFFF_FFFF, x.device),
        ExitStack() as stack,
    ):
        for network in dict.fromkeys(part.model for part in parts):
            stack.enter_context(evaluation_mode(network))
            stack.enter_context(float32_outside(network))
            for weight in network.parameters():
                if weight.requires_grad:  # backward(), which some call, would add to its gradient
                    stack.callback(weight.requires_grad_, True)
                    weight.requires_grad_(False)
        for part in parts:
            if getattr(part, "targeted", False):
                chosen = _recorded(part.get_target_label, name, targets)
                stack.callback(vars(part).pop, "get_target_label")
                vars(part)["get_target_label"] = chosen
        # Clones, because a tensor made under inference mode can take no part in autograd.
        wide = x.float() if x.element_size() < 4 else x
        adversarial = attack(wide.clone(), y.clone()).detach()
    if adversarial.shape != x.shape:
        raise InputError(name, f"shape {tuple(adversarial.shape)}", f"{tuple(x.shape)}")
    if not bool(adversarial.isfinite().all()):
        raise InputError(name, "images with NaN or infinite pixels", "finite ones")
    low, high = (float(bound) for bound in pixels(adversarial).aminmax())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(name, f"values from {low:.6g} to {high:.6g}", "pixels in [0, 1]")
    if attack.targeted and not targets:
        raise InputError(name, "a targeted mode", "get_target_label to be called for the targets")
    aims = targets[-1].to(y.device) if attack.targeted else None
    return rounded_inward(adversarial.to(wide), x), aims


def craft(attack: Attack, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    """The adversarial images of :func:`run_attack` alone, ``(B, C, H, W)``."""
    return run_attack(attack, x, y, seed=seed)[0]


def norm_of(attack: Attack) -> str:
    """The norm that an attack bounds, mostly ``"Linf"`` or ``"L2"``, by its attribute or name."""
    return getattr(attack, "norm", None) or ("L2" if "L2" in type(attack).__name__ else "Linf")


def warn_of_bound(attack: Attack) -> None:
    """Warn of a bound in L∞ that bounds nothing."""
    bound = getattr(attack, "eps", None)
    if isinstance(bound, float | int) and bound >= 1 and norm_of(attack) == "Linf":
        rank_zero_warn(
            f"{type(attack).__name__} has eps = {bound:g} in L∞, where pixels are in [0, 1]: any "
            "image is within it. (8 of 255 grey levels are 8/255.)"
        )


def set_epsilon(attack: Attack, epsilon: float) -> None:
    """Give an attack, and those that it holds, another bound, and step sizes in proportion.

    Raises InputError for an attack without an attribute ``eps``, or with 0 as bound and step size.
    """
    parts = [part for part in attack_parts(attack) if hasattr(part, "eps")]
    if not parts:
        raise InputError("epsilons", type(attack).__name__, "an attack with a bound 'eps'")
    for part in parts:
        if epsilon and not part.eps and getattr(part, "alpha", None) == 0:
            got = f"{type(part).__name__} with eps = 0 and alpha = 0"
            raise InputError("epsilons", got, "a bound above 0, which step sizes go with")
        if part.eps and isinstance(getattr(part, "alpha", None), float | int):
            part.alpha = part.alpha * epsilon / part.eps
        part.eps = epsilon


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the random states of torch (CPU, CUDA ``device``), NumPy and Python for a while."""
    cuda = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        stack.callback(random.setstate, random.getstate())
        stack.enter_context(torch.random.fork_rng(cuda))
        # torch.manual_seed would reseed all accelerators, of which one is put back.
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield


def attack_parts(attack: Attack) -> list[Attack]:
    """An attack and all that it holds, as attributes, in lists or mappings, at any depth."""
    found: dict[int, Attack] = {}
    waiting: list[Any] = [attack]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Attack) or value is attack:
            if id(value) not in found:
                found[id(value)] = value
                waiting += vars(value).values()
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return list(found.values())


@contextmanager
def counted_passes(network: nn.Module) -> Iterator[Counter[str]]:
    """Count the rows ``forwards`` of every call of a network, and ``backwards`` of its logits.

    Members of an :class:`Ensemble` count one by one; calls under ``torch.compile`` are not seen.
    """
    passes: Counter[str] = Counter()

    def count(_: nn.Module, __: Any, logits: Any) -> None:
        if isinstance(logits, Tensor):
            rows = len(logits)
            passes.update(forwards=rows)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: passes.update(backwards=rows))

    with ExitStack() as stack:
        for member in network.members if isinstance(network, Ensemble) else [network]:
            stack.callback(member.register_forward_hook(count).remove)
        yield passes


@contextmanager
def float32_outside(model: nn.Module) -> Iterator[None]:
    """Let networks of half precision take and give float32, with gradients scaled in float16."""
    with ExitStack() as stack:
        for network in model.members if isinstance(model, Ensemble) else (model,):
            types = (p.dtype for p in network.parameters() if p.is_floating_point())
            dtype = next(types, torch.float32)
            if dtype.itemsize < 4 and network not in _wrapped:
                _wrapped.add(network)
                stack.callback(_wrapped.discard, network)
                before, after = _casts(dtype)
                stack.callback(network.register_forward_pre_hook(before).remove)
                stack.callback(network.register_forward_hook(after).remove)
        yield


def _casts(dtype: torch.dtype) -> tuple[Callable[..., Any], Callable[..., Any]]:
    scale = _SCALE if dtype == torch.float16 else 1.0

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = args
        if x.requires_grad:
            x = x.clone()
            x.register_hook(lambda gradient: gradient / scale)
        return x.to(dtype), *rest

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        logits = output.float()
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * scale)
        return logits

    return before, after


def rounded_inward(adversarial: Tensor, x: Tensor) -> Tensor:
    """In the dtype of the clean images, of half precision one step towards them if beyond."""
    rounded = adversarial.to(x.dtype)
    if x.element_size() >= 4:
        return rounded
    beyond = (rounded.float() - x.float()).abs() > (adversarial - x.float()).abs()
    # Numbers of one sign are ordered as their bits are.
    step = (x.float() - rounded.float()).sign() * rounded.sign() * beyond
    return (rounded.view(torch.int16) + step.to(torch.int16)).view(x.dtype)


def _recorded(
    choose: Callable[..., Tensor], name: str, targets: list[Tensor]
) -> Callable[..., Tensor]:
    """An attack's choice of targets, noted in a list; refused where they are the labels."""

    def choice(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        try:
            found = choose(inputs, labels)
        except (IndexError, RuntimeError) as error:
            got = f"a target that cannot be found ({error})"
            wanted = "other classes than the labels, kth_min below the number of classes"
            raise InputError(name, got, wanted) from error
        if same := 0 if labels is None else int((found.to(labels.device) == labels).sum()):
            got = f"the label itself for {same} of {len(found)} images"
            hint = "targets equal to the labels are reached unmoved"
            raise InputError("targets", got, f"other classes, such as 'random': {hint}")
        targets.append(found)
        return found

    return choice
