"""Exact interaction indices of games with up to about 20 players.

A game is a tensor of all its values, ``v`` of shape ``(..., 2^n)``: bit i of an index says whether
player i is present, so ``v[..., 0]`` is v(∅) and ``v[..., -1]`` is v(N). Leading axes are samples
(and classes); everything is vectorised over them, differentiable, summed in float64 and returned
in the dtype of ``v``. :func:`exact_values` makes such a tensor from a network.

"Survey" below is Zhou et al., "Interpretability of Neural Networks Based on Game-theoretic
Interactions", 2024.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame

_ROWS = 8192  # coalitions × samples that go to the game in one call
_CELLS = 2**21  # float64 numbers in one block of a sum over coalitions


def all_coalitions(
    n: int, device: torch.device | str | None = None, start: int = 0, stop: int | None = None
) -> Tensor:
    """Every coalition of n players in the order of the value tensors, or a slice of them.

    Args:
        n: number of players, at most 62.
        device: where the result lies.
        start: first index.
        stop: index after the last one; default: 2^n.

    Returns:
        bool ``(stop - start, n)``.

    Raises:
        InputError: ``n`` outside 0 … 62 or a slice outside 0 … 2^n.

    Examples:
        >>> all_coalitions(2).int().tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    if not 0 <= n <= 62:
        raise InputError("n", n, "between 0 and 62 players")
    stop = 1 << n if stop is None else stop
    if not 0 <= start <= stop <= 1 << n:
        raise InputError("start, stop", (start, stop), f"0 <= start <= stop <= {1 << n}")
    return _members(torch.arange(start, stop, device=device), n)


