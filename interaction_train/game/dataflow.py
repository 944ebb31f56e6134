"""Whether all that follows a layer depends on the network's input through that layer alone.

The input is followed through every operation of a forward pass in which the layer's output is cut
off, so the answer rests on no weights and no values: zero-initialised gates, dead units, masks,
comparisons and integer inputs hide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interaction_train.errors import InputError
from interaction_train.game.evaluation import Network, evaluation_mode, without_grad
from interaction_train.game.function_mode import Function, FunctionMode

# These read the shape of a tensor, and not its numbers.
_SHAPE_ONLY = {
    f"aten::{name}"
    for name in (
        "empty_like", "full_like", "new_empty", "new_empty_strided", "new_full", "new_ones",
        "new_zeros", "ones_like", "zeros_like",
    )
}  # fmt: skip
_HOST_READS = {Tensor.tolist, Tensor.numpy, Tensor.__array__}
_FAILURES = (RuntimeError, ValueError, AssertionError, IndexError)


class _Flow(TorchDispatchMode):
    """Marks what depends on the input, by storage: a view of a marked tensor is marked too."""

    def __init__(self, source: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._marked = {_storage(source)}
        self._alive: list[Tensor] = []  # so that no storage is freed and another gets its number
        self.host_reads: set[bool] = set()  # of numbers that depend on the input, and of others
        self.later: list[tuple[object, ...]] | None = None  # operations after the cut

    def depends(self, *values: object) -> bool:
        """Whether one of the tensors in these values depends on the input."""
        return any(_storage(t) in self._marked for t in _tensors(values))

    def cut(self, output: Tensor) -> Tensor:
        """A copy that counts as independent of the input; from here on operations are listed."""
        copy = output.clone()
        self._alive.append(copy)
        self._marked.discard(_storage(copy))
        self.later = []
        return copy

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        dependent = self.depends(args, kwargs)
        result = func(*args, **kwargs)
        outputs = _tensors(result)
        self._alive += outputs
        schema = func._schema
        if (not outputs and schema.returns) or torch.Tag.dynamic_output_shape in func.tags:
            self.host_reads.add(dependent)
        if dependent and schema.name not in _SHAPE_ONLY:
            for place, argument in enumerate(schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    given = args[place] if place < len(args) else kwargs.get(argument.name)
                    outputs += _tensors(given)
            self._alive += outputs
            self._marked.update(map(_storage, outputs))
        elif self.later is not None:
            scalars = [v for v in tree_leaves((args, kwargs)) if not isinstance(v, Tensor)]
            self.later.append((schema.name, repr(scalars)))
        return result


class _Reads(FunctionMode):
    """Tells a flow of the reads that make no operation."""

    def __init__(self, flow: _Flow) -> None:
        super().__init__()
        self.flow = flow

    def call(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if function in _HOST_READS:
            self.flow.host_reads.add(self.flow.depends(args[0]))
        return function(*args, **kwargs)


def _tensors(values: object) -> list[Tensor]:
    return [v for v in tree_leaves(values) if isinstance(v, Tensor)]


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse and nested tensors have none
        return id(tensor)


def check_layer(
    model: nn.Module, layer: str, module: nn.Module, x: Tensor, extra: Mapping[str, Tensor]
) -> bool:
    """Refuse a layer whose output must not be replaced while the prefix runs on a token of x.

    Or cannot be shown to; the message names a layer to take instead. Returns whether the answer
    stands for good: no number that was read on the host steers the network. On the further inputs
    ``extra`` everything may depend.
    """
    with evaluation_mode(model), without_grad(), torch.autocast(x.device.type, enabled=False):
        pair = _two_different(x)
        rest = {name: one[:1].expand(2, *one.shape[1:]) for name, one in extra.items()}
        run = partial(model, **rest)
        problem, flow = _problem(run, module, pair)
        if problem:
            later = _modules_after(model, run, module, pair)
            hint = next((name for name, m in later if not _problem(run, m, pair)[0]), None)
            expected = "one that all later computation depends on alone"
            expected += f"; try {hint!r}" if hint else "; or give suffix="
            raise InputError("layer", f"{layer!r}, {problem}", expected)
    return not flow.host_reads


def _two_different(x: Tensor) -> Tensor:
    if len(x) > 1 and not torch.equal(x[0], x[-1]):
        return torch.stack([x[0], x[-1]])
    other = 1 - x[:1] + 0.125 if x.is_floating_point() else x[:1].flip(-1)
    return torch.cat([x[:1], other])


def _problem(model: Network, module: nn.Module, pair: Tensor) -> tuple[str | None, _Flow]:
    """Why replacing this layer's output would be wrong; None where it is right."""
    found: list[Any] = []

    def plain(flow: _Flow, output: Any) -> Any:
        found.append(output)
        if not isinstance(output, Tensor) or output.is_nested or output.shape[:1] != pair.shape[:1]:
            return output
        found[-1] = output.clone()
        return flow.cut(output)

    expected, whole = _run(model, module, pair, plain)
    if len(found) != 1:
        return f"which the forward pass calls {len(found)} times", whole
    if whole.later is None:
        return "whose output is no tensor (B, ...)", whole
    another = "after which the network still depends on the input by another way"
    if whole.depends(expected):
        return another, whole
    if True in whole.host_reads:
        return "of a network whose control flow reads numbers of the input", whole
    batch = "after which the network uses the input's batch size"
    try:
        replaced, token = _run(model, module, pair[:1], lambda flow, _: flow.cut(found[0]))
    except _FAILURES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"{batch} ({reason})", whole
    outputs = _tensors(expected), _tensors(replaced)
    shapes = [[t.shape for t in part] for part in outputs]
    if shapes[0] != shapes[1] or token.later != whole.later:
        return batch, whole
    return (None if all(map(_same, *outputs)) else another), whole


def _run(
    model: Network, module: nn.Module, x: Tensor, cut: Callable[[_Flow, Any], Any]
) -> tuple[Any, _Flow]:
    flow = _Flow(x)
    hook = module.register_forward_hook(lambda _module, _inputs, output: cut(flow, output))
    with hook, flow, _Reads(flow):
        return model(x), flow


def _modules_after(
    model: nn.Module, run: Network, module: nn.Module, x: Tensor
) -> list[tuple[str, nn.Module]]:
    """The submodules that finish after this one (all if it never runs), in that order."""
    names = {m: name for name, m in model.named_modules() if name}
    order: list[nn.Module] = []
    with register_module_forward_hook(lambda m, *_: order.append(m)):
        run(x)
    first = order.index(module) + 1 if module in order else 0
    return [(names[m], m) for m in dict.fromkeys(order[first:]) if m in names]


def _same(plain: Tensor, replaced: Tensor) -> bool:
    # The same rows through the same kernels: real differences are far above this bound.
    if not plain.is_floating_point():
        return torch.equal(plain, replaced)
    finite = plain[plain.isfinite()].abs()
    bound = 64 * torch.finfo(plain.dtype).eps * float(finite.max() if len(finite) else 0)
    return torch.allclose(plain, replaced, rtol=0, atol=bound, equal_nan=True)
