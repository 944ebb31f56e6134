"""The few concepts that stand for a game: chosen, refitted, and callable like the game."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from interaction_train.concepts.concepts import Concepts
from interaction_train.concepts.patterns import (
    columns,
    counted_on,
    described,
    least_squares,
    spread,
    sums_of,
    values_of,
)
from interaction_train.errors import InputError, in_range
from interaction_train.indices.exact import count_players, summable

_SYNC = 16  # removals between two looks at whether all samples are done


@dataclass(frozen=True)
class Surrogate:
    """A few AND and OR concepts that stand for a game, for B samples of n players.

    Concepts are in the order of their strength |I| in the decomposition that they come from, k of
    them where a sample has most; a sample with fewer has rows of no players and value 0 after them.

    Attributes:
        members: bool ``(B, k, n)``, the players of a concept.
        is_or: bool ``(B, k)``.
        value: ``(B, k)``, what a concept adds where it counts, in the unit of the payoff.
        constant: ``(B,)``, the value of ∅.
        r2: ``(B,)``, R² over all 2^n coalitions; NaN where the game is constant.
        max_error: ``(B,)``, |v_surrogate(S) − v(S)| at the worst S, in the unit of the payoff.
        count: ``(B,)`` int64, concepts of a sample.
    """

    members: Tensor
    is_or: Tensor
    value: Tensor
    constant: Tensor
    r2: Tensor
    max_error: Tensor
    count: Tensor

    @property
    def n(self) -> int:
        """The number of players."""
        return self.members.shape[-1]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, sample: int) -> Surrogate:
        """One sample (B = 1), without rows after its concepts."""
        if not -len(self) <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        at, k = sample % len(self), int(self.count[sample])
        one = {field.name: getattr(self, field.name)[at : at + 1] for field in fields(self)}
        one |= {name: one[name][:, :k] for name in ("members", "is_or", "value")}
        return Surrogate(**one)

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Values ``(B, K)`` of coalitions, bool ``(K, n)`` or ``(B, K, n)``.

        Raises:
            InputError: coalitions of another dtype or shape.
        """
        shape, batch = tuple(coalitions.shape), len(self)
        fits = shape[-1:] == (self.n,) and shape[:-2] in ((), (batch,))
        if coalitions.dtype != torch.bool or len(shape) < 2 or not fits:
            expected = f"bool (K, {self.n}) or ({batch}, K, {self.n})"
            raise InputError("coalitions", f"{coalitions.dtype} {shape}", expected)
        members = self.members.to(self.value).transpose(-1, -2)
        present = coalitions.to(self.value)
        some, missing = present @ members > 0, (1 - present) @ members > 0
        counts = torch.where(self.is_or.unsqueeze(1), some, ~missing).to(self.value)
        return self.constant.unsqueeze(-1) + (counts @ self.value.unsqueeze(-1)).squeeze(-1)


def select_concepts(
    concepts: Concepts,
    v: Tensor,
    count: int | None = None,
    r2: float | None = None,
    refit: bool = True,
) -> Surrogate:
    """The few concepts of a decomposition that stand for its game; never one of value 0.

    Args:
        concepts: a decomposition of ``v``.
        v: the game, ``(B, 2^n)``, or ``(2^n,)`` for one sample.
        count: keep so many at most, the strongest by |I|; ties by lowest index, ANDs before ORs.
        r2: instead, remove one by one the concept that raises the squared error least, while R²
            over all coalitions, of the decomposition's own values, stays at least this. Each step
            is one transform for all candidates, O(n 2^n). Warns (``UserWarning``) where the
            surrogate stays below, as the decomposition itself is too coarse.
        refit: replace values and constant by those of least squares over all coalitions.

    Raises:
        InputError: not exactly one of ``count`` and ``r2``, or one out of range (``count`` 1 to
            2^(n+1), ``r2`` in (0, 1]); ``v`` no finite value tensor, or not of the concepts' shape.
    """
    if (count is None) == (r2 is None):
        raise InputError("count", f"{count} and r2 = {r2}", "exactly one of count and r2")
    values, weights, constant = decomposed(concepts, v)
    n = concepts.n
    kept = weights != 0
    if count is not None:
        in_range("count", count, 1, 2 << n)
    if r2 is not None:
        in_range("r2", r2, 0, 1, above=True)
        kept = _removed_down_to(r2, values, weights, constant)
    order, used = ranked(weights * kept)
    counts = used.sum(-1).clamp(max=2 << n if count is None else count)
    index = order[:, : int(counts.max())]
    used = torch.arange(index.shape[-1], device=index.device) < counts.unsqueeze(-1)
    value = weights.gather(-1, index) * used
    if refit:
        constant, value = least_squares(values, index, used)
    fitted = constant.unsqueeze(-1) + values_of(spread(value, index, n))
    found = r_squared(values, fitted)
    if r2 is not None and bool((found < r2 - 1e-9).any()):
        below = found[found < r2]
        warnings.warn(
            f"{len(below)} of {len(found)} surrogates stay below r2 = {r2}, the worst at "
            f"{float(below.min()):.4g}: decompose with less noise",
            stacklevel=2,
        )
    members, is_or = described(index, n)
    return Surrogate(
        members=(members & used.unsqueeze(-1)).to(v.device),
        is_or=(is_or & used).to(v.device),
        value=value.to(v),
        constant=constant.to(v),
        r2=found.to(v),
        max_error=(fitted - values).abs().amax(-1).to(v),
        count=counts.to(v.device),
    )


