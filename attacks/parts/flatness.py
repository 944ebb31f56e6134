"""Parts that lead to flat maxima: gradients in a neighbourhood and at its worst point."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attacks.norms import normalize, random_start, step_and_project
from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import InputError, at_least, in_range, whole


class ReversePerturbation(Part):
    """RAP: the gradient at the point around the image that is worst for the attack.

    Qin et al., "Boosting the transferability of adversarial attacks with reverse adversarial
    perturbation", NeurIPS 2022. The point is found by projected descent on the classification loss
    from a random start. A step costs ``iterations`` + 1 passes, and one before the late start.

    Args:
        radius: of the neighbourhood, in units of ε.
        iterations: of the descent, each of ``radius``·ε / ``iterations``.
        late_start: share of the attack's steps that are made without it.
    """

    def __init__(self, radius: float = 1.0, iterations: int = 8, late_start: float = 0.25) -> None:
        at_least("radius", radius, 0)
        whole("iterations", iterations, 1)
        if not 0 <= late_start < 1:
            raise InputError("late_start", late_start, "a share of the steps from 0, below 1")
        self.radius, self.iterations, self.late_start = radius, iterations, late_start

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        if step.number <= self.late_start * step.steps:
            return point
        radius = self.radius * step.eps
        worst = random_start(point, step.norm, radius, step.draws)
        for _ in range(self.iterations):
            gradient = step.gradients_at(worst.unsqueeze(1), step)[:, 0]
            worst = step_and_project(
                worst, -gradient, point, step.norm, radius, radius / self.iterations
            )
        return worst


class Neighbourhood(Part):
    """Takes gradients at random neighbours; the first's is the one the attack takes anyway.

    Args:
        samples: number of neighbours.
        beta: their distance, uniform in ±beta·ε per pixel (in L2, ±beta·ε / √(number of pixels)).
    """

    def __init__(self, samples: int, beta: float) -> None:
        whole("samples", samples, 1)
        at_least("beta", beta, 0)
        self.samples, self.beta = samples, beta

    def offsets(self, step: Step, wanted: range) -> Tensor:
        """From the image to the wanted neighbours, ``(B, k, C, H, W)``."""
        return step.noise("neighbours", wanted) * (self.beta * step.pixel_eps)

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        return point + self.offsets(step, range(1))[:, 0]

    def neighbours(self, step: Step) -> Tensor:
        """``(B, samples, C, H, W)``, of which the first is where the attack took its gradient."""
        offsets = self.offsets(step, range(self.samples))
        return step.point.unsqueeze(1) + (offsets - offsets[:, :1])

    def gradients(self, first: Tensor, neighbours: Tensor, step: Step) -> Tensor:
        """At the neighbours, given the first's."""
        if self.samples == 1:
            return first.unsqueeze(1)
        return torch.cat([first.unsqueeze(1), step.gradients_at(neighbours[:, 1:], step)], 1)


class PenalizedGradient(Neighbourhood):
    """PGN: the loss's gradient in a neighbourhood, less that of its norm.

    Ge et al., "Boosting Adversarial Transferability by Achieving Flat Local Maxima", NeurIPS 2023.
    The mean over random neighbours of (1 − weight) · g + weight · g', with g' taken a small way
    down g: a finite difference of the norm's gradient. A step costs 2 · ``samples`` passes.

    Args:
        samples: this and ``beta`` as in :class:`Neighbourhood`.
        beta: 3 as published.
        weight: of the second gradient.
        reach: length of the way down, mean per pixel, in units of ε; published: a step size of
            ε/10.
    """

    def __init__(
        self, samples: int = 20, beta: float = 3.0, weight: float = 0.5, reach: float = 0.1
    ) -> None:
        super().__init__(samples, beta)
        in_range("weight", weight, 0, 1)
        at_least("reach", reach, 0)
        self.weight, self.reach = weight, reach

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        near = self.neighbours(step)
        here = self.gradients(gradient, near, step)
        below = near - self.reach * step.pixel_eps * normalize_each(here)
        return here.mean(1).lerp(step.gradients_at(below, step).mean(1), self.weight)


class ExpectedFlatness(Neighbourhood):
    """MEF: the mean gradient at random neighbours, each moved by what its gradients were before.

    Qiu et al., "Boosting Adversarial Transferability with Low-Cost Optimization via Maximin
    Expected Flatness", 2024. Neighbour i is moved by reach·ε · p_i, p_i ← g_i / mean|g_i| −
    decay · p_i: an approximation to the worst point near it without passes of its own. A step
    costs ``samples`` passes. Published with 20 steps and ``Momentum(0.5)``.

    Args:
        samples: this and ``beta`` as in :class:`Neighbourhood`.
        beta: 2 as published.
        reach: of the move, in units of ε.
        decay: of the earlier gradients.
    """

    def __init__(
        self, samples: int = 20, beta: float = 2.0, reach: float = 0.15, decay: float = 0.9
    ) -> None:
        super().__init__(samples, beta)
        at_least("reach", reach, 0)
        at_least("decay", decay, 0)
        self.reach, self.decay = reach, decay

    def offsets(self, step: Step, wanted: range) -> Tensor:
        offsets = super().offsets(step, wanted)
        if "move" not in step.memory[self]:
            return offsets
        move = step.memory[self]["move"][:, wanted.start : wanted.stop]
        return offsets + self.reach * step.pixel_eps * move

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        found = self.gradients(gradient, self.neighbours(step), step)
        before = step.memory[self].get("move", 0)
        step.memory[self]["move"] = normalize_each(found) - self.decay * before
        return found.mean(1)


class GradientRelevance(Part):
    """GRA: the gradient and its mean in a neighbourhood, mixed by their cosine s.

    Zhu et al., "Boosting Adversarial Transferability via Gradient Relevance Attack", ICCV 2023:
    s · g + (1 − s) · mean. As published with ``Momentum()`` and, after it in the list, the decay
    indicator, :class:`~interaction_train.attacks.parts.steps.FlipDecay`. A step costs ``samples``
    + 1 passes.

    Args:
        samples: number of neighbours.
        beta: their distance, as in :class:`Neighbourhood`.
    """

    def __init__(self, samples: int = 20, beta: float = 3.5) -> None:
        whole("samples", samples, 1)
        at_least("beta", beta, 0)
        self.samples, self.beta = samples, beta

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        offsets = step.noise("relevance", self.samples) * (self.beta * step.pixel_eps)
        mean = step.gradients_at(step.point.unsqueeze(1) + offsets, step).mean(1)
        # Two times, as squares of a confident network's gradients may be zero in float32.
        one, other = (normalize(normalize(g, "L1"), "L2") for g in (gradient, mean))
        cosine = (one * other).flatten(1).sum(1).view(-1, *(1 for _ in gradient.shape[1:]))
        return cosine * gradient + (1 - cosine) * mean


def normalize_each(gradients: Tensor) -> Tensor:
    """Gradients ``(B, P, C, H, W)``, each to a mean absolute value of 1."""
    return normalize(gradients.flatten(0, 1), "L1").view_as(gradients)
