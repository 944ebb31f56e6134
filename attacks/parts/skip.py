"""The skip gradient method: gradients prefer the skip connections of a residual network."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from interaction_train.attacks.parts.base import Part
from interaction_train.attacks.parts.hooks import hooked, networks_of
from interaction_train.errors import InputError, in_range
from interaction_train.game.evaluation import unwrap

# What a residual block has as children or parameters, and where its branches run through: modules
# that all of a branch's gradient passes, and nothing else. The first row that fits counts.
_BLOCKS: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (
    (frozenset({"conv1", "bn1", "conv3", "bn3"}), ("bn3",)),  # Bottleneck, Res2Net
    (frozenset({"conv1", "bn1", "conv2", "bn2"}), ("bn2",)),  # BasicBlock, thin CIFAR ResNets
    (frozenset({"conv1", "norm1", "conv3", "norm3", "drop_path"}), ("conv3",)),  # timm ResNetV2
    (frozenset({"conv1", "norm1", "conv2", "norm2", "drop_path"}), ("conv2",)),
    (frozenset({"block", "layer_scale"}), ("block",)),  # torchvision ConvNeXt
    (frozenset({"conv_dw", "mlp", "drop_path"}), ("mlp",)),  # timm ConvNeXt
    # The bodies of transformer branches, not their norms: right with norms before and after.
    (frozenset({"norm1", "attn", "norm2", "mlp"}), ("attn", "mlp")),  # timm ViT; both Swins
    (frozenset({"ln_1", "self_attention", "ln_2", "mlp"}), ("self_attention", "mlp")),
)

# Steps of a branch that are more than an activation, which may be a sum with its own input as well.
_MIXING = re.compile("Convolution|[mM]m|Norm|Attention|Pool")


def residual_branches(model: nn.Module) -> list[str]:
    """The modules that the residual branches of a network run through, found by its structure.

    Known, by the names of their children, are blocks of torchvision's, timm's and this project's
    ResNets (also SE, ResNeXt, Res2Net, pre-activation), of ConvNeXt, ViT and Swin;
    :func:`skip_gradient` finds others by what they do in a forward pass, where the skip is the
    identity; a projected one of an unknown kind is not told from its branch. Names are dotted, in
    the network below ``torch.compile`` and data parallelism, one per branch.

    Examples:
        >>> from interaction_train.models import CIFARResNet
        >>> residual_branches(CIFARResNet(18))[:2]
        ['layer1.0.bn2', 'layer1.1.bn2']
    """
    return [name for names in residual_blocks(unwrap(model)).values() for name in names]


@contextmanager
def skip_gradient(
    model: nn.Module, gamma: float, branches: Sequence[str] | None = None
) -> Iterator[None]:
    """Scale the gradient of every residual branch by γ, in the forward passes made inside.

    The skip gradient method (SGM; Wu et al., "Skip Connections Matter", ICLR 2020): a block
    x + F(x) passes backwards as x + γF(x) + (1 − γ)·stopgrad(F(x)) would, exactly; forwards nothing
    changes. Meant for gradients of inputs: those of a branch's parameters are scaled only in part.

    Args:
        model: the network; compiled parts run eagerly meanwhile.
        gamma: γ in (0, 1]; 1 changes nothing, whatever the network. The paper takes 0.2 to 0.8.
        branches: dotted names of the modules that branches run through; default:
            :func:`residual_branches`. All of a branch's gradient, and no other, has to pass the
            module's output (of several, the first tensor).

    Raises:
        InputError: γ out of its range, an unknown name, or a known block without a skip; in a
            forward pass with gradients, a network in which no branch joins a sum.
    """
    in_range("gamma", gamma, 0, 1, above=True)
    network = unwrap(model)
    kind, modules = type(network).__name__, dict(network.named_modules())
    blocks = residual_blocks(network) if branches is None else {"": list(branches)}
    for name in branches or ():
        if not name or name not in modules:
            raise InputError("branches", repr(name), f"names of modules of {kind}")
    if gamma == 1:
        yield
        return
    if branches is not None and not branches:
        raise InputError("branches", "none", f"names of modules of {kind}")
    # Members of an ensemble one by one, as an attack that averages losses calls them.
    found = networks_of(network) if branches is None else []
    on = _Hooks(gamma, 0 if any(blocks.values()) else len(found))
    hooks: list[tuple[nn.Module, Any]] = [(member, on.join) for member in found]
    for block, inside in blocks.items():
        hooks += [(modules[branch], partial(on.scale, block)) for branch in inside]
        hooks += [(modules[block], partial(on.check, block))] if block else []
    with hooked(model, hooks):
        yield


class SkipGradient(Part):
    """SGM as a part of an attack: :func:`skip_gradient`, with its arguments, while it runs."""

    def __init__(self, gamma: float = 0.5, branches: Sequence[str] | None = None) -> None:
        in_range("gamma", gamma, 0, 1, above=True)
        self.gamma, self.branches = gamma, branches

    def around(self, model: nn.Module) -> AbstractContextManager[None]:
        return skip_gradient(model, self.gamma, self.branches)


class _Hooks:
    """Forward hooks that scale gradients of residual branches, of known blocks and of other kinds.

    A branch is scaled where it joins its sum: of two values in the graph, that which is computed
    from the other one. What joins no sum that is found is scaled in its module.
    """

    def __init__(self, gamma: float, unknown: int) -> None:
        self.gamma = gamma
        self.unknown = unknown  # networks, of which one has to have branches; 0: not asked
        self.without: set[nn.Module] = set()
        self.checked: set[str] = set()
        # Per block of the present forward pass, where its modules end, and whether they are joined.
        self.ends: defaultdict[str, dict[Node, list[bool]]] = defaultdict(dict)

    def scale(self, block: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """Of the module that a branch runs through."""
        first = _tensor(output)
        if first is None or not first.requires_grad:
            return None
        # The gradient of a view loses its hooks when the view is changed in place, and a tensor
        # that is passed on as it came may go elsewhere too.
        shared = first._is_view() or any(first is value for value in inputs)
        scaled, joined = first.clone() if shared else first, [False]
        # In-place changes that follow do not matter: a hook belongs to the value at this point.
        # (No gradient comes where LinBP takes the branch's by itself.)
        scaled.register_hook(lambda g: None if g is None else g * (1 if joined[0] else self.gamma))
        if block:
            self.ends[block][get_gradient_edge(scaled).node] = joined
        if scaled is first or first is output:
            return scaled if first is output else None
        return type(output)(scaled if part is first else part for part in output)

    def check(self, block: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Of a known block: an input has to reach its output around the branches."""
        result, sources = _tensor(output), [part for part in inputs if isinstance(part, Tensor)]
        if block in self.checked or not self.ends[block] or result is None:
            return
        # A constant, such as a class token of a frozen network, may be what is passed on.
        if not result.requires_grad or not all(part.requires_grad for part in sources):
            return
        starts = {get_gradient_edge(part).node for part in sources}
        stops = {*starts, *self.ends[block]}
        if not starts & _ancestors(get_gradient_edge(result).node, stops):
            got = f"{block!r}, a {type(module).__name__} without a skip connection"
            wanted = "a residual block; name the branches where the skip connection is outside"
            raise InputError("model", got, wanted)
        self.checked.add(block)

    def join(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Of the network: branches are scaled where they join a sum."""
        ends = {node: joined for nodes in self.ends.values() for node, joined in nodes.items()}
        self.ends.clear()
        result = _tensor(output)
        if result is None or not result.requires_grad:
            return
        found = False
        for node in _ancestors(get_gradient_edge(result).node):
            parts = [(part, k) for part, k in node.next_functions if part is not None]
            if not node.name().startswith("AddBackward") or len(parts) != 2:
                continue
            for (end, number), skip in (parts, parts[::-1]):
                between = _ancestors(end, {skip[0]}) - {skip[0]}
                # Of several outputs, of a split for instance, the branch may come from another one.
                into = {edge for at in between for edge in at.next_functions}
                if skip in into and any(_MIXING.search(at.name()) for at in between):
                    end.register_prehook(partial(self._scaled, number))
                    found = True
                    for known in ends.keys() & between:
                        ends[known][0] = True
                    break
        self.unknown = 0 if found else self.unknown
        self.without.add(module)
        if len(self.without) == self.unknown:
            expected = "residual blocks, whose branches join a sum, or the names of branches"
            raise InputError("model", type(module).__name__, expected)

    def _scaled(self, number: int, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(
            g if g is None or k != number else g * self.gamma for k, g in enumerate(gradients)
        )


def _ancestors(start: Node, stops: Collection[Node] = ()) -> set[Node]:
    """What a node is computed from, itself included, looking no further than ``stops``."""
    seen: set[Node] = set()
    todo = [start]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            if node not in stops:
                todo += [part for part, _ in node.next_functions if part is not None]
    return seen


def residual_blocks(network: nn.Module) -> dict[str, list[str]]:
    """Names of a network's residual blocks of known kinds → what their branches run through."""
    found: dict[str, list[str]] = {}
    for name, module in network.named_modules():
        own = *module.named_children(), *module.named_parameters(recurse=False)
        has = {part for part, _ in own}
        inside = next((parts for needed, parts in _BLOCKS if needed <= has), ())
        if name and inside:  # a whole network with conv1, bn1, conv2, bn2 is no block
            found[name] = [f"{name}.{part}" for part in inside]
    # Nor is what holds blocks itself, such as a network with a stem of conv1, bn1, conv2, bn2.
    holding = [name for name in found if any(other.startswith(f"{name}.") for other in found)]
    return {name: inside for name, inside in found.items() if name not in holding}


def _tensor(value: Any) -> Tensor | None:
    """A tensor, or the first one in a tuple or list."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return next((part for part in parts if isinstance(part, Tensor)), None)
