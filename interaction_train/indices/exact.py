"""Exact interaction indices of games with up to about 20 players.

A game is a tensor of all its values, ``v`` of shape ``(..., 2^n)``: bit i of an index says whether
player i is present, so ``v[..., 0]`` is v(∅) and ``v[..., -1]`` is v(N). Leading axes are samples
(and classes). :func:`exact_values` makes such a tensor from a network.

Everything is vectorised over the leading axes, differentiable, summed in float64 (on the CPU where
the device lacks it) and returned in the dtype of ``v``, a floating point one.

The survey is Zhou et al., "Interpretability of Neural Networks Based on Game-theoretic
Interactions", 2024.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.batch import GameBatch
from interaction_train.game.masked import ROWS, MaskedGame
from interaction_train.game.precision import wide, wide_dtype

CELLS = 2**21  # numbers in one block of a sum over coalitions
NOISE = 16  # units in the last place that four values and what a network does before may be off by


def all_coalitions(n: int, device: torch.device | str | None = None) -> Tensor:
    """Every coalition of n ≤ 62 players in the order of the value tensors, bool ``(2^n, n)``.

    Examples:
        >>> all_coalitions(2).int().tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    if not 0 <= n <= 62:
        raise InputError("n", n, "between 0 and 62 players")
    return _members(torch.arange(1 << n, device=device), n)


@overload
def exact_values(game: MaskedGame, max_coalitions: int = ...) -> Tensor: ...
@overload
def exact_values(game: GameBatch, max_coalitions: int = ...) -> list[Tensor]: ...
def exact_values(
    game: MaskedGame | GameBatch, max_coalitions: int = 2**20
) -> Tensor | list[Tensor]:
    """The game's values on all coalitions, without gradient; memory beyond the result is flat.

    ``(B, 2^n)``, or ``(B, classes, 2^n)`` for the payoff ``"all"``; all must be finite. Of a batch
    of games a list of them.

    Raises:
        InputError: more coalitions than ``max_coalitions``, or a payoff that is not finite.
    """
    games = game.games if isinstance(game, GameBatch) else [game]
    for one in games:
        if one.n > 62 or 1 << one.n > max_coalitions:
            count = f" = {1 << one.n}" if one.n <= 62 else ""
            got = f"{one.n} players, which have 2^{one.n}{count} coalitions"
            most = f"at most max_coalitions = {max_coalitions}; fewer players (a coarser grid)"
            raise InputError("game", got, f"{most} will do")
    results = [torch.empty(0) for _ in games]
    for jobs in _jobs(games):
        device = games[0].present.device
        asked = [
            (at, _members(torch.arange(start, stop, device=device), games[at].n))
            for at, start, stop in jobs
        ]
        found = game.evaluate(asked) if isinstance(game, GameBatch) else [game(asked[0][1])]
        for (at, start, stop), part in zip(jobs, found, strict=True):
            values = part.movedim(1, -1)
            _require_finite(values, start)
            if start == 0:
                results[at] = values.new_empty(*values.shape[:-1], 1 << games[at].n)
            results[at][..., start:stop] = values
    return results if isinstance(game, GameBatch) else results[0]


