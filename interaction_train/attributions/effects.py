"""Taylor effects of a game at its baseline: by degree, and of single terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interaction_train.attributions.derivatives import path_derivatives
from interaction_train.attributions.gradients import path_payoffs, payoffs_at
from interaction_train.attributions.subgames import masked_attributions
from interaction_train.errors import InputError, in_range
from interaction_train.game.evaluation import evaluation_mode, without_grad
from interaction_train.game.function_mode import Function, FunctionMode
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide, wide_dtype
from interaction_train.indices.exact import all_coalitions, dividends

NODES = 17
_DOUBT = 0.01  # of the change of v on the way, above which a fit has failed
_KINKS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "threshold"),
    *("hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "abs", "absolute"),
    *("clamp", "clamp_min", "clamp_max", "clip", "maximum", "minimum", "fmax", "fmin"),
    *("max", "min", "amax", "amin", "sort", "topk", "sign", "round", "floor", "ceil"),
    *(f"{kind}max_pool{axes}d" for kind in ("", "adaptive_", "fractional_") for axes in (1, 2, 3)),
}


@dataclass(frozen=True)
class Effects:
    """Taylor effects I(κ) = ∂^κ g(0)/κ! of the payoff g of b + Σ_i t_i d_i, with d = x − b.

    Deng et al. 2024, Eq. 2; players may have several elements.

    Attributes:
        degrees: int64 ``(K, n)``, the degree vectors κ.
        values: ``(B, K)``, I(κ).
    """

    degrees: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        degrees, values = self.degrees, self.values
        fits = degrees.dim() == values.dim() == 2 and len(degrees) == values.shape[1]
        if degrees.dtype != torch.int64 or not fits:
            got = f"{degrees.dtype} {tuple(degrees.shape)} for values {tuple(values.shape)}"
            raise InputError("degrees", got, "int64 (K, n) for values (B, K)")

    @property
    def sets(self) -> Tensor:
        """The set S_κ of players of each term, int64 ``(K,)``, as in the value tensors."""
        n = self.degrees.shape[1]
        bits = 1 << torch.arange(n, device=self.degrees.device)
        return ((self.degrees > 0) * bits).sum(-1)

    @classmethod
    def of_second_order(cls, first: Tensor, second: Tensor) -> Effects:
        """The terms of degree 1 and 2, from :func:`second_order_effects`."""
        n = first.shape[-1]
        eye = torch.eye(n, dtype=torch.int64, device=first.device)
        pairs = list(combinations(range(n), 2))
        i, j = torch.tensor(pairs, dtype=torch.int64, device=first.device).view(-1, 2).T
        own = second.diagonal(dim1=-2, dim2=-1)
        values = [first, own, second[:, i, j] + second[:, j, i]]
        return cls(torch.cat([eye, 2 * eye, eye[i] + eye[j]]), torch.cat(values, -1))


def second_order_effects(game: MaskedGame) -> tuple[Tensor, Tensor]:
    """The effects of degree 1 ``(B, n)`` and 2 ``(B, n, n)`` at the baseline.

    first[i] = ∂_i g(0) and second = ½ ∂²g(0) for the payoff g of b + Σ_i t_i d_i, symmetric: their
    sums are the parts of degree 1 and 2 of v(N) − v(∅). second[i, i] is I(2 e_i), and
    second[i, j] + second[j, i] is I(e_i + e_j) (Deng et al. 2024, Eq. 2). By a double backward
    pass; of networks that are piecewise linear, as with ReLU, second is 0.

    Raises:
        InputError: a payoff of several numbers, or a network without gradient.

    Examples:
        >>> import interaction_train as it
        >>> def network(x):  # logits x0 + x0² x1 + 3 x0 x1 and 0
        ...     z = x[:, 0] + x[:, 0] ** 2 * x[:, 1] + 3 * x[:, 0] * x[:, 1]
        ...     return torch.stack([z, 0 * z], 1)
        >>> x, y = torch.tensor([[2.0, 1.0]]), torch.tensor([0])
        >>> second_order_effects(it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y))
        (tensor([[2., 0.]]), tensor([[[0., 3.],
                 [3., 0.]]]))
    """
    start = torch.zeros(1)
    return path_derivatives(game, start, start + 1, start + 0.5)


def degree_effects(
    game: MaskedGame, degrees: int, *, by_set: bool = False, nodes: int = NODES
) -> Tensor:
    """Σ I(κ) over the κ of every degree 1 … ``degrees``, ``(B, degrees)``.

    The payoff of b + t d is a power series in t, fitted by a polynomial at Chebyshev nodes on
    [−1, 1], where the network must be analytic: it is evaluated beyond the baseline, away from x.
    In float64 degrees 1 to 5 are right to about 1e-8; rounding noise grows with the degree, and
    makes degree 5 in float32 uncertain by about 1e-3 of the payoff.

    Args:
        game: its payoff is one number.
        degrees: the highest degree.
        by_set: share them out to sets of players: ``(B, degrees, 2^n)``, sums over the κ on
            exactly S, of at most 12 players.
        nodes: evaluations for each sample.

    Raises:
        InputError: degrees or nodes out of range; more than 12 players for ``by_set``; a network
            with kinks, which has no power series; a fit that may be off by more than a hundredth of
            v's change on the way.

    Examples:
        >>> import interaction_train as it
        >>> def network(x):  # logits x0 + x0² x1 and 0
        ...     z = x[:, 0] + x[:, 0] ** 2 * x[:, 1]
        ...     return torch.stack([z, 0 * z], 1)
        >>> x, y = torch.tensor([[2.0, 1.0]], dtype=torch.float64), torch.tensor([0])
        >>> game = it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y)
        >>> degree_effects(game, 3).round(decimals=6).abs()
        tensor([[2., 0., 4.]], dtype=torch.float64)
    """
    in_range("nodes", nodes, 3, 64)
    in_range("degrees", degrees, 1, nodes - 1)
    if by_set:
        in_range("game", game.n, 1, 12)
    _refuse_kinks(game)
    if not by_set:
        return _fitted(game, degrees, nodes)
    return dividends(
        masked_attributions(
            game, all_coalitions(game.n), lambda inner: _fitted(inner, degrees, nodes)
        )
    )


def _fitted(game: MaskedGame, degrees: int, nodes: int) -> Tensor:
    batch, device = len(game.present), game.present.device
    rules = (torch.from_numpy(rule) for rule in _chebyshev(nodes))
    at, waves, powers = (rule.to(device, wide_dtype(device)) for rule in rules)
    values = path_payoffs(game, at, game.choose_chunk(batch * nodes))
    known = wide(values)
    coefficients, powers = known @ waves, powers[:, 1 : degrees + 1]
    # What the last coefficients add tells how far off the rest, which is left out, may be.
    doubt = (coefficients[:, -2:].abs() @ powers[-2:].abs()).amax(-1)
    change = known.amax(-1) - known.amin(-1)
    rounding = 16 * torch.finfo(values.dtype).eps * float(powers[-2:].abs().max())
    if not bool((doubt <= _DOUBT * change + rounding * known.abs().amax(-1)).all()):
        got = f"{nodes}, which leaves up to {float((doubt / change).max()):.1g} of v in doubt"
        raise InputError("nodes", got, "more, fewer degrees, or a baseline nearer to the samples")
    return (coefficients @ powers).to(values)


@lru_cache(maxsize=8)
def _chebyshev(count: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Nodes on [−1, 1], values there to Chebyshev coefficients, and those to powers of t."""
    orders = np.arange(count)
    angles = (orders + 0.5) * np.pi / count
    waves = np.cos(np.outer(angles, orders)) * np.where(orders, 2, 1) / count
    powers = np.zeros((count, count))
    for k in orders:
        powers[k, : k + 1] = np.polynomial.chebyshev.cheb2poly(np.eye(count)[k, : k + 1])
    return np.cos(angles), waves, powers


class _Calls(FunctionMode):
    """Names of the operations that run, without the underscore of those in place."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def call(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        self.names.append(getattr(function, "__name__", "").strip("_"))
        return function(*args, **kwargs)


def _refuse_kinks(game: MaskedGame) -> None:
    with evaluation_mode(game.owner), without_grad(), _Calls() as calls:
        payoffs_at(game, game.present[:1], slice(0, 1))
    found = sorted(_KINKS & {name.removesuffix("_with_indices") for name in calls.names})
    if found:
        expected = "analytic operations, such as softplus and average pooling"
        raise InputError("game", f"a network with {', '.join(found)}", expected)
