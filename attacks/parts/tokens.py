"""Token gradient regularisation, for vision transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.attacks.parts.attention import Attention, attending, projections
from interaction_train.attacks.parts.base import Part
from interaction_train.attacks.parts.hooks import networks_of
from interaction_train.attacks.parts.skip import residual_blocks
from interaction_train.errors import InputError, in_range


class TokenGradient(Part):
    """TGR: token by token gradients are lowered, and those of extreme tokens left out.

    Source: Zhang et al., "Transferable Adversarial Attacks on Vision Transformers with Token
    Gradient Regularization", CVPR 2023. Of the gradients at the outputs of the projections to
    queries, keys and values, and of the MLPs, in every channel the largest and the smallest token's
    become 0; at attention maps, in every head, the rows and columns of the largest and the smallest
    entry. In windowed attention each window counts alone. Found are networks of torchvision's and
    timm's structure: blocks of which :func:`residual_branches` knows two branches, the second the
    MLP, and attention as :class:`AttentionSkip` finds it.

    Args:
        attention: share of the gradient kept at attention maps, in (0, 1].
        projection: share kept at queries, keys and values; the released code's, as is the next.
        mlp: share kept at the outputs of MLPs.

    Raises:
        InputError: on a call, a network without such attention and MLPs; attention with masks in
            torch's ``MultiheadAttention``, or elsewhere than in a known module.
    """

    def __init__(self, attention: float = 0.25, projection: float = 0.75, mlp: float = 0.5) -> None:
        for argument, value in (("attention", attention), ("projection", projection), ("mlp", mlp)):
            in_range(argument, value, 0, 1, above=True)
        self.attention, self.projection, self.mlp = attention, projection, mlp

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        hooks: list[tuple[nn.Module, Callable[..., Any]]] = []
        for network in networks_of(model):
            modules = dict(network.named_modules())
            blocks = [names for names in residual_blocks(network).values() if len(names) == 2]
            if not blocks:
                known = "transformer blocks with an MLP, of torchvision's or timm's structure"
                raise InputError("model", type(network).__name__, known)
            hooks += [(modules[mlp], self._after_mlp) for _, mlp in blocks]
        layers = [layer for module in model.modules() for layer in projections(module)]
        weights = [layer.weight for layer in layers]
        with attending(model, _Regularized(self.attention, self.projection, weights), hooks):
            yield

    def _after_mlp(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        return _regularized(output, self.mlp)


def without_extremes(gradient: Tensor) -> Tensor:
    """Of ``(rows, tokens..., channels)``, 0 at each channel's largest and smallest token."""
    tokens = gradient.flatten(1, -2)
    ends = [tokens.argmax(1, keepdim=True), tokens.argmin(1, keepdim=True)]
    return tokens.scatter(1, torch.cat(ends, 1), 0).view(gradient.shape)


def without_extreme_pairs(gradient: Tensor) -> Tensor:
    """Of maps ``(..., T, S)``, 0 in rows and columns of each one's largest and smallest entry."""
    flat = gradient.flatten(-2)
    rows, columns = (torch.arange(size, device=flat.device) for size in gradient.shape[-2:])
    for end in (flat.argmax(-1, keepdim=True), flat.argmin(-1, keepdim=True)):
        row, column = rows != end // len(columns), columns != end % len(columns)
        gradient = gradient * (row.unsqueeze(-1) & column.unsqueeze(-2))
    return gradient


class _Regularized(Attention):
    def __init__(self, attention: float, projection: float, weights: list[Tensor]) -> None:
        super().__init__()
        self.attention, self.projection = attention, projection
        self.weights = {id(weight) for weight in weights}
        self.projected = 0

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        # Not a hook on the layer, which torchvision's Swin does not call.
        if function is F.linear and len(args) > 1 and id(args[1]) in self.weights:
            self.projected += 1
            return _regularized(F.linear(*args, **kwargs), self.projection)
        return super().call(function, args, kwargs)

    def enter(self, *_: Any) -> None:
        super().enter()
        self.projected = 0

    def leave(self, module: nn.Module, *_: Any) -> None:
        super().leave(module)
        if not self.projected:
            got = f"{type(module).__name__} that does not apply its projections as they are"
            raise InputError("model", got, "plain linear layers, for TokenGradient")

    def map(self, attention: Tensor) -> Tensor:
        return _on_gradient(attention, lambda g: without_extreme_pairs(g) * self.attention)

    def scaled(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not self.inside or is_causal or enable_gqa:
            got = "causal or grouped attention" if self.inside else "attention in unknown modules"
            raise InputError("model", got, "modules with qkv, for TokenGradient")
        scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        if attn_mask is not None:
            boolean = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if boolean else scores + attn_mask
        return self.map(scores.softmax(-1)) @ value

    def multihead(self, *args: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
        given = _MULTIHEAD.bind(*args, **named).arguments
        x, heads = given["query"], given["num_heads"]
        extra = ("key_padding_mask", "attn_mask", "bias_k", "bias_v")
        plain = given["key"] is x and given["value"] is x and given["in_proj_weight"] is not None
        if not plain or x.dim() != 3 or any(given.get(name) is not None for name in extra):
            got = "MultiheadAttention with masks, other keys or further biases"
            raise InputError("model", got, "self-attention, for TokenGradient")
        packed = F.linear(x.transpose(0, 1), given["in_proj_weight"], given["in_proj_bias"])
        packed = _regularized(packed, self.projection)
        query, key, value = packed.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        attention = self.map(scores.softmax(-1))
        mixed = (attention @ value).transpose(1, 2).flatten(2)
        result = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"]).transpose(0, 1)
        if not given.get("need_weights", True):
            return result, None
        return result, attention.mean(1) if given.get("average_attn_weights", True) else attention


_MULTIHEAD = inspect.signature(F.multi_head_attention_forward)


def _on_gradient(value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    if value.requires_grad:
        value.register_hook(change)
    return value


def _regularized(value: Tensor, share: float) -> Tensor:
    return _on_gradient(value, lambda gradient: without_extremes(gradient) * share)
