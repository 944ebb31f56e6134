"""DeepLIFT: multipliers between an input and its baseline, by secants."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.backpropagation import pair_attributions
from interaction_train.attributions.groups import GroupedSecant
from interaction_train.attributions.secant import Secant, halves
from interaction_train.attributions.weighted import Weighted
from interaction_train.game.masked import MaskedGame


def deeplift_rescale(game: MaskedGame) -> Tensor:
    """DeepLIFT with the rule Rescale, ``(B, n)``: every nonlinearity becomes its secant.

    Deng et al. 2024, (38); Shrikumar et al. 2017. The sum is f(x) − f(b) to rounding. Table IV's
    rule κ_i/Σκ holds for one module σ(Wx + s), on which this is the method of integrated gradients;
    for deeper networks it is another one, while completeness and the absence of unrelated effects
    hold for any. What has which rule: :class:`~.secant.Secant`.

    Raises:
        InputError: a payoff other than ``logit``, a function that has no rule (softmax), or a sum
            that misses f(x) − f(b) by more than 1e-4 of Σ|a|, as where a network compares numbers
            of its input.
    """
    return pair_attributions(game, Secant)


def deeplift_reveal_cancel(game: MaskedGame) -> Tensor:
    """DeepLIFT with the rule RevealCancel, ``(B, n)``: positive and negative parts apart.

    Deng et al. 2024, (40): in each module σ(Wx + s) the products W_ij Δx_i > 0 and the others each
    have the mean of two secants, with the other group present and absent. Table IV's rule holds for
    one module; sums and errors as of :func:`deeplift_rescale`, which it equals for quadratic σ, and
    in activations that follow no module (:class:`~.groups.GroupedSecant`).
    """
    return pair_attributions(game, _Signs)


class _Signs(GroupedSecant):
    """Two groups: the positive products, and the others."""

    def split(self, layer: Weighted) -> list[Tensor]:
        high, low = halves(layer.input)
        change = high - low
        rises = change.detach() > 0
        return list(layer.signed(change * rises, change * ~rises))

    def regroup(self, parts: list[Tensor]) -> list[Tensor]:
        rises = [part.detach() > 0 for part in parts]
        positive = [part * up for part, up in zip(parts, rises, strict=True)]
        other = [part * ~up for part, up in zip(parts, rises, strict=True)]
        return [torch.stack(positive).sum(0), torch.stack(other).sum(0)]
