"""A part that changes what flows through a named layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.hooks import hooked, layers_of, networks_of
from interaction_train.errors import InputError, at_least, in_range, whole


class IntermediatePerturbationDecay(Part):
    """ILPD: a layer gives γ·h(adversarial) + (1 − γ)·h(clean + noise), also to the gradient.

    Source: Li et al., "Improving Adversarial Transferability via Intermediate-level Perturbation
    Decay", NeurIPS 2023. The clean images take the way of the adversarial ones, through all parts
    that change copies; every pass of these costs a forward pass more.

    Args:
        layer: dotted name, such as ``"layer2.3"`` of a ResNet-50; of an :class:`Ensemble` one for
            all members, or one each.
        gamma: γ in (0, 1]; 1 changes nothing.
        noise: standard deviation of the normal noise, in units of ε as in :class:`RandomNoise`; the
            published 0.05 is 1.6 times 8/255.
        copies: number of noises per step, over which the gradient is meaned.

    Raises:
        InputError: on a call, an unknown layer, or one that a forward pass does not call once.
    """

    shared = compares = True

    def __init__(
        self, layer: str | Sequence[str], gamma: float = 0.1, noise: float = 1.6, copies: int = 1
    ) -> None:
        in_range("gamma", gamma, 0, 1, above=True)
        at_least("noise", noise, 0)
        whole("copies", copies, 1)
        self.layer, self.gamma, self.noise, self.copies = layer, gamma, noise, copies

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        if torch.is_grad_enabled():  # not the clean images
            return rows
        noise = step.draws.normal("decay", copy, rows[0, 0].numel()).view_as(rows)
        return rows + self.noise * step.pixel_eps * noise.to(rows)

    def around(self, model: nn.Module) -> AbstractContextManager[None]:
        layers = dict(zip(networks_of(model), layers_of(model, self.layer), strict=True))
        clean: dict[nn.Module, Tensor] = {}
        once = "a layer that a forward pass calls once, with one tensor as output"

        def decay(layer: nn.Module, _: Any, output: Any) -> Tensor | None:
            if not isinstance(output, Tensor):
                raise InputError("layer", f"{self.layer!r} of {type(output).__name__}", once)
            if not torch.is_grad_enabled():
                clean[layer] = output.clone()  # an in-place operation may follow
                return None
            if layer not in clean:
                raise InputError("layer", f"{self.layer!r}, called several times", once)
            return self.gamma * output + (1 - self.gamma) * clean.pop(layer)

        def check(network: nn.Module, _: Any, __: Any) -> None:
            if not torch.is_grad_enabled() and layers[network] not in clean:
                raise InputError("layer", f"{self.layer!r}, which is never called", once)

        hooks = [(layer, decay) for layer in layers.values()]
        return hooked(model, [*hooks, *((network, check) for network in layers)])
