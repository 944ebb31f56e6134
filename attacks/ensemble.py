"""Several surrogate models as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, checked_logits, one_of
from interaction_train.game.payoffs import all_logits

Average = Literal["logits", "probabilities", "losses"]


class Ensemble(nn.Module):
    """A weighted mean of models, to attack several at once (Liu et al., ICLR 2017; MI, CVPR 2018).

    Args:
        models: the members, each ``(B, C, H, W)`` in [0, 1] → logits ``(B, classes)``.
        average: ``"logits"``; ``"probabilities"``, then the output is log Σ_k w_k p_k; or
            ``"losses"``, which an attack averages itself (forward then gives the mean logits).
        weights: positive numbers, one per model, kept relative to their sum; default: all equal.

    Shapes:
        ``(B, C, H, W)`` → ``(B, classes)``; half precision gives float32.

    Raises:
        InputError: arguments that do not fit; members without logits of equally many classes.

    Examples:
        >>> from interaction_train.models import DigitsMLP, DigitsNet
        >>> surrogate = Ensemble([DigitsNet(), DigitsMLP()], "probabilities", weights=[3, 1])
        >>> surrogate.weights, surrogate(torch.rand(2, 1, 8, 8)).shape
        ((0.75, 0.25), torch.Size([2, 10]))
    """

    def __init__(
        self,
        models: list[nn.Module],
        average: Average = "logits",
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not models:
            raise InputError("models", "none", "at least one")
        one_of("average", average, ("logits", "probabilities", "losses"))
        weights = [1.0] * len(models) if weights is None else list(weights)
        if len(weights) != len(models) or not all(0 < w < math.inf for w in weights):
            raise InputError("weights", weights, f"{len(models)} positive numbers, one per model")
        self.members = nn.ModuleList(models)
        self.average = average
        self.weights = tuple(weight / math.fsum(weights) for weight in weights)

    def forward(self, x: Tensor) -> Tensor:
        logits = [
            all_logits(checked_logits(member(x), len(x), f"models[{k}]"))
            for k, member in enumerate(self.members)
        ]
        counts = [part.shape[1] for part in logits]
        if len(set(counts)) > 1:
            raise InputError("models", f"outputs of {counts} classes", "equally many of each")
        weighted = zip(logits, self.weights, strict=True)
        if self.average == "probabilities":
            shares = [part.log_softmax(-1) + math.log(weight) for part, weight in weighted]
            return torch.stack(shares).logsumexp(0)
        first, *others = [part * weight for part, weight in weighted]
        return sum(others, first)