def removal_costs(residual: Tensor, weights: Tensor, norms: Tensor) -> Tensor:
    """By how much the squared error grows when a concept goes, ``(B, 2^(n+1))``, for all at once.

    ‖r + x_j K_j‖² − ‖r‖² = 2 x_j ⟨r, K_j⟩ + x_j² ‖K_j‖², K_j being 1 where concept j counts.

    Args:
        residual: r = v less the surrogate, ``(B, 2^n)``.
        weights: x, I_and and I_or one after the other, ``(B, 2^(n+1))``.
        norms: ‖K_j‖², ``(2^(n+1),)``, of :func:`~interaction_train.concepts.patterns.counted_on`.
    """
    return weights * (2 * sums_of(residual) + weights * norms)


def decomposed(concepts: Concepts, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values ``(B, 2^n)``, I_and and I_or ``(B, 2^(n+1))`` and constant, float64, checked.

    What a decomposition says of ∅ is in the constant, as these are no concepts.

    Raises:
        InputError: ``v`` no finite value tensor, or not of the concepts' shape.
    """
    count_players(v, least=1)
    if v.dim() > 2 or not v.shape == concepts.and_.shape == concepts.or_.shape:
        expected = f"that of the concepts, {tuple(concepts.and_.shape)}, as (B, 2^n) or (2^n,)"
        raise InputError("v", f"shape {tuple(v.shape)}", expected)
    if not bool(v.isfinite().all()):
        raise InputError("v", "values that are not finite", "finite values")
    one = [v, concepts.and_, concepts.or_]
    values, i_and, i_or = (summable(t.detach()).double().reshape(-1, v.shape[-1]) for t in one)
    constant = summable(concepts.constant.detach()).double().reshape(-1)
    constant = constant + i_and[:, 0] + i_or[:, 0]
    weights = torch.stack([i_and, i_or], 1)
    weights[..., 0] = 0
    return values, weights.flatten(1), constant


def ranked(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Patterns by falling strength, ties by lowest index, and which of them are not 0."""
    strength, order = weights.abs().sort(dim=-1, descending=True, stable=True)
    return order, strength > 0


def r_squared(v: Tensor, fitted: Tensor) -> Tensor:
    """R² over the last axis; NaN where v is constant."""
    spread_of_v = (v - v.mean(-1, keepdim=True)).square().sum(-1)
    r2 = 1 - (v - fitted).square().sum(-1) / spread_of_v
    return r2.masked_fill(v.amax(-1) == v.amin(-1), torch.nan)


def _removed_down_to(r2: float, v: Tensor, weights: Tensor, constant: Tensor) -> Tensor:
    """Which concepts are left, bool ``(B, 2^(n+1))``, of a removal that keeps R² ≥ r2."""
    n = count_players(v)
    kept = weights != 0
    allowed = (1 - r2) * (v - v.mean(-1, keepdim=True)).square().sum(-1)
    residual = v - constant.unsqueeze(-1) - values_of(weights)
    norms = counted_on(n, v.device)
    going = torch.ones_like(allowed, dtype=torch.bool)
    for step in range(int(kept.sum(-1).max())):
        costs = removal_costs(residual, weights, norms).masked_fill(~kept, torch.inf)
        least, which = costs.min(-1)
        going &= residual.square().sum(-1) + least <= allowed
        if step % _SYNC == 0 and not bool(going.any()):
            break
        place = which.unsqueeze(-1)
        gone = weights.gather(-1, place) * going.unsqueeze(-1)
        residual = residual + gone * columns(which, n)
        kept = kept.scatter(-1, place, kept.gather(-1, place) & ~going.unsqueeze(-1))
    return kept
