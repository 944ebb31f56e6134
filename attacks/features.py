"""Objectives at a hidden layer: the features that the clean image's class rests on are lessened."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.attacks.norms import normalize
from interaction_train.attacks.objectives import Objective
from interaction_train.attacks.parts.base import Step
from interaction_train.attacks.parts.hooks import hooked, layers_of, networks_of
from interaction_train.attacks.problem import Problem, Rows
from interaction_train.errors import InputError, at_least, in_range, whole
from interaction_train.game.evaluation import without_grad


class FeatureObjective(Objective):
    """What objectives at a layer share: Σ importance(F), over features F, is lowered.

    Targeted, with the target's weights, it is raised. Subclasses say in :meth:`prepare` which rows
    the weights are found on.
    """

    def __init__(self, layer: str | Sequence[str]) -> None:
        self.layer = layer
        # While an attack runs, by layer: features of the present pass, their weights and origins.
        self._features: dict[nn.Module, Tensor] = {}
        self._weights: dict[nn.Module, Tensor] = {}
        self._origins: dict[nn.Module, Tensor] = {}

    @abstractmethod
    def prepare(self, problem: Problem, step: Step) -> None:
        """Find the weights on clean images, with :meth:`weigh`."""

    def importance(self, features: Tensor, layer: nn.Module) -> Tensor:
        """Of features ``(B, k, ...)`` of a layer."""
        return features * self._weights[layer].unsqueeze(1)

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        before: list[tuple[nn.Module, Callable[..., Any]]] = []
        after = list(before)
        for network, layer in zip(networks_of(model), layers_of(model, self.layer), strict=True):
            before.append((network, partial(self._begin, layer)))
            after += [(layer, self._keep), (network, partial(self._check, layer))]
        try:
            with hooked(model, after, before):
                yield
        finally:
            self._features, self._weights, self._origins = {}, {}, {}

    def _begin(self, layer: nn.Module, *_: Any) -> None:
        self._features.pop(layer, None)

    def _keep(self, layer: nn.Module, _: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or layer in self._features:
            got = f"{self.layer!r}, called several times or without one tensor as output"
            raise InputError("layer", got, "a layer that a forward pass calls once")
        self._features[layer] = output
        return output.clone()  # an in-place operation may follow

    def _check(self, layer: nn.Module, _: nn.Module, __: Any, logits: Any) -> None:
        if layer not in self._features:
            got = f"{self.layer!r}, which is never called"
            raise InputError("layer", got, "a layer that a forward pass calls once")
        if isinstance(logits, Tensor) and len(self._features[layer]) != len(logits):
            got = f"{self.layer!r}, with {len(self._features[layer])} rows for {len(logits)} images"
            raise InputError("layer", got, "a layer with a row per image")

    def begin(self, problem: Problem, step: Step) -> None:
        if not self._weights:
            self.prepare(problem, step)

    def value(self, logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
        total = logits.new_zeros(())
        for layer, weights in self._weights.items():
            features = self._features[layer].to(weights).unflatten(0, logits.shape[:2])
            total = total + self.importance(features, layer).sum()
        return total if targeted else -total

    def weigh(
        self, problem: Problem, rows: Rows, count: int, score: Callable[[Tensor], Tensor]
    ) -> None:
        """Set the weights to the label's score's gradients, summed over rows, of length 1."""
        width = problem.width(len(problem.clean), count)
        for first in range(0, count, width):
            wanted = range(count)[first : first + width]
            logits = problem.logits(rows, problem.clean.clone().requires_grad_(), wanted)
            label = problem.labels.view(-1, 1, 1)
            sums = [score(out).take_along_dim(label, 2).sum() for out in logits]
            found = torch.autograd.grad(problem.mean(sums), list(self._features.values()))
            for layer, gradient in zip(self._features, found, strict=True):
                part = gradient.to(problem.clean).unflatten(0, logits[0].shape[:2]).sum(1)
                self._weights[layer] = self._weights.get(layer, 0) + part
        self._weights = {layer: normalize(w, "L2") for layer, w in self._weights.items()}


class FeatureImportance(FeatureObjective):
    """FIA: lowers Σ Δ·F, the features weighed by the class's mean gradient on masked clean images.

    Source: Wang et al., "Feature Importance-aware Transferable Adversarial Attacks", ICCV 2021.
    Δ, of length 1 per sample and layer, is the gradient of the label's logit with respect to the
    features F, meaned in the first step over clean images with values set to 0 at random.

    Args:
        layer: dotted name, such as ``"layer2"``; of an :class:`Ensemble` one for all members, or
            one each, whose sums are added up.
        draws: number of masked images.
        drop: share of the values set to 0.

    Raises:
        InputError: on a call, an unknown layer, or one that a forward pass does not call once.
    """

    def __init__(self, layer: str | Sequence[str], draws: int = 30, drop: float = 0.3) -> None:
        super().__init__(layer)
        whole("draws", draws, 1)
        in_range("drop", drop, 0, 1)
        self.draws, self.drop = draws, drop

    def prepare(self, problem: Problem, step: Step) -> None:
        size = problem.clean[0].numel()

        def masked(clean: Tensor, wanted: range) -> Tensor:
            kept = step.draws.uniform("importance", wanted, size) >= self.drop
            rows = clean.unsqueeze(1)
            return rows * kept.view(*kept.shape[:2], *clean.shape[1:]).to(rows)

        self.weigh(problem, masked, self.draws, lambda logits: logits)


class NeuronAttribution(FeatureObjective):
    """NAA: lowers the features' attributions, integrated from a black to the clean image.

    Source: Zhang et al., "Improving Adversarial Transferability via Neuron Attribution-Based
    Attacks", CVPR 2022. A feature F has the attribution A = (F − F at the black image)·w, where w,
    of length 1 per sample and layer, is the label's probability's gradient with respect to the
    features, meaned along the straight line. What counts is Σ max(A, 0) − γ·Σ max(−A, 0).

    Args:
        layer: as in :class:`FeatureImportance`.
        points: number of images on the line: m/points of the clean one, from m = 0 on.
        gamma: γ, at least 0.

    Raises:
        InputError: as :class:`FeatureImportance` does.
    """

    def __init__(self, layer: str | Sequence[str], points: int = 30, gamma: float = 1.0) -> None:
        super().__init__(layer)
        whole("points", points, 1)
        at_least("gamma", gamma, 0)
        self.points, self.gamma = points, gamma

    def prepare(self, problem: Problem, step: Step) -> None:
        def along(clean: Tensor, wanted: range) -> Tensor:
            share = torch.tensor(wanted, device=clean.device).to(clean) / self.points
            return clean.unsqueeze(1) * share.view(-1, *(1 for _ in clean.shape[1:]))

        self.weigh(problem, along, self.points, lambda logits: logits.softmax(-1))
        with without_grad():
            problem.logits(along, problem.clean, range(1))
        self._origins = {layer: f.to(problem.clean) for layer, f in self._features.items()}

    def importance(self, features: Tensor, layer: nn.Module) -> Tensor:
        attributed = super().importance(features - self._origins[layer].unsqueeze(1), layer)
        return torch.where(attributed > 0, attributed, self.gamma * attributed)