def exact_values(game: MaskedGame, max_coalitions: int = 2**20) -> Tensor:
    """The game's values on all coalitions, without gradient.

    The coalitions go to the game in blocks, so memory beyond the result is flat in their number.

    Args:
        game: the game, for a batch of B samples.
        max_coalitions: the largest 2^n that is not refused.

    Returns:
        ``(B, 2^n)``, or ``(B, classes, 2^n)`` for the payoff ``"all"``.

    Raises:
        InputError: more coalitions than ``max_coalitions``, or a payoff that is NaN or infinite.
    """
    n = game.n
    if n > 62 or 1 << n > max_coalitions:
        count = f" = {1 << n}" if n <= 62 else ""
        raise InputError(
            "game",
            f"{n} players, which have 2^{n}{count} coalitions",
            f"at most max_coalitions = {max_coalitions}; fewer players (a coarser grid) will do",
        )
    batch, device = len(game.present), game.present.device
    block = max(1, _ROWS // max(1, batch))
    result: Tensor | None = None
    for start in range(0, 1 << n, block):
        stop = min(start + block, 1 << n)
        values = game(all_coalitions(n, device, start, stop)).movedim(1, -1)
        if not values.isfinite().all():
            at = (~values.isfinite()).nonzero()[0].tolist()
            raise InputError(
                "game",
                f"the payoff {values[tuple(at)].item()} for sample {at[0]} "
                f"(coalition {start + at[-1]})",
                "finite payoffs",
            )
        if result is None:
            result = values.new_empty(*values.shape[:-1], 1 << n)
        result[..., start:stop] = values
    assert result is not None  # there is always the empty coalition
    return result


def dividends(v: Tensor) -> Tensor:
    """Harsanyi dividends I(S) = Σ_{L⊆S} (−1)^{|S|−|L|} v(L) of all coalitions (survey, Eq. 2).

    They sum to v(N), I(∅) = v(∅) included (Eq. 3). By the fast Möbius transform, O(n 2^n).

    Args:
        v: ``(..., 2^n)``.

    Returns:
        ``(..., 2^n)``, in the order of ``v``.

    Raises:
        InputError: ``v`` is not floating point or its last axis no power of two.

    Examples:
        >>> v = torch.tensor([0.0, 1.0, 2.0, 4.0])  # v(∅), v({0}), v({1}), v({0, 1})
        >>> dividends(v)
        tensor([0., 1., 2., 1.])
    """
    return _transform(v, -1, "v")


def values_from_dividends(dividends: Tensor) -> Tensor:
    """The game v(S) = Σ_{L⊆S} I(L) with given dividends: the inverse of :func:`dividends`.

    Args:
        dividends: ``(..., 2^n)``.

    Returns:
        ``(..., 2^n)``, in the same order.

    Raises:
        InputError: the input is not floating point or its last axis no power of two.
    """
    return _transform(dividends, 1, "dividends")


def order_curve(v: Tensor) -> Tensor:
    """f(s), the mean of v over the coalitions of s players, for s = 0 … n.

    Its second difference f(m+2) − 2f(m+1) + f(m) is the mean of I^(m)(i,j) over pairs.

    Args:
        v: ``(..., 2^n)``.

    Returns:
        ``(..., n + 1)``.

    Raises:
        InputError: ``v`` is not floating point or its last axis no power of two.

    Examples:
        >>> order_curve(torch.tensor([0.0, 1.0, 2.0, 4.0]))
        tensor([0.0000, 1.5000, 4.0000])
    """
    n = _count(v)
    return (_sums_by_size(v, n, 0)[..., 0] / _binomials(n, v)).to(v.dtype)


def shapley_values(v: Tensor) -> Tensor:
    """Shapley values φ(i), with the weights |S|!(n−|S|−1)!/n! (survey, Eq. 1, a slip corrected).

    Args:
        v: ``(..., 2^n)`` with n at least 1.

    Returns:
        ``(..., n)``; they sum to v(N) − v(∅).

    Raises:
        InputError: ``v`` is not floating point, its last axis no power of two, or n is 0.

    Examples:
        >>> shapley_values(torch.tensor([0.0, 1.0, 2.0, 4.0]))
        tensor([1.5000, 2.5000])
    """
    n = _count(v, least=1)
    sums = _sums_by_size(v, n, 1)
    total, present = sums[..., :1], sums[..., 1:]
    # Players join coalitions of size s: those of size s + 1 with i, less those of size s without.
    gains = present[..., 1:, :] - (total - present)[..., :-1, :]
    return (gains / _binomials(n - 1, v).unsqueeze(-1)).mean(-2).to(v.dtype)


def multi_order_interactions(v: Tensor) -> Tensor:
    """Multi-order interactions I^(m)(i,j) of all pairs and orders (survey, Eq. 11).

    I^(m)(i,j) is the mean of v(S∪ij) − v(S∪i) − v(S∪j) + v(S) over the contexts S ⊆ N∖{i,j} of m
    players. All come from the sums of v over the coalitions of each size that hold a pair, one of
    its players, or none: matrix products, O(n² 2^n).

    Args:
        v: ``(..., 2^n)`` with n at least 2.

    Returns:
        ``(..., n - 1, n, n)``: order m = 0 … n−2, player i, player j; symmetric, and 0 where i = j.

    Raises:
        InputError: ``v`` is not floating point, its last axis no power of two, or n is below 2.

    Examples:
        >>> majority = (all_coalitions(3).sum(1) >= 2).float()  # two of three players win
        >>> multi_order_interactions(majority)[:, 0, 1]  # first alone, then beside player 2
        tensor([ 1., -1.])
    """
    return _multi_order(v).to(v.dtype)


def shapley_interactions(v: Tensor) -> Tensor:
    """Shapley interaction indices I^Shap(i,j) of all pairs: the mean over m of I^(m)(i,j).

    Args:
        v: ``(..., 2^n)`` with n at least 2.

    Returns:
        ``(..., n, n)``, symmetric, and 0 on the diagonal.

    Raises:
        InputError: ``v`` is not floating point, its last axis no power of two, or n is below 2.

    Examples:
        >>> both = all_coalitions(3)[:, :2].all(1).float()  # 0 and 1 win together
        >>> shapley_interactions(both)
        tensor([[0., 1., 0.],
                [1., 0., 0.],
                [0., 0., 0.]])
    """
    return _multi_order(v).mean(-3).to(v.dtype)


def shapley_interaction(v: Tensor, subset: Sequence[int]) -> Tensor:
    """Shapley interaction index of a subset of any size (survey, Eq. 5).

    I^Shap(S) = Σ_{T⊆N∖S} |T|!(n−|T|−|S|)!/(n−|S|+1)! Δ_S v(T), with Δ_S v(T) =
    Σ_{L⊆S} (−1)^{|S|−|L|} v(L∪T). For one player it is the Shapley value.

    Args:
        v: ``(..., 2^n)``.
        subset: distinct players out of 0 … n−1, at least one.

    Returns:
        ``(...)``.

    Raises:
        InputError: ``v`` is no value tensor, or ``subset`` is empty, repeats a player or names one
            that the game does not have.
    """
    # Averaging the contexts first leaves a game of the subset's players; its top dividend is Δ_S.
    return dividends(_averaged(v, subset))[..., -1].to(v.dtype)


def block_shapley_values(v: Tensor, subset: Sequence[int]) -> Tensor:
    """Shapley values φ([C] | N∖S ∪ {[C]}) of all C ⊆ S, each as one player, the rest of S absent.

    Args:
        v: ``(..., 2^n)``.
        subset: S, distinct players out of 0 … n−1, at least one.

    Returns:
        ``(..., 2^|S|)``: bit k of an index says whether ``subset[k]`` is in C; 0 for C = ∅.

    Raises:
        InputError: as in :func:`shapley_interaction`.
    """
    g = _averaged(v, subset)
    return (g - g[..., :1]).to(v.dtype)


def multivariate_interaction(v: Tensor, subset: Sequence[int]) -> Tensor:
    """Multivariate interaction B([S]) = φ([S] | N∖S ∪ {[S]}) − Σ_{i∈S} φ(i | N∖S ∪ {i}).

    Survey, Eq. 8; equal to Σ_{L⊆S, |L|>1} I^Shap(L | N∖S ∪ L) (Eq. 9).

    Args:
        v: ``(..., 2^n)``.
        subset: S, distinct players out of 0 … n−1, at least one.

    Returns:
        ``(...)``; 0 for a single player.

    Raises:
        InputError: as in :func:`shapley_interaction`.

    Examples:
        >>> everyone = all_coalitions(3).all(1).float()  # all three win together
        >>> multivariate_interaction(everyone, [0, 1, 2])
        tensor(1.)
    """
    g = _averaged(v, subset)
    single = g[..., [1 << k for k in range(len(subset))]] - g[..., :1]
    return (g[..., -1] - g[..., 0] - single.sum(-1)).to(v.dtype)


def multivariate_strength(v: Tensor, subset: Sequence[int], max_size: int = 12) -> Tensor:
    """Multivariate interaction strength T([S]) (survey, Eq. 10).

    max_Ω − min_Ω of Σ_{C∈Ω} φ([C] | N∖S ∪ {[C]}) over the partitions Ω of S; exact, by dynamic
    programming over subsets, O(3^|S|). At most Σ_{|L|>1} |I^Shap(L | N∖S ∪ L)|.

    Args:
        v: ``(..., 2^n)``.
        subset: S, distinct players out of 0 … n−1, at least one.
        max_size: the largest |S| that is not refused.

    Returns:
        ``(...)``; 0 for a single player.

    Raises:
        InputError: as in :func:`shapley_interaction`, or ``subset`` is larger than ``max_size``.
    """
    size = len(subset)
    if size > max_size:
        raise InputError(
            "subset",
            f"{size} players, which have {_partitions(size)} partitions",
            f"at most max_size = {max_size} players",
        )
    g = _averaged(v, subset)
    phi = g - g[..., :1]
    # Extremes over the partitions of every subset M: its lowest player's block C, then M∖C.
    high, low = torch.zeros_like(phi), torch.zeros_like(phi)
    numbers = torch.arange(1 << size, device=v.device)
    for m in range(1, 1 << size):
        inside = numbers[1 : m + 1]
        blocks = inside[((inside & ~m) == 0) & ((inside & (m & -m)) != 0)]
        value, rest = phi[..., blocks], m ^ blocks
        high[..., m] = (value + high[..., rest]).amax(-1)
        low[..., m] = (value + low[..., rest]).amin(-1)
    return (high[..., -1] - low[..., -1]).to(v.dtype)


def order_strengths(multi_order: Tensor) -> Tensor:
    """Absolute strength of each order, E_x E_{i≠j} |I^(m)(i,j|x)|.

    Args:
        multi_order: ``(..., orders, n, n)`` with zero diagonals, all orders
            (:func:`multi_order_interactions`) or some.

    Returns:
        ``(orders,)``.

    Raises:
        InputError: another shape, n below 2, or no samples.
    """
    shape = tuple(multi_order.shape)
    if len(shape) < 3 or shape[-1] != shape[-2] or shape[-1] < 2 or 0 in shape:
        raise InputError("multi_order", f"shape {shape}", "(..., orders, n, n) with n at least 2")
    pairs = multi_order.double().abs().sum((-2, -1)) / (shape[-1] * (shape[-1] - 1))
    return pairs.reshape(-1, shape[-3]).mean(0).to(multi_order.dtype)


def interaction_spectrum(multi_order: Tensor) -> Tensor:
    """Relative strengths J^(m) = E_x E_ij |I^(m)(i,j|x)| / E_m [same] (survey, Eq. 21).

    The denominator is the mean over the orders that are given, so J depends on that grid: spectra
    are comparable only over the same orders, and all of 0 … n−2 is one such choice.

    Args:
        multi_order: ``(..., orders, n, n)`` with zero diagonals, all orders
            (:func:`multi_order_interactions`) or some.

    Returns:
        ``(orders,)`` with mean 1; NaN where no order has any interaction (an additive game).

    Raises:
        InputError: another shape, n below 2, or no samples.

    Examples:
        >>> majority = (all_coalitions(3).sum(1) >= 2).float()
        >>> interaction_spectrum(multi_order_interactions(majority))
        tensor([1., 1.])
    """
    strengths = order_strengths(multi_order)
    return strengths / strengths.mean()


def _members(index: Tensor, n: int) -> Tensor:
    return (index.unsqueeze(-1) >> torch.arange(n, device=index.device)).bitwise_and_(1).bool()


def _count(v: Tensor, least: int = 0, name: str = "v") -> int:
    """The number of players n of a value tensor."""
    size = v.shape[-1] if v.dim() else 0
    n = size.bit_length() - 1
    if size != 1 << max(n, 0) or n < least or not v.is_floating_point():
        players = f" with n at least {least}" if least else ""
        raise InputError(
            name,
            f"{v.dtype} of shape {tuple(v.shape)}",
            f"floating point of shape (..., 2^n){players}",
        )
    return n


def _binomials(n: int, v: Tensor) -> Tensor:
    return torch.tensor(
        [math.comb(n, k) for k in range(n + 1)], dtype=torch.float64, device=v.device
    )


def _transform(v: Tensor, sign: int, name: str) -> Tensor:
    n = _count(v, name=name)
    result = v.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    for i in range(n):
        halves = result.view(*v.shape[:-1], 1 << (n - 1 - i), 2, 1 << i)
        halves[..., 1, :].add_(halves[..., 0, :], alpha=sign)
    return result.to(v.dtype)


def _multi_order(v: Tensor) -> Tensor:
    n = _count(v, least=2)
    sums = _sums_by_size(v, n, 2)
    total, both = sums[..., :1, :1], sums[..., 1:, 1:]
    first, second = sums[..., 1:, :1], sums[..., :1, 1:]
    one, none = first + second - 2 * both, total - first - second + both
    result = both[..., 2:, :, :] - one[..., 1:-1, :, :] + none[..., :-2, :, :]
    result = result / _binomials(n - 2, v)[:, None, None]
    return result.masked_fill(torch.eye(n, dtype=torch.bool, device=v.device), 0)


def _sums_by_size(v: Tensor, n: int, degree: int) -> Tensor:
    """Sums of v over the coalitions of each size that hold given players.

    With z = (1, indicators of the n players), in float64: degree 0 is Σ v, ``(..., n + 1, 1)``;
    degree 1 is Σ v z, ``(..., n + 1, n + 1)``; degree 2 is Σ v z zᵀ,
    ``(..., n + 1, n + 1, n + 1)``. The first axis of each is the size.
    """
    flat = v.reshape(-1, v.shape[-1])
    rows, columns = torch.triu_indices(n + 1, n + 1, device=v.device)
    features = (1, n + 1, len(rows))[degree]
    sums = []
    for blocks in _blocks_by_size(n, max(64, _CELLS // max(features, len(flat))), v.device):
        total = flat.new_zeros(len(flat), features, dtype=torch.float64)
        for block in blocks:
            z = torch.nn.functional.pad(_members(block, n), (1, 0), value=True).double()
            held = (z[:, :1], z, z[:, rows] * z[:, columns] if degree == 2 else z)[degree]
            total = total + flat[:, block].double() @ held
        sums.append(total)
    result = torch.stack(sums, 1)
    if degree == 2:
        place = torch.zeros(n + 1, n + 1, dtype=torch.int64, device=v.device)
        place[rows, columns] = place[columns, rows] = torch.arange(features, device=v.device)
        result = result[..., place]
    return result.reshape(*v.shape[:-1], *result.shape[1:])


def _blocks_by_size(n: int, rows: int, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """The indices of the coalitions of each size, in blocks of at most ``rows``."""
    sizes = all_coalitions(n, device).sum(-1)
    order = sizes.argsort(stable=True)
    for part in order.split([math.comb(n, s) for s in range(n + 1)]):
        yield part.split(rows)


def _averaged(v: Tensor, subset: Sequence[int]) -> Tensor:
    """The game g(C) = Σ_{T⊆N∖S} |T|!(r−|T|)!/(r+1)! v(T∪C), r = n−|S|, of the players in S.

    ``(..., 2^|S|)`` float64, bit k for ``subset[k]``. The weights sum to 1 and are those of the
    Shapley values of any single block C, and of I^Shap(L | N∖S ∪ L) for every L ⊆ S.
    """
    n = _count(v)
    players = list(subset)
    if not players or len(set(players)) < len(players) or not set(players) <= set(range(n)):
        raise InputError("subset", tuple(players), f"distinct players out of 0 … {n - 1}")
    others = [i for i in range(n) if i not in players]
    inside = _spread(players, v.device)
    weights = 1 / ((len(others) + 1) * _binomials(len(others), v))
    weights = weights[all_coalitions(len(others), v.device).sum(-1)]
    outside = _spread(others, v.device)
    total = v.new_zeros(*v.shape[:-1], len(inside), dtype=torch.float64)
    rows = max(1, _CELLS // (len(inside) * max(1, v[..., 0].numel())))
    for weight, block in zip(weights.split(rows), outside.split(rows), strict=True):
        total = total + (v[..., block | inside[:, None]].double() @ weight)
    return total


def _spread(players: Sequence[int], device: torch.device) -> Tensor:
    """The index of every coalition of the given players in the value tensor of the whole game."""
    bits = torch.tensor([1 << i for i in players], dtype=torch.int64, device=device)
    return (all_coalitions(len(players), device) * bits).sum(-1)


def _partitions(size: int) -> int:
    """The number of partitions of a set (Bell), by the triangle."""
    row = [1]
    for _ in range(size - 1):
        row = [row[-1], *row]
        for k in range(1, len(row)):
            row[k] += row[k - 1]
    return row[-1]
