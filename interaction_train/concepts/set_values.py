"""What a tree and a table of phrases ask of a game: exact where it is small, sampled beyond."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide
from interaction_train.indices.blocks import block_interaction
from interaction_train.indices.curve import end_coalitions, one_number, require_finite
from interaction_train.indices.exact import NOISE, count_players, exact_values
from interaction_train.indices.exact_sets import block_shapley_values, multivariate_strength
from interaction_train.indices.sampled_blocks import sample_between
from interaction_train.indices.sampled_sets import sample_multivariate, sample_strength

EXACT_PLAYERS = 16
CONTEXTS = 100
_LARGEST = {True: 12, False: 8}  # sets whose partitions are all compared, of exact values and not


@dataclass(frozen=True, kw_only=True)
class SetValues:
    """The interactions within a set of players S; NaN where they were not measured.

    Standard errors are 0 where values are exact.

    Attributes:
        multivariate: B([S]), in the unit of the payoff, as all of these.
        multivariate_stderr: its standard error.
        strength: T([S]); NaN for sets of more than 12 players, 8 where values are sampled (these
            are then at most T in the mean).
        strength_stderr: its standard error.
        shapley: φ([S] | N∖S ∪ {[S]}).
        shapley_stderr: its standard error.
    """

    multivariate: float = math.nan
    multivariate_stderr: float = math.nan
    strength: float = math.nan
    strength_stderr: float = math.nan
    shapley: float = math.nan
    shapley_stderr: float = math.nan


class Exact:
    """Interactions of one game, from its values.

    Attributes:
        n: number of players.
        names: of them.
        noise: what rounding may add to a ψ.
        exact: whether values are.
        evaluations: coalitions evaluated so far.
    """

    names: tuple[str, ...]
    exact = True

    def __init__(self, v: Tensor, evaluations: int) -> None:
        self.n, self.evaluations = count_players(v, 2, "v_or_game"), evaluations
        if v.numel() != v.shape[-1]:
            expected = "one game (2^n,); of several, one after the other: … for one in v"
            raise InputError("v_or_game", f"shape {tuple(v.shape)}", expected)
        self._v = v.detach().flatten()
        require_finite(self._v[None])
        self.names = tuple(map(str, range(self.n)))
        self.noise = NOISE * torch.finfo(v.dtype).eps * float(self._v.abs().max())

    def between(
        self, a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """ψ of P pairs of blocks and its standard errors, ``(P,)`` each; 0 where they are noise."""
        psi = block_interaction(self._v, a, b)
        psi = psi.masked_fill(psi.abs() <= self.noise, 0)
        return psi, torch.zeros_like(psi)

    def within(self, players: Sequence[int], strength: bool = True) -> SetValues:
        """The interactions within a set; T only if wanted."""
        phi = block_shapley_values(wide(self._v), players)
        together = phi[-1] - phi[[1 << k for k in range(len(players))]].sum()
        t = together.new_full((), math.nan)
        if strength := strength and len(players) <= _LARGEST[True]:
            t = multivariate_strength(self._v, players)
        return SetValues(
            multivariate=self._rounded(together, len(players)),
            multivariate_stderr=0.0,
            strength=self._rounded(t, len(players)),
            strength_stderr=0.0 if strength else math.nan,
            shapley=float(phi[-1]),
            shapley_stderr=0.0,
        )

    def _rounded(self, value: Tensor, terms: int) -> float:
        """0 where a sum of so many terms is no more than rounding."""
        return 0.0 if abs(float(value)) <= terms * self.noise else float(value)


class Sampled:
    """The same, from samples; the attributes are those of :class:`Exact`."""

    names: tuple[str, ...]
    exact = False

    def __init__(self, game: MaskedGame, contexts: int, seed: int) -> None:
        self.n, self._game, self._contexts, self._seed = game.n, game, contexts, seed
        ends = one_number(game(end_coalitions(game)))
        require_finite(ends)
        self.noise = NOISE * torch.finfo(ends.dtype).eps * float(ends.abs().max())
        self.evaluations = 2

    def between(
        self, a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        size = min(len(i) + len(j) for i, j in zip(a, b, strict=True))
        found = sample_between(self._game, a, b, self._needed(size, 4), seed=self._seed)
        self.evaluations += found.evaluations
        psi, stderr = found.value[0], found.stderr[0]
        psi = psi.masked_fill(psi.abs() <= self.noise, 0)
        return psi, stderr.masked_fill(stderr <= self.noise, 0)

    def within(self, players: Sequence[int], strength: bool = True) -> SetValues:
        strength &= len(players) <= _LARGEST[False]
        lower = lower_stderr = math.nan
        contexts = self._needed(len(players), 2)
        found = sample_multivariate(self._game, players, contexts, seed=self._seed)
        self.evaluations += found.evaluations
        if strength:
            t = sample_strength(self._game, players, contexts, seed=self._seed)
            self.evaluations += t.evaluations
            lower, lower_stderr = float(t.lower), float(t.lower_stderr)
        return SetValues(
            multivariate=float(found.value),
            multivariate_stderr=float(found.stderr),
            strength=lower,
            strength_stderr=lower_stderr,
            shapley=float(found.shapley),
            shapley_stderr=float(found.shapley_stderr),
        )

    def _needed(self, size: int, least: int) -> int:
        """How many contexts a set of a size needs: that of all players has but one, ∅."""
        return min(least, self._contexts) if size == self.n else self._contexts


def open_game(
    v_or_game: Tensor | MaskedGame, contexts: int | None, names: Sequence[str] | None, seed: int
) -> Exact | Sampled:
    """Exact values, or those of a game of up to 16 players; sampled beyond and with ``contexts``.

    Raises:
        InputError: several games, fewer than two players, names of another number, or contexts for
            exact values.
    """
    source: Exact | Sampled
    if not isinstance(v_or_game, MaskedGame):
        if contexts is not None:
            raise InputError("contexts", contexts, "None for exact values, which need none")
        source = Exact(v_or_game, 0)
    else:
        if len(v_or_game.present) != 1:
            got = f"a game of {len(v_or_game.present)} samples"
            raise InputError("v_or_game", got, "one sample at a time")
        end_coalitions(v_or_game)  # refuses fewer than two players
        if contexts is None and v_or_game.n <= EXACT_PLAYERS:
            source = Exact(exact_values(v_or_game), 1 << v_or_game.n)
        else:
            source = Sampled(v_or_game, CONTEXTS if contexts is None else contexts, seed)
        source.names = v_or_game.players.names(v_or_game.present.shape[1:])
    if names is not None:
        source.names = tuple(map(str, names))
        if len(source.names) != source.n:
            raise InputError("names", f"{len(source.names)} names", f"{source.n}, one per player")
    return source
