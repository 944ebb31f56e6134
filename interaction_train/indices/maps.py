"""Maps of interactions: how strongly each player interacts with all others at an order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interaction_train.errors import one_of, whole
from interaction_train.game.masked import ROWS, MaskedGame
from interaction_train.game.players import Players
from interaction_train.game.precision import wide
from interaction_train.indices.curve import one_number, require_finite
from interaction_train.indices.exact import all_coalitions, multi_order_interactions
from interaction_train.indices.readings import plug_in, split_sign
from interaction_train.indices.sampled_pairs import resolve_orders, sample_multi_order
from interaction_train.sampling.pairs import PairBlocks, PairSampler
from interaction_train.sampling.random import Draws

LEVELS = (0.1, 0.5, 0.9)
"""Low, middle and high order as parts m/(n−2)."""
_LISTED = 16  # players whose contexts may all be taken


@dataclass(frozen=True)
class InteractionMaps:
    """Σ_j |I^(m)(i,j)| of B samples, M orders and n players, in the unit of the payoff.

    Attributes:
        orders: the M orders as numbers of players.
        plug_in: ``(B, M, n)``, biased up where contexts are drawn.
        split_sign: ``(B, M, n)``, biased down.
        exact: of each order, whether all contexts were taken with all partners: then both readings
            are the value itself.
        partners: how many partners j each player had, at least; the sum is scaled up to n − 1.
    """

    orders: tuple[int, ...]
    plug_in: Tensor
    split_sign: Tensor
    exact: tuple[bool, ...]
    partners: int

    def told(self, place: int) -> str:
        """How the values of an order came about, for captions."""
        if self.exact[place]:
            return "exact"
        n = self.plug_in.shape[-1]
        return "plug-in" if self.partners == n - 1 else f"plug-in, {self.partners} partners"


class Partners(PairSampler):
    """All pairs inside random blocks that cover all players, of sizes as equal as can be.

    So every player has partners, and every pair is equally likely. Blocks overlap by a player where
    they must.

    Args:
        number: about how many partners each player has, at least 1.

    Raises:
        InputError: fewer, or no whole number.
    """

    def __init__(self, number: int) -> None:
        self.number = whole("partners", number, 1)

    def count(self, n: int) -> int:
        """How many partners each of n players has at least."""
        return -(-n // self._blocks(n)) - 1

    def blocks(self, players: Players, shape: Sequence[int], draws: Draws) -> PairBlocks:
        n = players.count(shape)
        size, number = self.count(n) + 1, self._blocks(n)
        starts = torch.arange(number) * n // number
        places = (starts[:, None] + torch.arange(size)).to(draws.content.device, non_blocking=True)
        order = draws.bits("partners", n).argsort(-1)
        return PairBlocks(order[:, places], torch.triu_indices(size, size, 1).T)

    def _blocks(self, n: int) -> int:
        return max(1, round(n / (self.number + 1)))


def interaction_map(
    game: MaskedGame,
    order: int,
    contexts: int = 100,
    *,
    partners: int = 16,
    reading: Literal["plug_in", "split_sign"] = "plug_in",
    seed: int = 0,
) -> Tensor:
    """Σ_j |I^(m)(i,j)| of every player i at one order m, ``(B, n)`` (survey, Sec. 4.2).

    What :func:`interaction_maps` says of one order, ``"plug_in"`` (biased up) or ``"split_sign"``
    (biased down); both are exact where that says so.

    Examples:
        >>> import interaction_train as it
        >>> def first_two(x):  # logits x0 x1 and 0
        ...     return torch.stack([x[:, 0] * x[:, 1], 0 * x[:, 0]], 1)
        >>> x, y = torch.ones(1, 4), torch.tensor([0])
        >>> game = MaskedGame(first_two, x, 0.0, it.UnitPlayers(), labels=y)
        >>> interaction_map(game, order=1)
        tensor([[1., 1., 0., 0.]], dtype=torch.float64)
    """
    one_of("reading", reading, ("plug_in", "split_sign"))
    found = interaction_maps(game, contexts, orders=[order], partners=partners, seed=seed)
    values: Tensor = getattr(found, reading)
    return values[:, 0]


def interaction_maps(
    game: MaskedGame,
    contexts: int = 100,
    *,
    orders: Sequence[int] | None = None,
    ratios: Sequence[float] | None = None,
    partners: int = 16,
    seed: int = 0,
) -> InteractionMaps:
    """Maps of several orders, from the same pairs.

    An order is exact where all partners are taken and ``contexts`` reach for all C(n−2, m) contexts
    of a pair, as for the one of the first and last order. Otherwise contexts are those of
    :func:`~interaction_train.indices.sampled_pairs.sample_multi_order`; with few contexts some
    pairs meet none, and a player is NaN if all of its pairs do. Memory is flat in the number of
    contexts.

    Args:
        game: of B samples; payoffs are one number, which is finite.
        contexts: contexts per pair and order, in the mean over pairs; at least 2.
        orders: numbers of players in the context, 0 … n−2, or
        ratios: parts of n−2; default: :data:`LEVELS`.
        partners: about how many partners of each player are looked at.
        seed: seed of the draws, which otherwise depend on a sample's content alone.

    Raises:
        InputError: arguments out of range, fewer than two players, or a bad payoff.
    """
    whole("contexts", contexts, 2)
    n, choice = game.n, Partners(partners)
    if orders is None and ratios is None:
        orders = list(dict.fromkeys(round(ratio * (n - 2)) for ratio in LEVELS))
    wanted = resolve_orders(n, orders, ratios)
    everybody = choice.count(n) == n - 1
    listed = [m for m in wanted if everybody and n <= _LISTED and math.comb(n - 2, m) <= contexts]
    drawn = [m for m in wanted if m not in listed]
    found: dict[int, tuple[Tensor, Tensor]] = {}
    if listed:
        strengths = wide(_listed(game, listed)).abs().sum(-1)
        found = {m: (strengths[:, m], strengths[:, m]) for m in listed}
    if drawn:
        estimates = sample_multi_order(game, choice, contexts, orders=drawn, seed=seed)
        upper, lower = (
            _per_player(estimates.pairs, reading(estimates), n) for reading in (plug_in, split_sign)
        )
        found |= {m: (upper[:, k], lower[:, k]) for k, m in enumerate(drawn)}
    upper, lower = (torch.stack([found[m][k] for m in wanted], 1) for k in (0, 1))
    exact = tuple(everybody and math.comb(n - 2, m) <= contexts for m in wanted)
    return InteractionMaps(wanted, upper, lower, exact, choice.count(n))


def _listed(game: MaskedGame, orders: Sequence[int]) -> Tensor:
    """I^(m)(i,j) of some orders from all contexts, ``(B, n − 1, n, n)``; the others are not it."""
    members = all_coalitions(game.n, game.present.device)
    sizes = [m + joined for m in orders for joined in range(3)]
    needed = torch.isin(members.sum(-1), torch.tensor(sizes, device=members.device))
    places, batch = needed.nonzero().flatten(), len(game.present)
    game.choose_chunk(batch * len(places))
    blocks = places.split(max(1, ROWS // batch))
    values = torch.cat([one_number(game(members[block])) for block in blocks], 1)
    require_finite(values)
    v = values.new_zeros(batch, len(members))
    v[:, places] = values
    return multi_order_interactions(v)


def _per_player(pairs: Tensor, values: Tensor, n: int) -> Tensor:
    """n − 1 times the mean over a player's pairs ``(B, P, 2)`` with a value, ``(B, M, n)``."""
    there = values.isfinite().to(values)
    total, count = (values.new_zeros(*values.shape[:2], n) for _ in range(2))
    for ends in pairs.unbind(-1):
        at = ends[:, None].expand_as(values)
        total.scatter_add_(-1, at, values.nan_to_num())
        count.scatter_add_(-1, at, there)
    return total / count * (n - 1)
