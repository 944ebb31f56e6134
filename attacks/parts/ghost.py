"""Ghost networks: in every step another network, eroded at random, in place of the surrogate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.hooks import hooked, networks_of
from interaction_train.attacks.parts.skip import residual_blocks
from interaction_train.errors import InputError, in_range, whole
from interaction_train.game.function_mode import FunctionMode


class GhostNetwork(Part):
    """In every step a network with dropout after activations, or with rescaled skip connections.

    Source: Li et al., "Learning Transferable Adversarial Examples via Ghost Networks", AAAI 2020;
    dropout is theirs for Inceptions (1.2 % of Inception-v3), skip connections for ResNets (0.22).
    Each sample has one ghost per step and copy, also for all its masked images and for the copies
    of other parts. Units are dropped independently from pair to pair: a draw of their channel plus
    one of their place, modulo 1, decides, at a fraction of the cost of a draw per unit.

    Args:
        dropout: share of units dropped after every activation (gates aside), in [0, 1).
        skip: Λ in [0, 1); blocks x + F(x) become λ·x + F(x), λ uniform in 1 ± Λ, where
            :func:`residual_branches` finds a single branch, and a ReLU or nothing follows the sum.
        copies: number of ghosts per step, over which the gradient is meaned.

    Raises:
        InputError: neither dropout nor skip; on a call, a network without what they change.
    """

    shared = True

    def __init__(self, dropout: float = 0.012, skip: float = 0.0, copies: int = 1) -> None:
        for argument, value in (("dropout", dropout), ("skip", skip)):
            in_range(argument, value, 0, 1)
            if value == 1:
                raise InputError(argument, value, "less than 1")
        if not dropout and not skip:
            raise InputError("dropout", "0, and 0 as skip", "one of them above 0")
        whole("copies", copies, 1)
        self.dropout, self.skip, self.copies = dropout, skip, copies
        self._erosion: Erosion | None = None  # while an attack runs

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        if self._erosion is not None:
            self._erosion.draw = partial(_flat_draws, step, copy)
        return rows

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        erosion = Erosion(self.dropout, self.skip)
        before: list[tuple[nn.Module, Callable[..., Any]]] = []
        after = list(before)
        for index, network in enumerate(networks_of(model)):
            before.append((network, partial(erosion.begin, index)))
            after.append((network, erosion.end))
            for number, (block, branch) in enumerate(_blocks(network) if self.skip else ()):
                name = f"skip {index} {number}"
                after.append((branch, partial(erosion.scale, name, -1)))
                after.append((block, partial(erosion.scale, name, 1)))
        self._erosion = erosion
        try:
            with hooked(model, after, before), erosion:
                yield
        finally:
            self._erosion = None


class Erosion(FunctionMode):
    """Drops units after activations, and has hooks that scale, as ``draw(name, size)`` says.

    That gives uniform numbers ``(rows of a pass, size)``; before the first draws nothing changes.
    """

    draw: Callable[[str, int], Tensor] | None = None

    def __init__(self, dropout: float, skip: float) -> None:
        super().__init__()
        self.dropout, self.skip = dropout, skip
        self.network, self.found = 0, 0

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        output = function(*args, **kwargs)
        if not self.dropout or function not in _ACTIVATIONS or self.draw is None:
            return output
        self.found += 1
        name = f"dropout {self.network} {self.found} "
        channels = self.draw(f"{name} channel", output.shape[1] if output.dim() > 1 else 1)
        rows = len(channels)
        if len(output) % rows:
            got = f"activations of {len(output)} rows for {rows} images"
            raise InputError("model", got, "a whole number of rows per image, for GhostNetwork")
        # Windows of an image, if they are rows, count as places.
        parts = output.reshape(rows, len(output) // rows, channels.shape[1], -1)
        places = self.draw(f"{name} place", parts.shape[1] * parts.shape[3])
        places = places.view(rows, parts.shape[1], 1, parts.shape[3])
        kept = (places + channels[:, None, :, None]) % 1 >= self.dropout
        return (parts * kept.to(output) / (1 - self.dropout)).view(output.shape)

    def begin(self, network: int, *_: Any) -> None:
        self.network, self.found = network, 0

    def end(self, network: nn.Module, *_: Any) -> None:
        if self.dropout and self.draw is not None and not self.found:
            kind = type(network).__name__
            raise InputError("model", kind, "activations such as ReLU or GELU, for GhostNetwork")

    def scale(self, name: str, power: int, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        """Of a branch by 1/λ and of its block by λ: λ·(x + F(x)/λ), also below a ReLU."""
        if self.draw is None:
            return output
        factor = 1 + self.skip * (2 * self.draw(name, 1).to(output) - 1)
        return output * (factor**power).view(-1, *(1 for _ in output.shape[1:]))


def _flat_draws(step: Step, copy: Tensor, name: str, size: int) -> Tensor:
    return step.draws.uniform(f"ghost {name}", copy, size).flatten(0, 1)


def _blocks(network: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Residual blocks with one branch, and the modules that this runs through."""
    modules, kind = dict(network.named_modules()), type(network).__name__
    found = residual_blocks(network)
    several = [name for name, branches in found.items() if len(branches) > 1]
    if several or not found:
        got = f"{kind} with several branches in {several[0]!r}" if several else kind
        raise InputError("model", got, "residual blocks of a known kind with one branch each")
    for name in found:
        for child in modules[name].children():
            if type(child) in _NOT_HOMOGENEOUS:
                got = f"{name!r} of {kind} with {type(child).__name__}"
                raise InputError("model", got, "residual blocks with ReLUs, for skip")
    return [(modules[name], modules[branch]) for name, (branch,) in found.items()]


_NOT_HOMOGENEOUS = {nn.SiLU, nn.GELU, nn.Mish, nn.ELU, nn.Hardswish, nn.ReLU6, nn.Hardtanh}
_ACTIVATIONS = {
    *(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh),
    *(F.gelu, F.silu, F.mish, F.hardswish, F.elu, F.selu, F.celu, F.leaky_relu, F.softplus),
}
