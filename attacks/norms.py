"""The two norms that bound a perturbation: steps, projections and random starts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from interaction_train.sampling.random import Draws

Norm = Literal["Linf", "L2"]
NORMS = ("Linf", "L2")


def step_and_project(
    adversarial: Tensor, direction: Tensor, clean: Tensor, norm: Norm, eps: float, alpha: float
) -> Tensor:
    """One step of steepest ascent of images ``(B, ...)``, kept near the clean ones and in [0, 1].

    L∞: a step of ``alpha`` per pixel; L2: of length ``alpha`` per sample. A zero gradient as
    direction leaves the sample where it is.
    """
    unit = direction.sign() if norm == "Linf" else normalize(direction, "L2")
    return project(adversarial + alpha * unit, clean, norm, eps)


def project(adversarial: Tensor, clean: Tensor, norm: Norm, eps: float) -> Tensor:
    """The nearest images within ``eps`` of the clean ones, then clamped to [0, 1].

    Examples:
        >>> clean = torch.tensor([[0.5, 0.02]])
        >>> project(clean + torch.tensor([[0.3, -0.3]]), clean, "Linf", 0.1)
        tensor([[0.6000, 0.0000]])
    """
    delta = adversarial - clean
    if norm == "Linf":
        delta = delta.clamp(-eps, eps)
    else:
        delta = delta * (eps / _size(delta, "L2")).clamp(max=1)
    return (clean + delta).clamp(0, 1)


def random_start(clean: Tensor, norm: Norm, eps: float, draws: Draws) -> Tensor:
    """Uniform in the cube (L∞); in the ball, in a random direction at a uniform radius (L2)."""
    size = clean[0].numel()
    if norm == "Linf":
        delta = (2 * draws.uniform("start", size) - 1) * eps
    else:
        direction = normalize(draws.normal("start", size), "L2")
        delta = direction * eps * draws.uniform("radius", 1)
    return project(clean + delta.view_as(clean).to(clean), clean, norm, eps)


def normalize(gradient: Tensor, by: Literal["L1", "L2"]) -> Tensor:
    """Per sample: to a mean absolute value of 1 (L1), or to length 1 (L2); zero stays zero."""
    return gradient / _size(gradient, by)


def _size(values: Tensor, by: Literal["L1", "L2"]) -> Tensor:
    flat = values.flatten(1)
    size = flat.abs().mean(1) if by == "L1" else flat.norm(dim=1)
    return torch.where(size == 0, 1, size).view(-1, *(1 for _ in values.shape[1:]))
