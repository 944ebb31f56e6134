"""What an absent part of the input shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.normalize import normalize_layer
from interaction_train.game.tokens import token_baseline

NO_BASELINE = "numbers, as the network has no Normalize layer to take them from"


def input_baseline(model: nn.Module, baseline: float | Sequence[float] | None, x: Tensor) -> Tensor:
    """The baseline for inputs ``x``, as a tensor that broadcasts to them.

    Args:
        model: searched for a ``Normalize`` layer, whose mean is the default; for token ids, for
            what :func:`~interaction_train.game.tokens.token_baseline` takes from it.
        baseline: a number, or one number per channel; of token ids the mask's.
        x: inputs ``(B, C, ...)``, or token ids.

    Raises:
        InputError: no baseline in the model either, one for another number of channels, or one
            that is not finite, or no id where inputs are ids.

    Examples:
        >>> import torch
        >>> from interaction_train.models import Normalize
        >>> network = nn.Sequential(Normalize([0.5], [0.25]), nn.Flatten(), nn.Linear(64, 10))
        >>> input_baseline(network, None, torch.rand(2, 1, 8, 8))
        tensor([[[0.5000]]])
    """
    given = baseline if isinstance(baseline, Sequence) else [baseline or 0.0]
    if not all(map(math.isfinite, given)):
        raise InputError("baseline", baseline, "finite numbers")
    if not x.is_floating_point():
        if isinstance(baseline, Sequence):
            raise InputError("baseline", baseline, f"a token's id, as the inputs are {x.dtype}")
        return token_baseline(model, baseline, x)
    if baseline is None:
        mean = default_baseline(model)
        if mean is None:
            raise InputError("baseline", None, NO_BASELINE)
    elif isinstance(baseline, Sequence):
        mean = x.new_tensor(list(baseline))
    else:
        return x.new_full((), baseline)
    mean = mean.flatten().to(x)
    if x.dim() < 2 or len(mean) != x.shape[1]:
        raise InputError("baseline", f"{len(mean)} numbers", f"one per channel of {tuple(x.shape)}")
    return mean.view(-1, *(1 for _ in x.shape[2:]))


def default_baseline(model: nn.Module) -> Tensor | None:
    """The training mean ``(C, 1, 1)`` in the model's first ``Normalize`` layer; None without."""
    layer = normalize_layer(model)
    return None if layer is None else layer.mean
