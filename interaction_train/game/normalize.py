"""Normalisation as a network's first layer, so that data keep their own scale outside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, at_least, in_range


class Normalize(nn.Module):
    """(x − mean) / std per channel, the first layer of a network.

    Args:
        mean: the training mean of each of the C channels, for pixels in [0, 1].
        std: the standard deviations.

    Shapes: ``(..., C, H, W)`` → the same; the buffers ``mean`` and ``std`` are ``(C, 1, 1)``.

    Raises:
        InputError: numbers or inputs that do not fit the channels, or a std that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), _moments(mean, std), strict=True):
            self.register_buffer(name, values.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        channels = len(self.mean)
        if x.dim() < 3 or x.shape[-3] != channels:
            raise InputError("x", f"shape {tuple(x.shape)}", f"(..., {channels}, H, W)")
        return (x - self.mean) / self.std


class Standardize(nn.Module):
    """(x − mean) / std per column, the first layer of a network for tables.

    Without numbers it is unfilled: its buffers are NaN until a job's ``TableDataModule``, a
    checkpoint or :meth:`fill` brings those of the training rows.

    Args:
        features: number of columns F.
        mean: the training mean of each column.
        std: the standard deviations.

    Shapes: ``(..., F)`` → the same; the buffers ``mean`` and ``std`` are ``(F,)``.

    Raises:
        InputError: numbers or inputs that do not fit the columns, a std that is not positive; a
            forward pass while unfilled.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        at_least("features", features, 1)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.full((features,), torch.nan))
        self.filled = False
        if mean is not None or std is not None:
            self.fill(mean or (), std or ())

    def fill(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the numbers of the columns, in place."""
        values = _moments(mean, std)
        if len(values[0]) != len(self.mean):
            raise InputError("mean", f"{len(values[0])} numbers", f"{len(self.mean)}, as features")
        self.mean.copy_(values[0])
        self.std.copy_(values[1])
        self.filled = True

    def adapt_to(self, data: Any) -> None:
        """Take what a data module knows of its training rows, once (see InteractionClassifier)."""
        if self.filled or getattr(data, "feature_mean", None) is None:
            return
        if len(data.feature_mean) != len(self.mean):
            names = ", ".join(data.feature_names)
            expected = f"{len(data.feature_mean)}, the columns of the data: {names}"
            raise InputError("features", len(self.mean), expected)
        self.fill(data.feature_mean.tolist(), data.feature_std.tolist())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.filled = not bool(self.std.isnan().any())

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-1] != len(self.mean):
            raise InputError("x", f"shape {tuple(x.shape)}", f"(B, {len(self.mean)})")
        if not self.filled:
            expected = "fill(mean, std), or a fit with a TableDataModule, or a checkpoint, before"
            raise InputError("Standardize", "no mean and std yet", expected)
        return (x - self.mean) / self.std


def _moments(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Both as float32 ``(C,)``, checked."""
    for name, numbers in (("mean", mean), ("std", std)):
        if not isinstance(numbers, Iterable):
            raise InputError(name, numbers, "one number per channel, or column")
    mean, std = tuple(mean), tuple(std)
    for value in mean:
        in_range("mean", value, -float("inf"), float("inf"), above=True, below=True)
    if not mean:
        raise InputError("mean", mean, "one number per channel, or column")
    if len(std) != len(mean):
        raise InputError("std", std, f"{len(mean)} numbers, as many as in mean")
    if not all(0 < value < float("inf") for value in std):
        raise InputError("std", std, "positive numbers")
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def normalized(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Give a network a :class:`Normalize` as first layer ``normalize``, in place; names stay.

    Raises:
        InputError: as :class:`Normalize`, or a network that has a ``normalize``.
    """
    if hasattr(network, "normalize"):
        raise InputError("network", "one with a 'normalize'", "one without")
    layer = Normalize(mean, std)
    if type(network).forward is nn.Sequential.forward:  # runs its layers in their order
        network._modules = {"normalize": layer, **network._modules}
        return network
    network.normalize = layer
    network.register_forward_pre_hook(_normalize_first)
    return network


def _normalize_first(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # A function of the module it is called with, so that copies and pickles of networks work.
    return network.get_submodule("normalize")(inputs[0]), *inputs[1:]


def normalize_layer(network: nn.Module) -> Normalize | Standardize | None:
    """The first :class:`Normalize` or :class:`Standardize` in a network; None without."""
    return next((m for m in network.modules() if isinstance(m, Normalize | Standardize)), None)
