"""The smallest ε at which an attack breaks each sample, and signs of masked gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn

from interaction_train.attacks.jobs import Targets, make_attack
from interaction_train.attacks.run import AttackFactory, craft, norm_of, set_epsilon
from interaction_train.errors import InputError
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.precision import wide, wide_dtype

_QUERIES = 100  # of the default black-box attack
_ENOUGH = 0.95  # success that is "all of them" at the largest ε there is


class RobustCurve(NamedTuple):
    """What an attack does to B samples.

    ``smallest`` ``(B,)`` is the smallest ε that broke a sample, or without a list of ε the size of
    the perturbation (L∞); 0 where the network is wrong without an attack, infinite where it stands.
    ``adversarial`` ``(B, C, H, W)`` is the image that broke a sample, else the last one tried.
    """

    smallest: Tensor
    adversarial: Tensor


def robust_curve(
    make: AttackFactory,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilons: Sequence[float] | None,
    *,
    seed: int = 0,
    targets: Targets | None = None,
) -> RobustCurve:
    """Attack with growing ε, each time only what still stands: broken at one ε, so at larger ones.

    Args:
        make: makes the attack; its step size goes with ε.
        network: ``(B, ...)`` → logits ``(B, classes)``.
        x: images ``(B, C, H, W)`` in [0, 1].
        y: labels ``(B,)`` int64.
        epsilons: ascending; None takes the attack as it is.
        seed: seed of attacks that draw from the global random states.
        targets: what the attack aims at; None: as it is made.

    Raises:
        InputError: an attack without a bound or targets to set, or one that leaves its bound.
    """
    stands = eval_logits(network, x).argmax(-1) == y
    smallest = wide(torch.where(stands, math.inf, 0.0))
    adversarial = x.clone()
    for epsilon in (None,) if epsilons is None else epsilons:
        left = stands.nonzero().flatten()
        if not len(left):
            break
        attack = make_attack(make, network, epsilon, targets)
        crafted = craft(attack, x[left], y[left], seed=seed)
        sizes = (wide(crafted) - wide(x[left])).flatten(1)
        if epsilon is not None:
            linf, l2 = float(sizes.abs().amax()), float(sizes.norm(dim=1).amax())
            if min(linf, l2) > epsilon * 1.001 + 1e-6:
                size = f"a perturbation of {linf:.4g} (L∞) and {l2:.4g} (L2)"
                got = f"{type(attack).__name__} with {size}"
                raise InputError("epsilons", got, f"one within eps = {epsilon:.4g}")
        broken = eval_logits(network, crafted).argmax(-1) != y[left]
        reached = sizes.abs().amax(1) if epsilon is None else torch.full_like(sizes[:, 0], epsilon)
        smallest[left[broken]] = reached[broken]
        adversarial[left], stands[left] = crafted, ~broken
    return RobustCurve(smallest, adversarial)


def masking_signs(
    make: AttackFactory,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float | None,
    *,
    seed: int = 0,
) -> Tensor:
    """What tells that an attack fails because gradients are masked (Athalye et al., 2018).

    Arguments are those of :func:`robust_curve`, with images ``x`` that the network gets right and
    the bound ``epsilon`` (None: the attack's own). Returns ``(B, 4)``: the cross entropy after half
    of the steps and after all; whether a black-box attack (Square with 100 queries) breaks the
    sample at this ε, and the attack itself at the largest ε there is. NaN where an attack has no
    bound, or one step alone.
    """
    attack = make(network)
    epsilon = getattr(attack, "eps", None) if epsilon is None else epsilon
    steps = getattr(attack, "steps", 1)
    found = torch.full((len(x), 4), torch.nan, dtype=wide_dtype(x.device), device=x.device)
    if epsilon is None or not len(x):
        return found

    def at(bound: float, factory: AttackFactory, wanted: int | None = None) -> Tensor:
        made = factory(network)
        set_epsilon(made, bound)
        if wanted is not None:
            made.steps = wanted
        return wide(eval_logits(network, craft(made, x, y, seed=seed)))

    if isinstance(steps, int) and steps > 1:
        for column, count in enumerate((steps // 2, steps)):
            found[:, column] = F.cross_entropy(at(epsilon, make, count), y, reduction="none")
        whole = 1.0 if norm_of(attack) == "Linf" else x[0].numel() ** 0.5
        found[:, 3] = at(whole, make).argmax(-1) != y
    square = partial(torchattacks.Square, norm=norm_of(attack), n_queries=_QUERIES)
    found[:, 2] = at(epsilon, square).argmax(-1) != y
    return found


def masking_warnings(name: str, signs: Tensor, broken: Tensor) -> list[str]:
    """What signs ``(B, 4)`` show beyond two standard errors; ``broken`` ``(B,)`` by the attack."""
    if not len(signs):
        return []
    half, full, black, large = signs.T
    own, found = broken.to(signs), []
    if _clearly_positive(half - full):
        found.append(
            f"the loss falls with more steps, from {half.mean():.3g} to {full.mean():.3g}; "
            "gradients may be masked, or steps too large."
        )
    if _clearly_positive(black - own):
        found.append(
            f"a black-box attack breaks {black.mean():.1%} of the samples and it {own.mean():.1%}; "
            "gradients may be masked."
        )
    if large.mean() < _ENOUGH:  # False for NaN
        found.append(
            f"with the largest ε there is it breaks only {large.mean():.1%} of the samples; "
            "gradients may be masked, or the steps too few."
        )
    return [f"{name}: {text}" for text in found]


def _clearly_positive(differences: Tensor) -> bool:
    mean, spread = float(differences.mean()), float(differences.std(correction=0))
    return mean > max(2 * spread / len(differences) ** 0.5, 1e-6)  # False for NaN
