"""Objectives that weigh the members of an ensemble against one another: SVRE, CWA, AdaEA."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.norms import normalize, project, step_and_project
from interaction_train.attacks.objectives import Loss, Objective
from interaction_train.attacks.parts.base import Step
from interaction_train.attacks.problem import Logits, Problem
from interaction_train.errors import InputError, at_least, in_range, whole
from interaction_train.game.evaluation import unwrap


class SVRE(Objective):
    """SVRE: an inner loop over random members, whose gradients the whole ensemble's correct.

    Source: Xiong et al., "Stochastic Variance Reduced Ensemble Adversarial Attack for Boosting the
    Adversarial Transferability", CVPR 2022. Each inner step goes along the momentum of
    g_k(inner) − g_k(x) + g(x), member k's gradients and the ensemble's; the last momentum is the
    gradient of the outer step, which :class:`Momentum` makes the published one. Parts that refine
    the gradient refine g(x). The members are drawn per step, the same for all samples.

    Args:
        loss: as in :class:`Objective`.
        updates: inner steps; default: 4 per member.
        beta: their size in units of the attack's step size.
        decay: of the inner momentum.

    Raises:
        InputError: on a call, a surrogate that is no :class:`Ensemble`.
    """

    def __init__(
        self,
        loss: Loss = "cross_entropy",
        updates: int | None = None,
        beta: float = 1.0,
        decay: float = 1.0,
    ) -> None:
        super().__init__(loss)
        if updates is not None:
            whole("updates", updates, 1)
        at_least("beta", beta, 0)
        at_least("decay", decay, 0)
        self.updates, self.beta, self.decay = updates, beta, decay

    def gradient(self, problem: Problem, point: Tensor, step: Step) -> Tensor:
        members = _members(problem)
        whole = super().gradient(problem, point, step)
        anchors: dict[int, Tensor] = {}
        inner, momentum = point, torch.zeros_like(point)
        for k in self.chosen(step, len(members)):
            if k not in anchors:
                anchors[k] = members[k].at(point, step)
            gradient = members[k].at(inner, step) - anchors[k] + whole
            momentum = self.decay * momentum + normalize(gradient, "L1")
            inner = step_and_project(
                inner, momentum, step.clean, step.norm, step.eps, self.beta * step.alpha
            )
        return momentum

    def chosen(self, step: Step, count: int) -> list[int]:
        """The members of a step's inner loop, by number."""
        updates = 4 * count if self.updates is None else self.updates
        # Drawn on the CPU, so that nothing is read back from a device.
        draws = replace(step.draws, content=torch.zeros(1, dtype=torch.int64))
        found: list[int] = (draws.uniform("member", updates)[0] * count).long().tolist()
        return found


class CWA(Objective):
    """CWA: towards points where members agree and losses are flat (SAM and cosine similarity).

    Source: Chen et al., "Rethinking Model Ensemble in Transfer-based Adversarial Attacks", ICLR
    2024, MI-CWA. A step against the ensemble's gradient, then one along the momentum of every
    member's in turn; where that leads is the direction of the outer step, which :class:`Momentum`
    makes the published one. Parts that refine the gradient refine the ensemble's.

    Args:
        loss: as in :class:`Objective`.
        reverse: size of the first step, in units of ε.
        inner: of the others, along gradients with a root mean square of 1, in units of ε as
            :class:`RandomNoise` has it. The published 250, along gradients of length 1, is 10.3
            at 224 × 224 pixels and ε = 16/255.
        decay: of the members' momentum, which lasts over the steps.

    Raises:
        InputError: on a call, a surrogate that is no :class:`Ensemble`.
    """

    def __init__(
        self,
        loss: Loss = "cross_entropy",
        reverse: float = 1 / 15,
        inner: float = 10.3,
        decay: float = 1.0,
    ) -> None:
        super().__init__(loss)
        for argument, value in (("reverse", reverse), ("inner", inner), ("decay", decay)):
            at_least(argument, value, 0)
        self.reverse, self.inner, self.decay = reverse, inner, decay

    def gradient(self, problem: Problem, point: Tensor, step: Step) -> Tensor:
        whole = super().gradient(problem, point, step)
        clean, norm, eps = step.clean, step.norm, step.eps
        inner = step_and_project(point, -whole, clean, norm, eps, self.reverse * eps)
        momentum = step.memory[self].get("momentum", 0)
        root = clean[0].numel() ** 0.5
        for member in _members(problem):
            momentum = self.decay * momentum + root * normalize(member.at(inner, step), "L2")
            inner = project(inner + self.inner * step.pixel_eps * momentum, clean, norm, eps)
        step.memory[self]["momentum"] = momentum
        return inner - point


