"""The linear programme of the sparsest decomposition, for many samples at once, with a certificate.

Primal: min Σ_S ‖x(S)‖ with |K x − w| ≤ bound; dual: max ⟨w, y⟩ − bound ‖y‖₁ where the dual norm
of (Kᵀ y)(S) is at most 1 (:mod:`~interaction_train.concepts.penalty`). The alternating direction
method of multipliers works on the dual, split into z = Kᵀ y and t = y; x and w − K x are the
multipliers. Its one linear system, K Kᵀ + γ/β, is solved exactly
(:mod:`~interaction_train.concepts.operators`).

Tensors are ``(b, M, …)``: samples, each with the values of M networks; scaled to max |w| = 1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from interaction_train.concepts.operators import Operators
from interaction_train.concepts.penalty import Penalty

FEASIBLE = 1e-12  # beyond the bound, from rounding

_CORRECTED = 1e-9  # the same after a correction
_CORRECTIONS = 3  # of nearly singular systems
_CHECK = 25  # steps between two looks at the gap
_BALANCE = (10, 20, 40, 80, 160, 240, 320, 400, 500, 600, 800, 1000, 1300, 1600, 2000, 3000, 4000)
_LENGTH = 1.618  # of the step in the multipliers; below (1 + √5)/2 the method converges
_MARGIN = 0.003  # by which steps keep within the bound, so that sparse iterates are within it too
_PRICE = 0.003  # of the objective, what the margin may cost: less of it where the optimum is small
_SHARES = 0.2, 0.3  # penalties over the ratios of the sizes that they balance
_PATIENCE = 200
_NUMBERS = 2**16  # values at once; more are no faster


@dataclass
class Best:
    """The best decomposition and bound of each sample so far."""

    x: Tensor  # (B, M, 2, 2^n)
    objective: Tensor  # (B,), as all below
    lower: Tensor
    sparse: Tensor  # bool: x is an iterate as it came, with exact zeros
    steps: Tensor


@dataclass
class _Iterate:
    """What changes from step to step, of the samples that are not finished."""

    sample: Tensor  # (b,), which
    w: Tensor  # (b, M, 2^n), the values
    bound: Tensor  # (b, M, 1)
    y: Tensor  # (b, M, 2^n)
    z: Tensor  # (b, M, 2, 2^n)
    x: Tensor  # the multiplier of z = Kᵀ y: the interactions
    t: Tensor  # (b, M, 2^n), y again, for |y|
    q: Tensor  # the multiplier of t = y: w − K x
    beta: Tensor  # (b, 1, 1), penalty of z = Kᵀ y
    gamma: Tensor  # (b, M, 1), penalty of t = y
    margin: Tensor  # (b, 1, 1), the part of the bound that steps keep off
    reached: Tensor  # (b,), the first step whose gap was small enough, or a large number

    def keep(self, kept: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[kept])


def solve(
    ops: Operators, penalty: Penalty, w: Tensor, bound: Tensor, gap: float, max_steps: int
) -> Best:
    """Decompose values until every gap, relative to the objective, is small enough.

    So many samples at once that memory is flat in their number.
    """
    count = max(1, _NUMBERS // w[0].numel())
    parts = zip(w.split(count), bound.split(count), strict=True)
    found = [_solve(_Solver(ops, penalty, *part), gap, max_steps) for part in parts]
    return Best(*(torch.cat([getattr(b, f.name) for b in found]) for f in fields(Best)))


def _solve(solver: _Solver, gap: float, max_steps: int) -> Best:
    for step in range(1, max_steps + 1):
        candidate = solver.step()
        if step % _CHECK == 0 or step == max_steps:
            solver.look(candidate, step)
            if not solver.goes_on(gap, step):
                break
        if step in _BALANCE:
            solver.balance(max(0.3, 1 - step / 500))
    return solver.best


class _Solver:
    def __init__(self, ops: Operators, penalty: Penalty, w: Tensor, bound: Tensor) -> None:
        self.ops, self.penalty, self.exact = ops, penalty, not bool(bound.any())
        zero, two = torch.zeros_like(w), w.new_zeros(*w.shape[:2], 2, w.shape[-1])
        sample = torch.arange(len(w), device=w.device)
        self.now = _Iterate(
            sample, w, bound, zero, two, two.clone(), zero.clone(), zero.clone(),
            w.new_full((len(w), 1, 1), 0.01), torch.full_like(bound, 0.01),
            w.new_full((len(w), 1, 1), _MARGIN),
            torch.full_like(sample, 1 << 40),
        )  # fmt: skip
        self.best = self._constant()

    def _constant(self) -> Best:
        """What to begin with: no interactions, which is the optimum where a constant will do."""
        w, x = self.now.w, self.now.x.clone()
        low, high = w.aminmax(dim=-1, keepdim=True)
        enough = (high - low <= 2 * (self.now.bound + FEASIBLE)).all(1).flatten()
        x[..., 0, 0] = 0.5 * (low + high).squeeze(-1)
        objective = torch.where(enough, 0.0, w.new_tensor(torch.inf))
        return Best(
            x, objective, -torch.inf * torch.ones_like(objective), enough, 0 * self.now.sample
        )

    def step(self) -> Tensor:
        """One step; returns the sparse iterate of x."""
        s, ops = self.now, self.ops
        beta = s.beta.unsqueeze(-1)
        right = ops.values(torch.addcdiv(s.z, s.x, beta, value=-1)).addcdiv_(s.w, s.beta)
        if self.exact:
            s.y = ops.solve(right)
        else:
            tau = s.gamma / s.beta
            s.y = ops.solve(right.addcmul_(tau, s.t).addcdiv_(s.q, s.beta, value=-1), tau)
            off = torch.addcdiv(s.y, s.q, s.gamma)
            s.t = off - _within(off, s.bound * (1 - s.margin) / s.gamma)
            s.q.addcmul_(_LENGTH * s.gamma, s.y - s.t)
        constraint = ops.adjoint(s.y)
        moved = torch.addcdiv(constraint, s.x, beta)
        s.z = self.penalty.project(moved)
        s.z[..., 0, 0] = 0  # the constant is free
        s.x.addcmul_(_LENGTH * beta, constraint.sub_(s.z))
        return moved.sub_(s.z).mul_(beta)

    def look(self, candidate: Tensor, step: int) -> None:
        """Keep what is better than the best so far, on either side."""
        s, best = self.now, self.best
        at = s.sample
        lower, price = self._lower_bound()
        best.lower[at] = torch.maximum(best.lower[at], lower)
        dear = _PRICE * best.lower[at].clamp(min=0) / price.clamp(min=torch.finfo(price.dtype).tiny)
        s.margin = dear.clamp(max=_MARGIN)[:, None, None]
        best.steps[at] = step
        for x, has_zeros in ((s.x, False), (candidate, True)):
            off = self._off(x)
            sparse = (off.abs().amax((-2, -1)) <= FEASIBLE) & has_zeros
            for _ in range(_CORRECTIONS):
                off = off.masked_fill(sparse[:, None, None], 0)
                x = x + self.ops.adjoint(self.ops.solve(off))
                off = self._off(x)
            feasible = sparse | (off.abs().amax((-2, -1)) <= _CORRECTED)
            objective = self.penalty.total(x)
            # A sparse one, with its exact zeros, is worth a hundredth of the objective.
            known = best.objective[at] * (1 + 0.01 * (sparse.int() - best.sparse[at].int()))
            better = feasible & (objective < known)
            chosen = at[better]
            best.x[chosen], best.objective[chosen] = x[better], objective[better]
            best.sparse[chosen] = sparse[better]

    def goes_on(self, gap: float, step: int) -> bool:
        """Drop the finished samples; whether any is left.

        Where a gap is small enough but no iterate was sparse, steps go on for about as many again.
        """
        s, best = self.now, self.best
        objective, lower = best.objective[s.sample], best.lower[s.sample]
        close = (objective - lower <= gap * objective) | (objective <= FEASIBLE)
        s.reached = torch.where(close & (s.reached > step), step, s.reached)
        done = close & (best.sparse[s.sample] | (step >= 2 * s.reached + _PATIENCE))
        if bool(done.any()):
            s.keep(~done)
        return len(s.sample) > 0

    def balance(self, share: float) -> None:
        """Penalties that let both sides move alike, from how large both have become."""
        s = self.now
        inner = s.x.clone()
        inner[..., 0, 0] = 0
        ratio = _ratio(inner.flatten(1), s.z.flatten(1)).unsqueeze(-1)
        s.beta = (_SHARES[0] * share * ratio).clamp(1e-6, 1e3)
        gamma = (_SHARES[1] * share * _ratio(s.q, s.y)).clamp(1e-6, 1e3)
        s.gamma = torch.minimum(torch.maximum(gamma, 1e-3 * s.beta), 100 * s.beta)

    def _lower_bound(self) -> tuple[Tensor, Tensor]:
        """⟨w, y⟩ − bound ‖y‖₁ of the dual iterate, made feasible: no x does better.

        Also bound ‖y‖₁, which is what the bound is worth.
        """
        s = self.now
        y = s.y.clone()
        y[..., 0] -= y.sum(-1)  # the constant is free; no interaction meets ∅
        inner = self.ops.adjoint(y)
        inner[..., 0, 0] = 0
        y = y / self.penalty.gauge(inner).clamp(min=1)[:, None, None]
        worth = (s.bound * y.abs()).sum((-2, -1))
        return (y * s.w).sum((-2, -1)) - worth, worth

    def _off(self, x: Tensor) -> Tensor:
        """By how much w − K x is beyond the bound."""
        rest = self.now.w - self.ops.values(x)
        return rest - _within(rest, self.now.bound)


def _within(values: Tensor, bound: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(values, -bound), bound)


def _ratio(first: Tensor, second: Tensor) -> Tensor:
    sizes = (x.square().sum(-1, keepdim=True).sqrt() for x in (first, second))
    return next(sizes) / next(sizes).clamp(min=torch.finfo(first.dtype).tiny)
