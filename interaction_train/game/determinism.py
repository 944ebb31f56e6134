"""Whether a network in training mode is known to compute what it computes in eval."""

from __future__ import annotations

from functools import cache, partial
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from interaction_train.game.evaluation import unwrap

_CHANGING = (
    nn.modules.batchnorm._NormBase,  # InstanceNorm too, where it tracks statistics
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.MultiheadAttention,
    nn.RNNBase,
)
# What code must name to draw at random or to depend on the mode.
_RANDOM = {
    *("training", "random", "randn", "rand", "randint", "randperm", "rand_like", "randn_like"),
    *("randint_like", "random_", "normal", "normal_", "uniform", "uniform_", "bernoulli"),
    *("bernoulli_", "multinomial", "poisson", "exponential_", "geometric_", "log_normal_"),
    *("cauchy_", "rrelu", "rrelu_", "gumbel_softmax", "fractional_max_pool2d", "batch_norm"),
    *("fractional_max_pool3d", "rsample", "sample", "choice", "shuffle", "Generator", "seed"),
    *("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
    *("feature_alpha_dropout", "Dropout", "native_dropout", "scaled_dot_product_attention"),
}


def forward_agrees(model: nn.Module) -> bool:
    """Whether train and eval forwards are known to agree, and to draw nothing.

    Modules of ``torch.nn`` are known by their type and settings; those whose code, or a Python
    function that it names, reads ``training`` or names a random operation are not known.
    """
    modules = list(unwrap(model).modules())
    owners = tuple(dict.fromkeys(type(m) for m in modules if not _of_torch(type(m))))
    return all(_known(module, owners) for module in modules)


def _of_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.nn.modules.")


def _known(module: nn.Module, owners: tuple[type, ...]) -> bool:
    if isinstance(module, _CHANGING) and module.training and _active(module):
        return False
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    code = [_function(value) for value in (*vars(module).values(), *hooks)]
    if not _of_torch(type(module)):
        code.append(_function(type(module).forward))
        if code[-1] is None:  # compiled, as TorchScript's
            return False
    allowed = set(module._modules) if module.training else {*module._modules, "training"}
    return all(not _names(f, owners) & _RANDOM - allowed for f in code if f is not None)


def _active(module: Any) -> bool:
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        return module.track_running_stats
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    return getattr(module, "p", 1.0) != 0.0


def _function(value: Any) -> FunctionType | None:
    while isinstance(value, partial):
        value = value.func
    value = getattr(value, "__func__", getattr(value, "fget", value))
    if not isinstance(value, FunctionType):  # an object that is called, such as a hook
        value = vars(type(value)).get("__call__")
    return value if isinstance(value, FunctionType) else None


@cache
def _names(function: FunctionType, owners: tuple[type, ...]) -> frozenset[str]:
    """Every name in a function, and in the functions that it names, but for PyTorch's own."""
    found: set[str] = set()
    waiting, seen = [function], set[FunctionType]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        found.add(one.__name__)
        if (one.__module__ or "").split(".")[0] == "torch" and one is not function:
            continue
        here = _names_in(one.__code__)
        found |= here
        scope = {name: one.__globals__[name] for name in here & one.__globals__.keys()}
        modules = [value for value in scope.values() if isinstance(value, ModuleType)]
        # A cell whose name is not bound yet is equal to an empty one.
        filled = (cell for cell in one.__closure__ or () if cell != CellType())
        cells = [cell.cell_contents for cell in filled]
        places = dict.fromkeys([*(kind for owner in owners for kind in owner.__mro__), *modules])
        members = [vars(place).get(name) for place in places for name in here]
        waiting += [f for f in map(_function, [*scope.values(), *cells, *members]) if f is not None]
    return frozenset(found)


def _names_in(code: CodeType) -> set[str]:
    names = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
        elif isinstance(constant, str):
            names.add(constant)
    return names
