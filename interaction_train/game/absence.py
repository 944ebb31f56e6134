"""What an absent part of the input shows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.normalize import normalize_layer
from interaction_train.game.tokens import special_ids, token_baseline

Baseline = float | list[float] | str
"""What configurations say: a number, one per channel or column, or the path of a saved baseline."""

SUFFIX = ".safetensors"
NO_BASELINE = "numbers, as the network has no Normalize layer to take them from"


def input_baseline(
    model: nn.Module, baseline: float | Sequence[float] | str | Path | None, x: Tensor
) -> Tensor:
    """The baseline for inputs ``x``, as a tensor that broadcasts to them.

    Args:
        model: searched for a ``Normalize`` or ``Standardize`` layer, whose mean is the default; for
            token ids, for what :func:`~interaction_train.game.tokens.token_baseline` takes from it.
        baseline: a number, one number per channel or column, or the ``.safetensors`` file of a
            :class:`~interaction_train.baselines.LearnedBaseline`; of token ids the mask's.
        x: inputs ``(B, C, ...)``, or token ids.

    Raises:
        InputError: no baseline in the model either, one of another shape, one that is not finite,
            a file without one, or no id where inputs are ids.

    Examples:
        >>> import torch
        >>> from interaction_train.models import Normalize
        >>> network = nn.Sequential(Normalize([0.5], [0.25]), nn.Flatten(), nn.Linear(64, 10))
        >>> input_baseline(network, None, torch.rand(2, 1, 8, 8))
        tensor([[[0.5000]]])
    """
    if isinstance(baseline, str | Path):
        if not x.is_floating_point():
            raise InputError("baseline", str(baseline), f"a token's id, as inputs are {x.dtype}")
        stored = read_baseline(baseline).to(x)
        check_fits("baseline", stored, x)
        return stored
    if not (baseline is None or isinstance(baseline, Real | Sequence)):
        expected = f"a number, numbers or the {SUFFIX} file of a learned baseline"
        raise InputError("baseline", f"a {type(baseline).__name__}", expected)
    numbers: Any = baseline if isinstance(baseline, Sequence) else [baseline or 0.0]
    if not all(map(math.isfinite, numbers)):
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


def has_baseline(model: nn.Module) -> bool:
    """Whether a network says what absence is: the training mean, or the mask's id."""
    return default_baseline(model) is not None or special_ids(model) is not None


def read_baseline(path: str | Path, argument: str = "baseline") -> Tensor:
    """The value in a file of a learned baseline, read again only once the file has changed.

    Raises:
        InputError: no such file, or one that holds no baseline.
    """
    try:
        return _read(str(path), os.stat(path).st_mtime_ns)
    except (OSError, SafetensorError, KeyError):
        expected = f"numbers, or an existing {SUFFIX} file of a learned baseline"
        raise InputError(argument, repr(str(path)), expected) from None


@lru_cache(maxsize=8)
def _read(path: str, changed: int) -> Tensor:
    return load_file(path)["value"]


def check_fits(argument: str, value: Tensor, x: Tensor) -> None:
    """Refuse a baseline that does not broadcast to a sample of ``x``, ``(B, ...)``."""
    try:
        value.expand(x.shape[1:])
    except RuntimeError:
        expected = f"one that broadcasts to a sample {tuple(x.shape[1:])}"
        raise InputError(argument, f"shape {tuple(value.shape)}", expected) from None
