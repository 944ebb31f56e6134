"""Layer-wise relevance propagation: the logit, shared out layer by layer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from interaction_train.attributions.backpropagation import relevances
from interaction_train.attributions.functions import (
    ELEMENTWISE,
    MAXIMA,
    MOVES,
    Call,
    Rules,
    is_affine,
    without_rule,
)
from interaction_train.attributions.secant import Slope
from interaction_train.attributions.weighted import weighted
from interaction_train.errors import InputError, in_range
from interaction_train.game.masked import MaskedGame


def lrp_epsilon(game: MaskedGame, epsilon: float = 1e-15) -> Tensor:
    """LRP-ε, ``(B, n)``: z_ij / (z_j ± ε) of an output's relevance goes to an input.

    Deng et al. 2024, (31). The input is that behind :class:`~..game.normalize.Normalize`. On ReLU
    networks, for small ε, it is gradient × input there; biases take their share. With other
    activations it differs from that by much. Activations and max-pooling pass relevance on.

    Raises:
        InputError: an ε that is not positive, a payoff other than ``logit``, a baseline that is not
            0 after ``Normalize``, or a function that has no rule.
    """
    in_range("epsilon", epsilon, 0, float("inf"), above=True)
    return relevances(game, lambda: _Epsilon(epsilon))


def lrp_alpha_beta(game: MaskedGame, alpha: float = 2.0, beta: float = -1.0) -> Tensor:
    """LRP-αβ, ``(B, n)``: positive and other products z_ij share α and β of an output's relevance.

    Deng et al. 2024, (33), with α + β = 1 (α2β−1, elsewhere written as β = 1). Linear layers,
    convolutions and sums follow it, without biases; sums of branches and averages share relevance
    in proportion. Relevance is lost where a group is empty. Table IV's rule holds for one module
    with σ(s) = 0, and (34) with sums over S ⊆ N⁻.

    Raises:
        InputError: numbers that do not sum to 1; else as of :func:`lrp_epsilon`.
    """
    if abs(alpha + beta - 1) > 1e-6:
        raise InputError("beta", beta, f"1 - alpha = {1 - alpha:g}")
    return relevances(game, lambda: _AlphaBeta(alpha, beta))


def deep_taylor(game: MaskedGame) -> Tensor:
    """Deep Taylor's rule z⁺, ``(B, n)``: LRP-αβ with α = 1 and β = 0.

    Deng et al. 2024, (36). Where it holds, and errors: :func:`lrp_alpha_beta`.
    """
    return lrp_alpha_beta(game, 1.0, 0.0)


class _Relevance(Rules):
    """A backward pass of relevances: the gradient of a number is its relevance."""

    def rule(self, call: Call) -> Any:
        if call.name in MOVES or call.name in MAXIMA:  # relevance goes where the number came from
            return call()
        if is_affine(call):
            return call.result(self.affine(call))
        if call.name in ELEMENTWISE and len(call.inputs) == 1:
            return self.activation(call)
        return without_rule(call)

    def activation(self, call: Call) -> Tensor:
        """A function of each element passes relevance on."""
        (z,) = call.inputs
        with torch.no_grad():
            value = call.elementwise()(z)
        return call.result(Slope.apply(z, (value, torch.ones_like(value)), False))

    @abstractmethod
    def affine(self, call: Call) -> Tensor:
        """Shares of each output's relevance in the inputs."""


class _Epsilon(_Relevance):
    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def affine(self, call: Call) -> Tensor:
        value = call.on(*map(_times_itself, call.inputs))
        z = value.detach()
        return _over(value, z, z + torch.where(z < 0, -self.epsilon, self.epsilon))


class _AlphaBeta(_Relevance):
    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def affine(self, call: Call) -> Tensor:
        layer = weighted(call)
        if layer is None:  # in proportion, without what is added
            value = call.on(*map(_times_itself, call.inputs))
            with torch.no_grad():
                constant = call.on(*map(torch.zeros_like, call.inputs))
            return _over(value, value.detach(), value.detach() - constant)
        x = layer.input
        signs = x.detach().clamp(min=0), x.detach().clamp(max=0)
        ups, downs = (Slope.apply(x, (part, part), False) for part in signs)
        more, less = layer.signed(ups, downs)
        with torch.no_grad():
            value = call()
        rest = torch.zeros_like(value)
        return _over(more, value, more.detach(), self.alpha) + _over(
            less, rest, less.detach(), self.beta
        )


def _times_itself(x: Tensor) -> Tensor:
    """The same numbers, whose relevance is their gradient times themselves."""
    copy = x.detach().clone()  # what follows may change either in place
    return Slope.apply(x, (copy, copy.clone()), False)


def _over(z: Tensor, value: Tensor, divisor: Tensor, share: float = 1.0) -> Tensor:
    """Numbers of whose relevance a share is divided on its way to z; none goes on over 0."""
    inverse = torch.where(divisor == 0, 0, share / torch.where(divisor == 0, 1, divisor))
    return Slope.apply(z, (value, inverse), False)
