"""Linear backpropagation: from a layer on, gradients pass ReLUs as if these were not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from interaction_train.attacks.parts.base import Part
from interaction_train.attacks.parts.ghost import Erosion
from interaction_train.attacks.parts.hooks import hooked, layers_of, networks_of
from interaction_train.attacks.parts.skip import residual_blocks
from interaction_train.errors import InputError
from interaction_train.game.function_mode import FunctionMode


class LinearBackpropagation(Part):
    """LinBP: from a layer on, the gradient passes ReLUs unchanged; forwards nothing changes.

    Source: Guo, Li, Chen, "Backpropagating Linearly Improves Transferability of Adversarial
    Examples", NeurIPS 2020. ReLU and ReLU6 are found however they are called. As in the authors'
    code, the ReLU after the sum of a residual block stays as it is, and the linear gradient of a
    branch is brought to the length of the real one, per sample: in blocks of the kinds that
    :func:`residual_branches` knows with one branch. Others are like any layers.

    Args:
        layer: dotted name of the first layer with linear ReLUs, such as ``"layer3.1"`` of a
            ResNet-50; of an :class:`Ensemble` one for all members, or one each; None: the network.
        rescale: whether branches are rescaled, at two more backward passes through each.

    Raises:
        InputError: on a call, an unknown layer; no ReLU from there on; :class:`GhostNetwork` before
            this part, whose dropout gradients would not pass.
    """

    def __init__(self, layer: str | Sequence[str] | None = None, rescale: bool = True) -> None:
        self.layer, self.rescale = layer, rescale

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        if any(isinstance(mode, Erosion) for mode in FunctionMode.entered):
            got = "LinearBackpropagation after GhostNetwork"
            raise InputError("parts", got, "LinearBackpropagation before it")
        networks = networks_of(model)
        starts = networks if self.layer is None else layers_of(model, self.layer)
        mode = _LinearReLU()
        before: list[tuple[nn.Module, Callable[..., Any]]] = []
        after = list(before)
        for network, start in zip(networks, starts, strict=True):
            before += [(network, mode.reset), (start, mode.begin)]
            modules = dict(network.named_modules())
            for name, branches in residual_blocks(network).items():
                if len(branches) == 1:
                    branch = _Branch(mode, name, self.rescale)
                    before.append((modules[name], branch.begin))
                    after.append((modules[branches[0]], branch.end))
                    after.append((modules[name], branch.leave))
            after.append((network, partial(mode.check, self.layer)))
        with hooked(model, after, before), mode:
            yield


class _LinearReLU(FunctionMode):
    """Replaces ReLUs by linear ones, between :meth:`begin` and the end of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0
        self.begun = self.added = False  # whether the block's sum has been taken
        self.real = False  # whether the gradient is the real one, for the moment

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if self.begun and function in _RELUS:
            x, top, inplace = _RELUS[function](*args, **kwargs)
            if top is not None:
                self.found += 1
                if not self.added:
                    return _Linear.apply(x, top, inplace, self)
        return function(*args, **kwargs)

    def reset(self, *_: Any) -> None:
        self.found, self.begun, self.added = 0, False, False

    def begin(self, *_: Any) -> None:
        self.begun = True

    def check(self, layer: object, network: nn.Module, *_: Any) -> None:
        self.begun = False
        if not self.found:
            where = "" if layer is None else f" from {layer!r} on"
            raise InputError("model", type(network).__name__, f"ReLUs{where}, for LinBP")


class _Branch:
    """Hooks of a residual block with one branch."""

    def __init__(self, mode: _LinearReLU, name: str, rescale: bool) -> None:
        self.mode, self.name, self.rescale = mode, name, rescale
        self.source: tuple[Tensor, int] | None = None

    def begin(self, _: nn.Module, args: tuple[Any, ...], __: Any) -> None:
        x = args[0]
        inside = self.rescale and self.mode.begun and x.requires_grad
        self.source = (x, x._version) if inside else None

    def end(self, _: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        self.mode.added = True
        if self.source is None:
            return None
        x, version = self.source
        if x._version != version:
            got = f"{self.name!r}, which changes its input in place"
            raise InputError("model", got, "another block, or rescale=False")
        return _Rescaled.apply(x, output, get_gradient_edge(x), self.mode)

    def leave(self, *_: Any) -> None:
        self.mode.added, self.source = False, None


class _Linear(torch.autograd.Function):
    """A ReLU, cut at ``top``, whose gradient is that of the identity unless the mode says real."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float, inplace: bool, mode: _LinearReLU) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        y = x.clamp_(0, top) if inplace else x.clamp(0, top)
        ctx.save_for_backward(y)
        ctx.top, ctx.mode = top, mode
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,), (y,) = gradients, ctx.saved_tensors
        if ctx.mode.real:
            gradient = gradient * ((y > 0) & (y < ctx.top))
        return gradient, None, None, None


class _Rescaled(torch.autograd.Function):
    """A branch's output whose linear gradient has the length of the real one, per sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, edge: GradientEdge, mode: _LinearReLU) -> Any:
        # As an input, the branch stays in the graph that SGM looks through.
        ctx.branch, ctx.edge, ctx.mode = get_gradient_edge(branch), edge, mode
        return branch.clone()  # an in-place sum may follow

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        found = []
        for real in (True, False):
            ctx.mode.real = real
            found += torch.autograd.grad(ctx.branch, ctx.edge, gradients[0], retain_graph=True)
        wanted, size = (g.flatten(1).float().norm(dim=1) for g in found)
        share = wanted / torch.where(size == 0, 1, size)
        return found[1] * share.to(found[1]).view(-1, *(1 for _ in found[1].shape[1:])), *4 * (
            None,
        )


Call = tuple[Tensor, float | None, bool]  # the input, where the output is cut, whether in place


def _relu(input: Tensor, inplace: bool = False) -> Call:
    return input, torch.inf, inplace


def _relu6(input: Tensor, inplace: bool = False) -> Call:
    return input, 6.0, inplace


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Call:
    return input, None if min_val else max_val, inplace


_RELUS: dict[Callable[..., Any], Callable[..., Call]] = {
    F.relu: _relu,
    torch.relu: _relu,
    torch.relu_: partial(_relu, inplace=True),
    Tensor.relu: _relu,
    Tensor.relu_: partial(_relu, inplace=True),
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
}
