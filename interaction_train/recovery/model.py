"""A fit of all Walsh coefficients at once, and what is read off it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.recovery.kernel import (
    complements,
    left_out,
    log_prior,
    signs,
    walsh_kernel,
)
from interaction_train.recovery.pairs import from_blocks, project_blocks, solve
from interaction_train.recovery.readings import degree, order_variances, pairs_of, shapley_of

ORDERS = 10
Sets = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class WalshModel:
    """v(x) = Σ_S c_S χ_S(x) of B games of n players, all 2^n coefficients from m rows.

    χ_S = Π_{i∈S} z_i with z = −1 for a player who is present and 1 for one who is absent. The
    coefficients' posterior means ĉ_S under independent normal priors of variances proportional to
    Π_{i∈S} ρ_i, the mean c_∅ free. All readings are linear in ``values`` (R² and shares apart) and
    differentiable, with ρ and the noise held fixed; float64, on the CPU where the device lacks it.

    Sets are bool ``(k, n)``, the same for all samples, or ``(B, k, n)``, or a sequence of k
    sequences of players; another form raises InputError.

    Attributes:
        coalitions: bool ``(m, n)``, the rows of all samples.
        values: ``(B, m)``.
        fresh_coalitions: bool ``(f, n)``, rows that took no part in the fit; f may be 0.
        fresh_values: ``(B, f)``.
        rho: ``(B, n)``, in (0, 1).
        noise: ``(B,)``, variance of a value's noise over that of v under the prior.
    """

    coalitions: Tensor
    values: Tensor
    fresh_coalitions: Tensor
    fresh_values: Tensor
    rho: Tensor
    noise: Tensor

    @property
    def n(self) -> int:
        """The number of players."""
        return self.coalitions.shape[-1]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, sample: int) -> WalshModel:
        """One sample (B = 1)."""
        if not -len(self) <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        own = slice(sample % len(self), sample % len(self) + 1)
        names = ("values", "fresh_values", "rho", "noise")
        return replace(self, **{name: getattr(self, name)[own] for name in names})

    def predict(self, coalitions: Tensor) -> Tensor:
        """Values ``(B, K)`` of coalitions, bool ``(K, n)`` or ``(B, K, n)``.

        Raises:
            InputError: coalitions of another dtype or shape.
        """
        if not isinstance(coalitions, Tensor):
            raise InputError("coalitions", type(coalitions).__name__, "a bool tensor")
        coalitions = self._membership(coalitions, "coalitions")
        asked = signs(coalitions)

        def own(samples: Tensor, rho: Tensor, noise: Tensor) -> Tensor:
            rows = asked if asked.dim() == 2 else asked[samples]
            kernel = walsh_kernel(rows, self._z, rho)
            return (kernel @ self.alpha[samples].unsqueeze(-1)).squeeze(-1)

        return self._mean.unsqueeze(-1) + self._by_setting(own)

    def coefficient(self, sets: Sets) -> Tensor:
        """ĉ_S, ``(B, k)``, in the unit of the payoff; that of ∅ is the mean."""
        members = self._members(sets)
        found = (self.alpha.unsqueeze(-2) @ self.characters(members)).squeeze(-2)
        found = found * log_prior(members, self.rho).exp()
        return torch.where(members.any(-1), found, self._mean.unsqueeze(-1))

    def dividend(self, sets: Sets) -> Tensor:
        """Harsanyi dividends, the AND interactions, I(S) = (−2)^{|S|} Σ_{T⊇S} ĉ_T, ``(B, k)``."""
        return self._dividend(self._members(sets), self._z)

    def or_dividend(self, sets: Sets) -> Tensor:
        """OR interactions, minus the dividends of L ↦ v(N∖L), ``(B, k)``; that of ∅ is v(∅)."""
        members = self._members(sets)
        nothing = self._dividend(torch.zeros_like(members[:, :1]), self._z)
        return torch.where(members.any(-1), -self._dividend(members, -self._z), nothing)

    def shapley(self) -> Tensor:
        """Shapley values, ``(B, n)``."""
        return shapley_of(self._z, self.alpha, self.rho)

    def banzhaf(self) -> Tensor:
        """Banzhaf values −2 ĉ_i, ``(B, n)``: mean gains over all coalitions of the others."""
        own = torch.eye(self.n, dtype=torch.bool, device=self.rho.device)
        return -2 * self.coefficient(own)

    def pairs(self) -> Tensor:
        """Shapley interaction indices I^Shap(i,j), ``(B, n, n)``: symmetric, 0 on the diagonal."""
        return pairs_of(self._z, self.alpha, self.rho)

    def spectrum(self) -> Tensor:
        """Shares Σ_{|S|=d} ĉ_S² of the variance over all coalitions, ``(B, D)``, d = 1 … D.

        D is n, or 10 where there are more players; the last share is then that of all d ≥ 10. NaN
        where the fit is a constant up to rounding.
        """
        top = degree(self.rho.square(), self.n)

        def own(samples: Tensor, rho: Tensor, noise: Tensor) -> Tensor:
            return order_variances(self._z, self.alpha[samples], rho, top)

        orders = self._by_setting(own)[:, 1:].clamp(min=0)
        if self.n > ORDERS:
            first, rest = orders.split([ORDERS - 1, orders.shape[-1] - ORDERS + 1], -1)
            orders = torch.cat([first, rest.sum(-1, keepdim=True)], -1)
        total = orders.sum(-1, keepdim=True)
        rounding = torch.finfo(total.dtype).eps * self.alpha.abs().sum(-1, keepdim=True).square()
        return orders / total.masked_fill(total <= rounding, torch.nan)

    @property
    def r2_loo(self) -> Tensor:
        """R² of predictions of every row from the others, ``(B,)``; closed form.

        A row's complement, where the rows hold it, is left out with it: what the two share says
        nothing of other coalitions.
        """
        spread = self.values - self.values.mean(-1, keepdim=True)
        return 1 - self._left_out.square().sum(-1) / spread.square().sum(-1)

    @property
    def r2_holdout(self) -> Tensor:
        """R² on the fresh rows, ``(B,)``; NaN where there are none."""
        return r_squared(self.fresh_values, self.predict(self.fresh_coalitions))

    def stderr(self, sets: Sets) -> Tensor:
        """Posterior standard deviations of coefficients, ``(B, k)``, at the scale that fits best.

        They hold under the prior: of what it calls improbable they say little.
        """
        members = self._members(sets)
        prior, characters = log_prior(members, self.rho).exp(), self.characters(members)

        def own(samples: Tensor, rho: Tensor, noise: Tensor) -> Tensor:
            kernel = walsh_kernel(self._z, self._z, rho)
            weights, pull = project_blocks(kernel.unsqueeze(0), noise)
            columns, before = characters[samples], prior[samples]
            explained = (columns * (weights @ columns)).sum(-2)
            empty = pull @ kernel @ pull + noise * pull.square().sum() - (-rho.log1p().sum()).exp()
            after = before - before.square() * explained
            return torch.where(members[samples].any(-1), after, empty)

        scale = (self.values * self.alpha).sum(-1) / (self.values.shape[-1] - 1)
        return (self._by_setting(own).clamp(min=0) * scale.unsqueeze(-1)).sqrt()

    @property
    def alpha(self) -> Tensor:
        """α = P y, ``(B, m)``; their sum is 0."""
        return self._solved[:, : len(self.coalitions)]

    def characters(self, members: Tensor) -> Tensor:
        """χ_S of the rows, ``(B, m, k)``."""
        present = self.coalitions.double() @ members.double().transpose(-1, -2)
        return 1 - 2 * (present % 2)

    def _members(self, sets: Sets) -> Tensor:
        return self._membership(sets).expand(len(self), -1, -1)

    def _membership(self, sets: Sets, argument: str = "sets") -> Tensor:
        """Sets as membership, bool ``(k, n)`` or ``(B, k, n)``."""
        n, device = self.n, self.values.device
        if isinstance(sets, Tensor):
            shape = tuple(sets.shape)
            fits = len(shape) > 1 and shape[-1] == n and shape[:-2] in ((), (len(self),))
            if sets.dtype != torch.bool or not fits:
                expected = f"bool (k, {n}) or ({len(self)}, k, {n})"
                raise InputError(argument, f"{sets.dtype} {shape}", expected)
            return sets.to(device)
        if not isinstance(sets, Sequence):
            raise InputError("sets", repr(sets), "a sequence of sets")
        members = torch.zeros(len(sets), n, dtype=torch.bool)
        for at, one in enumerate(sets):
            try:
                players = [index(i) for i in one]
            except TypeError:
                players = [n]  # none of them
            if any(not 0 <= i < n for i in players) or len(set(players)) < len(players):
                raise InputError(f"sets[{at}]", repr(one), f"different players from 0 to {n - 1}")
            members[at, players] = True
        return members.to(device)

    def _dividend(self, members: Tensor, z: Tensor) -> Tensor:
        """Σ_j α_j Π_{i∉S} (1 + ρ_i z_i) / (1 + ρ_i) · Π_{i∈S} (−2 ρ_i z_i) / (1 + ρ_i)."""
        strength = self.rho.atanh()
        outside = z @ (strength.unsqueeze(-2) * ~members).transpose(-1, -2)
        inside = (2 * self.rho).log() - (1 - self.rho.square()).log() / 2
        constant = (members * inside.unsqueeze(-2)).sum(-1) - strength.sum(-1, keepdim=True)
        absent = (1 + z) / 2 @ members.double().transpose(-1, -2)
        signed = (1 - 2 * (absent % 2)) * (outside + constant.unsqueeze(-2)).exp()
        found = (self.alpha.unsqueeze(-2) @ signed).squeeze(-2)
        return found + self._mean.unsqueeze(-1) * ~members.any(-1)

    @cached_property
    def _z(self) -> Tensor:
        return signs(self.coalitions)

    @property
    def _mean(self) -> Tensor:
        """ĉ_∅, ``(B,)``."""
        return self._solved[:, -1]

    @property
    def _left_out(self) -> Tensor:
        """Values less their predictions from the other rows, ``(B, m)``."""
        return self._solved[:, len(self.coalitions) : -1]

    @cached_property
    def _solved(self) -> Tensor:
        def own(samples: Tensor, rho: Tensor, noise: Tensor) -> Tensor:
            alpha, mean, weights = solve(self._z, self.values[samples], rho, noise)
            residual = alpha / weights.diagonal(dim1=-2, dim2=-1)
            if len(weights) == 1:
                partner = complements(self.coalitions)
                between = weights[0].gather(-1, partner.unsqueeze(-1)).squeeze(-1)
                residual = left_out(alpha, weights[0].diagonal(), between, partner)
            return torch.cat([from_blocks(alpha), from_blocks(residual), mean.unsqueeze(-1)], -1)

        return self._by_setting(own)

    def _by_setting(self, compute: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """What is computed once for all samples of one ρ ``(n,)`` and one noise: ``(B, ...)``.

        So that there is one matrix of the rows at a time.
        """
        settings = torch.cat([self.rho, self.noise.unsqueeze(-1)], -1)
        distinct, which = settings.unique(dim=0, return_inverse=True)
        samples = [(which == k).nonzero().squeeze(-1) for k in range(len(distinct))]
        parts = zip(samples, distinct, strict=True)
        found = torch.cat([compute(own, one[:-1], one[-1]) for own, one in parts])
        return found[torch.cat(samples).argsort()]


def r_squared(values: Tensor, predicted: Tensor) -> Tensor:
    """R² over the last axis; NaN where the values are constant or there are none."""
    if values.shape[-1] == 0:
        return values.new_full(values.shape[:-1], torch.nan)
    spread = (values - values.mean(-1, keepdim=True)).square().sum(-1)
    r2 = 1 - (values - predicted).square().sum(-1) / spread
    return r2.masked_fill(spread == 0, torch.nan)