class AdaEA(Objective):
    """AdaEA: members weigh more whose own attack fools the others; pixels in dispute stay.

    Source: Chen et al., "An Adaptive Model Ensemble Adversarial Attack for Boosting Adversarial
    Transferability", ICCV 2023. Per sample and step, member j has the weight
    softmax_j(β·Σ_{i≠j} L_i(x_j) / L_i(x_i)), with L_i the cross entropy of member i and x_j one
    step along member j's gradient (targeted: the inverse ratio). The gradient is that of the loss
    of the weighted mean logits, 0 at pixels where the cosine of the members' gradients over
    channels, meaned over all pairs (the released code forgets most), is below the threshold. A step
    costs two backward passes of each member, and its forward pass at each x_j.

    Args:
        loss: as in :class:`Objective`; weights are the cross entropy's in any case.
        beta: β.
        threshold: in [−1, 1]; −1 leaves all pixels in.

    Raises:
        InputError: on a call, a surrogate that is no :class:`Ensemble` of two or more; no images.
    """

    def __init__(
        self, loss: Loss = "cross_entropy", beta: float = 10.0, threshold: float = -0.3
    ) -> None:
        super().__init__(loss)
        at_least("beta", beta, 0)
        in_range("threshold", threshold, -1, 1)
        self.beta, self.threshold = beta, threshold

    def gradient(self, problem: Problem, point: Tensor, step: Step) -> Tensor:
        if point.dim() != 4:
            raise InputError("images", f"shape {tuple(point.shape)}", "(B, C, H, W), for AdaEA")
        members = _members(problem)
        if len(members) < 2:
            raise InputError("model", "an Ensemble of one", "two members or more, for AdaEA")
        gradients = [member.at(point, step) for member in members]
        weights = self._weights(problem, members, point, gradients, step)

        def value(logits: Logits) -> Tensor:
            parts = [w.view(-1, 1, 1) * out for w, out in zip(weights, logits, strict=True)]
            total = torch.stack(parts).sum(0)
            return self.value(total, step.labels, step.targeted) / len(step.labels)

        together = problem.on([network for member in members for network in member.networks])
        gradient = problem.refined(together.at(point, step, value), step)
        return gradient * (agreement(torch.stack(gradients)) >= self.threshold)

    def _weights(
        self,
        problem: Problem,
        members: list[Problem],
        point: Tensor,
        gradients: list[Tensor],
        step: Step,
    ) -> Tensor:
        """Of the members per sample, ``(K, B)``, with sum 1."""
        moved = [
            step_and_project(point, gradient, step.clean, step.norm, step.eps, step.alpha)
            for gradient in gradients
        ]

        def loss(member: Problem, images: Tensor) -> Tensor:
            rows = member.logits(
                lambda leaf, _: problem.changed(leaf.unsqueeze(1), step), images, range(1)
            )
            found = F.cross_entropy(rows[0][:, 0].detach(), step.labels, reduction="none")
            return found.clamp(min=torch.finfo(found.dtype).tiny ** 0.5)

        # losses[i, j]: member i's at the step along member j's gradient
        losses = torch.stack([torch.stack([loss(m, x) for x in moved]) for m in members])
        own = losses.diagonal().T.unsqueeze(1)
        ratio = own / losses if step.targeted else losses / own
        # With the term i = j, which is 1 for all.
        return (self.beta * ratio.sum(0)).softmax(0)


def agreement(gradients: Tensor) -> Tensor:
    """Of gradients ``(K, B, C, H, W)`` the mean cosine over pairs, ``(B, 1, H, W)``."""
    unit = F.normalize(gradients, dim=2)
    together = unit.sum(0).square().sum(1, keepdim=True)
    alone = unit.square().sum((0, 2)).unsqueeze(1)
    return (together - alone) / (len(gradients) * (len(gradients) - 1))


def _members(problem: Problem) -> list[Problem]:
    """The problem on every member alone."""
    surrogate = unwrap(problem.attack.model)
    if not isinstance(surrogate, Ensemble):
        name = type(problem.attack.objective).__name__
        raise InputError("model", type(surrogate).__name__, f"an Ensemble, for {name}")
    return [problem.on([(member, 1.0)]) for member in surrogate.members]
