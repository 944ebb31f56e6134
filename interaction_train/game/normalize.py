"""Normalisation as a network's first layer, so that pixels are in [0, 1] everywhere outside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError


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
        mean, std = tuple(mean), tuple(std)
        if not mean:
            raise InputError("mean", mean, "one number per channel")
        if len(std) != len(mean):
            raise InputError("std", std, f"{len(mean)} numbers, as many as in mean")
        if not all(0 < value < float("inf") for value in std):
            raise InputError("std", std, "positive numbers")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        channels = len(self.mean)
        if x.dim() < 3 or x.shape[-3] != channels:
            raise InputError("x", f"shape {tuple(x.shape)}", f"(..., {channels}, H, W)")
        return (x - self.mean) / self.std


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


def normalize_layer(network: nn.Module) -> Normalize | None:
    """The first :class:`Normalize` in a network; None without."""
    return next((m for m in network.modules() if isinstance(m, Normalize)), None)