def _jobs(games: Sequence[MaskedGame]) -> Iterator[list[tuple[int, int, int]]]:
    """Ranges of coalitions, (game, start, stop), that are evaluated together: some ROWS of rows."""
    jobs: list[tuple[int, int, int]] = []
    rows = 0
    for at, game in enumerate(games):
        block = max(1, ROWS // len(game.present))
        for start in range(0, 1 << game.n, block):
            stop = min(start + block, 1 << game.n)
            jobs.append((at, start, stop))
            rows += (stop - start) * len(game.present)
            if rows > ROWS - len(game.present):  # no room for another coalition
                yield jobs
                jobs, rows = [], 0
    if jobs:
        yield jobs


def _require_finite(values: Tensor, start: int) -> None:
    if not values.isfinite().all():
        at = (~values.isfinite()).nonzero()[0].tolist()
        got = f"the payoff {values[tuple(at)].item()} for sample {at[0]}"
        raise InputError("game", f"{got} (coalition {start + at[-1]})", "finite payoffs")


def dividends(v: Tensor) -> Tensor:
    """Harsanyi dividends I(S) = Σ_{L⊆S} (−1)^{|S|−|L|} v(L), ``(..., 2^n)`` (survey, Eq. 2).

    They sum to v(N), I(∅) = v(∅) included (Eq. 3). By the fast Möbius transform, O(n 2^n).

    Examples:
        >>> v = torch.tensor([0.0, 1.0, 2.0, 4.0])  # v(∅), v({0}), v({1}), v({0, 1})
        >>> dividends(v)
        tensor([0., 1., 2., 1.])
    """
    return _transform(v, -1, "v")


def values_from_dividends(dividends: Tensor) -> Tensor:
    """The game v(S) = Σ_{L⊆S} I(L), ``(..., 2^n)``: the inverse of :func:`dividends`."""
    return _transform(dividends, 1, "dividends")


def order_curve(v: Tensor) -> Tensor:
    """f(s), the mean of v over the coalitions of s = 0 … n players, ``(..., n + 1)``.

    Examples:
        >>> order_curve(torch.tensor([0.0, 1.0, 2.0, 4.0]))
        tensor([0.0000, 1.5000, 4.0000])
    """
    sums = _sums_by_size(v, 0)[..., 0]
    return (sums / binomials(sums.shape[-1] - 1, sums)).to(v)


def shapley_values(v: Tensor) -> Tensor:
    """Shapley values φ(i), ``(..., n)`` with n at least 1 (survey, Eq. 1, a slip corrected).

    Examples:
        >>> shapley_values(torch.tensor([0.0, 1.0, 2.0, 4.0]))
        tensor([1.5000, 2.5000])
    """
    sums = _sums_by_size(v, 1)
    total, present = sums[..., :1], sums[..., 1:]
    # Players join coalitions of size s: those of size s + 1 with i, less those of size s without.
    gains = present[..., 1:, :] - (total - present)[..., :-1, :]
    return (gains / binomials(gains.shape[-1] - 1, gains).unsqueeze(-1)).mean(-2).to(v)


def multi_order_interactions(v: Tensor, computed_in: torch.dtype | None = None) -> Tensor:
    """Multi-order interactions I^(m)(i,j) of all pairs and orders (survey, Eq. 11).

    I^(m)(i,j) is the mean of v(S∪ij) − v(S∪i) − v(S∪j) + v(S) over the contexts S ⊆ N∖{i,j} of m
    players; O(n² 2^n).

    ``(..., n - 1, n, n)`` with n at least 2: order m = 0 … n−2, player i, player j; symmetric, 0
    where i = j, and 0 where it is below the rounding noise of ``v``: 16 units in the last place of
    max |v| in ``computed_in``, the dtype that ``v`` was rounded to, by default its own.

    Examples:
        >>> majority = (all_coalitions(3).sum(1) >= 2).float()  # two of three players win
        >>> multi_order_interactions(majority)[:, 0, 1]  # first alone, then beside player 2
        tensor([ 1., -1.])
    """
    orders = _multi_order(v)
    eps = torch.finfo(computed_in or v.dtype).eps
    if eps > 1e-4:  # half precision, whose steps are as large as interactions: nothing is known
        return orders.to(v)
    # Sums in float32 are rounded too, of many more coalitions than a pair's.
    units = NOISE if orders.dtype is torch.float64 else NOISE * orders.shape[-1] ** 2 / 4
    noise = units * eps * v.detach().abs().amax(-1).to(orders)
    return orders.masked_fill(orders.abs() < noise[..., None, None, None], 0).to(v)


def shapley_interactions(v: Tensor) -> Tensor:
    """Shapley interaction indices I^Shap(i,j) of all pairs: the mean over m of I^(m)(i,j).

    ``(..., n, n)`` with n at least 2, symmetric, 0 on the diagonal.

    Examples:
        >>> both = all_coalitions(3)[:, :2].all(1).float()  # 0 and 1 win together
        >>> shapley_interactions(both)
        tensor([[0., 1., 0.],
                [1., 0., 0.],
                [0., 0., 0.]])
    """
    return _multi_order(v).mean(-3).to(v)


def order_strengths(multi_order: Tensor) -> Tensor:
    """E_x E_{i≠j} |I^(m)(i,j|x)|, ``(..., orders, n, n)`` with zero diagonals → ``(orders,)``."""
    shape = tuple(multi_order.shape)
    if len(shape) < 3 or shape[-1] != shape[-2] or shape[-1] < 2 or 0 in shape:
        raise InputError("multi_order", f"shape {shape}", "(..., orders, n, n) with n at least 2")
    pairs = wide(multi_order).abs().sum((-2, -1)) / (shape[-1] * (shape[-1] - 1))
    return pairs.reshape(-1, shape[-3]).mean(0).to(multi_order.dtype)


def interaction_spectrum(multi_order: Tensor) -> Tensor:
    """Relative strengths J^(m) = E_x E_ij |I^(m)(i,j|x)| / E_m [same] (survey, Eq. 21).

    ``(orders,)``, of what :func:`order_strengths` takes. Their mean is 1, so that spectra compare
    only over the same orders; NaN where none has any interaction.

    Examples:
        >>> majority = (all_coalitions(3).sum(1) >= 2).float()
        >>> interaction_spectrum(multi_order_interactions(majority))
        tensor([1., 1.])
    """
    strengths = order_strengths(multi_order)
    return strengths / strengths.mean()


def count_players(v: Tensor, least: int = 0, name: str = "v") -> int:
    """The number of players n of a value tensor."""
    if not isinstance(v, Tensor):
        raise InputError(name, type(v).__name__, "a floating point tensor (..., 2^n)")
    size = v.shape[-1] if v.dim() else 0
    n = size.bit_length() - 1
    if size != 1 << max(n, 0) or n < least or not v.is_floating_point():
        wanted = "floating point of shape (..., 2^n)" + f" with n at least {least}" * bool(least)
        raise InputError(name, f"{v.dtype} of shape {tuple(v.shape)}", wanted)
    return n


def binomials(n: int, sums: Tensor) -> Tensor:
    """C(n, k) for k = 0 … n, as numbers that divide ``sums``."""
    return torch.tensor([math.comb(n, k) for k in range(n + 1)]).to(sums)


def summable(v: Tensor) -> Tensor:
    """Values on their device, or on the CPU where that lacks float64."""
    return v if wide_dtype(v.device) is torch.float64 else v.cpu()


def _members(index: Tensor, n: int) -> Tensor:
    """The coalitions of some indices, bool ``(..., n)``."""
    return (index.unsqueeze(-1) >> torch.arange(n, device=index.device)).bitwise_and_(1).bool()


def _transform(v: Tensor, sign: int, name: str) -> Tensor:
    n = count_players(v, name=name)
    result = wide(summable(v)).clone(memory_format=torch.contiguous_format)
    for i in range(n):
        halves = result.view(*v.shape[:-1], 1 << (n - 1 - i), 2, 1 << i)
        halves[..., 1, :].add_(halves[..., 0, :], alpha=sign)
    return result.to(v)


def _multi_order(v: Tensor) -> Tensor:
    sums = _sums_by_size(v, 2)
    n = sums.shape[-1] - 1
    total, both = sums[..., :1, :1], sums[..., 1:, 1:]
    first, second = sums[..., 1:, :1], sums[..., :1, 1:]
    one, none = first + second - 2 * both, total - first - second + both
    result = both[..., 2:, :, :] - one[..., 1:-1, :, :] + none[..., :-2, :, :]
    result = result / binomials(n - 2, result)[:, None, None]
    return result.masked_fill(torch.eye(n, dtype=torch.bool, device=result.device), 0)


def _sums_by_size(v: Tensor, degree: int) -> Tensor:
    """Sums over the coalitions of each size of v, of v z and of v z zᵀ: degrees 0, 1 and 2.

    z = (1, indicators of the n players). ``(..., n + 1, 1)``, or with n + 1 for each z.
    """
    n = count_players(v, least=degree)
    flat = summable(v).reshape(-1, v.shape[-1])
    device = flat.device
    rows, columns = torch.triu_indices(n + 1, n + 1, device=device)
    features = (1, n + 1, len(rows))[degree]
    sums = []
    order = all_coalitions(n, device).sum(-1).argsort(stable=True)
    for one_size in order.split([math.comb(n, s) for s in range(n + 1)]):
        total = wide(flat.new_zeros(len(flat), features))
        for block in one_size.split(max(64, CELLS // max(features, len(flat)))):
            z = wide(torch.nn.functional.pad(_members(block, n), (1, 0), value=True))
            held = (z[:, :1], z, z[:, rows] * z[:, columns] if degree == 2 else z)[degree]
            total = total + wide(flat[:, block]) @ held
        sums.append(total)
    result = torch.stack(sums, 1)
    if degree == 2:
        place = torch.zeros(n + 1, n + 1, dtype=torch.int64, device=device)
        place[rows, columns] = place[columns, rows] = torch.arange(features, device=device)
        result = result[..., place]
    return result.reshape(*v.shape[:-1], *result.shape[1:])
