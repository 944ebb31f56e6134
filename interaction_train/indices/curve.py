"""What nested chains show: Shapley values and the order curve; and the exact mean over pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from interaction_train.errors import InputError, at_least
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide
from interaction_train.sampling.random import Draws, content_hash


def player_interactions(game: MaskedGame) -> Tensor:
    """Σ_{j≠i} I^Shap(i,j) = v(N) − v(N∖i) − v({i}) + v(∅) of every player, ``(B, n)``; exact.

    2n + 2 evaluations. From Shapley values with and without a player. Needs 2 players, and payoffs
    of one number, which is finite.
    """
    single = torch.eye(game.n, dtype=torch.bool, device=game.present.device)
    values = finite_values(game, torch.cat([end_coalitions(game), single, ~single]))
    empty, full, alone, without = values.split([1, 1, game.n, game.n], -1)
    return full - without - alone + empty


def mean_interaction(game: MaskedGame) -> Tensor:
    """The mean of I^Shap(i,j) over all pairs, ``(B,)``, by the closed form; exact.

    E_{i≠j} I^Shap(i,j) = E_i[v(N) − v(N∖i) − v({i}) + v(∅)]/(n−1).

    Examples:
        >>> from interaction_train.game.players import UnitPlayers
        >>> def product(x):  # logits x0 x1 x2 and 0
        ...     return torch.stack([x.prod(1), torch.zeros(len(x))], 1)
        >>> x, y = torch.ones(1, 3), torch.tensor([0])
        >>> game = MaskedGame(product, x, 0.0, UnitPlayers(), labels=y)
        >>> mean_interaction(game)
        tensor([0.5000], dtype=torch.float64)
    """
    return player_interactions(game).mean(-1) / (game.n - 1)


@dataclass(frozen=True)
class OrderCurve:
    """The order curve f(s) and the mean interactions of all orders.

    Attributes:
        curve: ``(B, n + 1)``, f(s), the mean of v over coalitions of s players, s = 0 … n.
        curve_stderr: ``(B, n + 1)``, standard errors over chains; 0 at both ends, which are exact.
        orders: ``(B, n − 1)``, mean over pairs of I^(m)(i,j), m = 0 … n−2: second differences of
            the curve, f(m+2) − 2f(m+1) + f(m).
        orders_stderr: ``(B, n − 1)``, over chains.
        evaluations: coalitions evaluated per sample.
    """

    curve: Tensor
    curve_stderr: Tensor
    orders: Tensor
    orders_stderr: Tensor
    evaluations: int


def sample_order_curve(game: MaskedGame, chains: int = 100, *, seed: int = 0) -> OrderCurve:
    """The order curve and all signed mean orders, from chains of nested coalitions.

    Every chain adds the players one by one in a random order; v(∅) and v(N) are shared, so it costs
    n − 1 evaluations. Orders are those of the survey's Eq. 11. Memory is flat in ``chains``.

    Args:
        game: of B samples and 2 players at least; payoffs are one number, which is finite.
        chains: number of chains, at least 2.
        seed: seed of the draws.
    """
    n = game.n
    at_least("chains", chains, 2)
    draws = Draws(content_hash(game.present), seed, "order_curve")
    ends = finite_values(game, end_coalitions(game))
    found = nested_chains(game, chains, draws, ends)
    both = (torch.cat([curve, curve.diff(n=2)], -1) for _, curve in found)
    mean, error = mean_of_chains(both, chains)
    mean[:, [0, n]], error[:, [0, n]] = ends, 0
    parts = (part.split([n + 1, n - 1], 1) for part in (mean, error))
    (curve, orders), (curve_error, orders_error) = parts
    return OrderCurve(curve, curve_error, orders, orders_error, chains * (n - 1) + 2)


@dataclass(frozen=True)
class ValueEstimates:
    """Shapley values of B samples, in the unit of the payoff.

    Attributes:
        value: ``(B, n)``, unbiased; they sum to v(N) − v(∅), up to rounding.
        stderr: ``(B, n)``, standard errors over chains.
        ends: ``(B, 2)``, v(∅) and v(N); exact.
        evaluations: coalitions evaluated per sample.
    """

    value: Tensor
    stderr: Tensor
    ends: Tensor
    evaluations: int


def sample_shapley_values(game: MaskedGame, chains: int = 100, *, seed: int = 0) -> ValueEstimates:
    """Shapley values φ(i), the mean gain by player i over random orders of joining.

    Every chain adds all players in a random order and gives each of them a gain, for n − 1
    evaluations (Castro, Gómez & Tejada, "Polynomial calculation of the Shapley value based on
    sampling", 2009). Memory is flat in ``chains``.

    Args:
        game: of B samples and 2 players at least; payoffs are one number, which is finite.
        chains: number of chains, at least 2.
        seed: seed of the draws, which otherwise depend on a sample's content alone.

    Raises:
        InputError: arguments out of range, or a bad payoff.

    Examples:
        >>> import interaction_train as it
        >>> x, y, net = torch.rand(2, 1, 8, 8), torch.tensor([3, 8]), it.models.DigitsNet()
        >>> game = it.MaskedGame(net, x, 0.3, it.GridPlayers(4, 4), labels=y, chunk_size=64)
        >>> found = sample_shapley_values(game, chains=10)
        >>> found.value.shape, found.evaluations  # 10 chains of 15, v(∅) and v(N)
        (torch.Size([2, 16]), 152)
    """
    at_least("chains", chains, 2)
    ends = finite_values(game, end_coalitions(game))
    draws = Draws(content_hash(game.present), seed, "shapley_values")
    found = nested_chains(game, chains, draws, ends)
    mean, error = mean_of_chains((curve.diff().gather(-1, place) for place, curve in found), chains)
    return ValueEstimates(mean, error, ends, chains * (game.n - 1) + 2)


def nested_chains(
    game: MaskedGame, chains: int, draws: Draws, ends: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Chains in which the players join one by one in a random order, in blocks of k chains.

    n − 1 evaluations each. Yields the place of every player in that order, int64 ``(B, k, n)``, and
    v along the chain, ``(B, k, n + 1)``, between v(∅) and v(N), which are given: ``(B, 2)``.
    """
    n = game.n
    sizes = torch.arange(1, n, device=game.present.device)
    for span in game.spans(chains, n - 1):
        place = draws.bits("chains", span, n).argsort(-1).argsort(-1)
        coalitions = (place.unsqueeze(2) < sizes[:, None]).flatten(1, 2)
        values = coalition_values(game, coalitions).unflatten(1, (len(span), n - 1))
        first, last = ends[:, None].expand(-1, len(span), -1).split(1, -1)
        yield place, torch.cat([first, values, last], -1)


def mean_of_chains(blocks: Iterable[Tensor], chains: int) -> tuple[Tensor, Tensor]:
    """The mean over chains and its standard error, ``(B, ...)``; of blocks ``(B, k, ...)``."""
    sums = (torch.stack([block.sum(1), block.square().sum(1)]) for block in blocks)
    mean, square = reduce(torch.add, sums) / chains
    require_finite(mean)
    return mean, ((square - mean.square()).clamp(min=0) / (chains - 1)).sqrt()


def require_finite(values: Tensor) -> None:
    """Refuse NaN and infinite values ``(B, …)``, naming the first sample that has one."""
    bad = ~values.flatten(1).isfinite().all(-1)
    if bad.any():
        at = int(bad.nonzero()[0, 0])
        raise InputError("game", f"a payoff that is not finite for sample {at}", "finite payoffs")


def coalition_values(game: MaskedGame, coalitions: Tensor) -> Tensor:
    """v of coalitions in the dtype of sums, ``(B, K)``; one number per coalition, or it refuses."""
    return wide(one_number(game(coalitions)))


def one_number(values: Tensor) -> Tensor:
    """A game's values ``(B, K)``; refuses those of a payoff of several numbers."""
    if values.dim() != 2:
        raise InputError("payoff", "one value per class", "one number per coalition")
    return values


def end_coalitions(game: MaskedGame) -> Tensor:
    """∅ and N, bool ``(2, n)``; refuses fewer than 2 players."""
    if game.n < 2:
        raise InputError("game", f"{game.n} player", "at least 2 players")
    return torch.arange(2, device=game.present.device).bool()[:, None].expand(-1, game.n)


def finite_values(game: MaskedGame, coalitions: Tensor) -> Tensor:
    """:func:`coalition_values` that are read back and refused where they are not finite."""
    values = coalition_values(game, coalitions)
    require_finite(values)
    return values
