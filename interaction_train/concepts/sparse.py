"""The sparsest AND-OR decomposition of a game, or of several networks' games together."""

from __future__ import annotations

import warnings
from dataclasses import fields

import torch
from torch import Tensor

from interaction_train.concepts.concepts import Concepts
from interaction_train.concepts.operators import operators
from interaction_train.concepts.penalty import Penalty
from interaction_train.concepts.solver import FEASIBLE, solve
from interaction_train.concepts.transforms import fewest_pairs, merge_single, values_from_and_or
from interaction_train.errors import InputError, at_least, in_range
from interaction_train.game.precision import wide
from interaction_train.indices.exact import count_players, summable

_NOTHING = 1e-10  # what is left of interactions that cancel, relative to max |v − v(∅)|


def sparse_concepts(
    v: Tensor, noise: float = 0.04, tolerance: float = 0.02, max_steps: int = 5000
) -> Concepts:
    """The AND and OR interactions of least Σ|I_and| + Σ|I_or| that explain a game.

    Among all with |v_surrogate(S) − v(S)| ≤ noise·|v(N) − v(∅)| at every S (Li & Zhang, "Defining
    and Quantifying AND-OR Interactions for Faithful and Concise Explanation of DNNs", 2023). The
    value of ∅ is not counted. This is a linear programme; all samples are solved at once, in
    O(n 2^n) time and memory a step, and for each it is proven how far the result can be from the
    optimum (:mod:`~interaction_train.concepts.solver`). Of equally sparse results one is
    taken in which no two players have an AND and an OR of one sign, which are the two themselves.

    Args:
        v: values ``(..., 2^n)`` with n at least 1; float64 inside, on the CPU where that is lacked.
        noise: bound on the error at every coalition, relative to |v(N) − v(∅)|, in [0, 1).
        tolerance: of (objective − lower bound)/objective, in (0, 1): where a sample counts as
            converged. The steps go on to half of it.
        max_steps: after which the best so far is returned, with a ``UserWarning``.

    Returns:
        Concepts of the dtype of ``v``, without gradient.

    Raises:
        InputError: arguments out of range, no value tensor, values that are not finite, or
            v(N) = v(∅) with noise above 0, where nothing would be allowed to be off.

    Examples:
        >>> import interaction_train as it
        >>> coalitions = it.all_coalitions(3)
        >>> v = 2.0 * coalitions.all(1) - 1.0 * coalitions[:, :2].any(1)
        >>> found = sparse_concepts(v, noise=0)
        >>> found.and_.nonzero().tolist(), found.or_.nonzero().tolist()  # {0, 1, 2} and {0, 1}
        ([[7]], [[3]])
    """
    count_players(v, least=1)
    flat = v.reshape(1, -1, v.shape[-1])
    found = _decompose(flat, "v", noise, tolerance, max_steps, 1.0)
    tensors = {field.name: getattr(found, field.name) for field in fields(found)}
    lead = v.shape[:-1]  # in place of (1, B), or of (B,)
    return Concepts(**{name: t.reshape((*lead, *t.shape[2:])) for name, t in tensors.items()})


def joint_concepts(
    vs: Tensor,
    noise: float = 0.04,
    alpha: float = 0.5,
    tolerance: float = 0.02,
    max_steps: int = 5000,
) -> Concepts:
    """Concepts of several networks on the same inputs, as many of them shared as can be.

    Least Σ_S (1 − α) max_m |I_m(S)| + α Σ_m |I_m(S)|, AND and OR, over the networks m, each within
    its own bound as in :func:`sparse_concepts` (Chen et al., "Defining and Extracting Generalizable
    Interaction Primitives from DNNs", 2024, Eq. 6). :func:`shared` says which are shared.

    Args:
        vs: values ``(M, B, 2^n)`` of M networks, whose payoffs should be of one scale.
        noise: as in :func:`sparse_concepts`, of each network's own range.
        alpha: price of an interaction that another network has anyway, in [0, 1]; at 1 every
            network is decomposed by itself.
        tolerance: as in :func:`sparse_concepts`, of the sum over networks.
        max_steps: likewise.

    Returns:
        Concepts whose ``and_``, ``or_``, ``constant`` and ``violation`` are ``(M, B, …)`` and whose
        ``objective``, ``lower_bound``, ``steps`` and ``converged`` are ``(B,)``, of all together.

    Raises:
        InputError: as :func:`sparse_concepts`, or values of another shape.
    """
    count_players(vs, least=1, name="vs")
    if vs.dim() != 3:
        raise InputError("vs", f"shape {tuple(vs.shape)}", "(M, B, 2^n), networks first")
    in_range("alpha", alpha, 0, 1)
    return _decompose(vs, "vs", noise, tolerance, max_steps, alpha)


def shared(concepts: Concepts, threshold: float = 0.05) -> tuple[Tensor, Tensor]:
    """Which ANDs and ORs are salient in every network, bool ``(B, 2^n)`` each.

    Args:
        concepts: of :func:`joint_concepts`.
        threshold: salient is above this part of the network's strongest on the sample.
    """
    both = torch.stack([concepts.and_, concepts.or_]).abs()
    salient = both > threshold * both.amax((0, -1), keepdim=True)
    i_and, i_or = salient.all(1)
    return i_and, i_or


def _decompose(
    v: Tensor, name: str, noise: float, tolerance: float, max_steps: int, alpha: float
) -> Concepts:
    """Concepts of values ``(M, B, 2^n)``, as those of :func:`joint_concepts`."""
    in_range("noise", noise, 0, 1, below=True)
    in_range("tolerance", tolerance, 0, 0.999, above=True)
    at_least("max_steps", max_steps, 1)
    if 0 in v.shape:
        raise InputError(name, f"shape {tuple(v.shape)}", "at least one sample")
    values = wide(summable(v.detach())).transpose(0, 1)
    if not bool(values.isfinite().all()):
        raise InputError(name, "values that are not finite", "finite values")
    empty = values[..., :1]
    bound = noise * (values[..., -1:] - empty).abs()
    if noise > 0 and bool((bound == 0).any()):
        sample, network = (bound[..., 0] == 0).nonzero()[0].tolist()
        got = f"v(N) = v(∅) = {float(empty[sample, network]):.4g} in sample {sample}"
        raise InputError(name, got, "another value of all players than of none, or noise = 0")
    scale = (values - empty).abs().amax((1, 2), keepdim=True)
    unit = torch.where(scale > 0, scale, 1)
    ops = operators(count_players(v), values.device)
    scaled = (values - empty) / unit
    best = solve(ops, Penalty(alpha), scaled, bound / unit, tolerance / 2, max_steps)
    gap = 1 - best.lower / best.objective.clamp(min=FEASIBLE)
    converged = (gap <= tolerance) | (best.objective <= FEASIBLE)
    if not bool(converged.all()):
        text = (
            f"{int((~converged).sum())} of {len(gap)} samples have not converged after "
            f"max_steps = {max_steps}; the largest gap is {float(gap.max()):.3g}, above "
            f"tolerance = {tolerance}"
        )
        warnings.warn(text, UserWarning, stacklevel=3)
    i_and, i_or = merge_single(*best.x.transpose(0, 1).unbind(2))
    if len(v) == 1:  # of several networks, one could pay for another's
        i_and, i_or = fewest_pairs(i_and, i_or)
    i_and, i_or = (x.masked_fill(x.abs() < _NOTHING, 0) * unit[:, 0] for x in (i_and, i_or))
    constant = empty[..., 0].T + i_and[..., 0]
    i_and[..., 0] = 0
    i_and, i_or = i_and.to(v), i_or.to(v)
    shown = wide(summable(constant.to(v).unsqueeze(-1) + values_from_and_or(i_and, i_or)))
    off = (shown - values.transpose(0, 1)).abs().amax(-1) - bound[..., 0].T
    merged = torch.stack([i_and, i_or], 2).transpose(0, 1)
    objective = Penalty(alpha).total(wide(summable(merged))).to(v)
    if not bool(objective.isfinite().all()):
        raise InputError(name, f"interactions beyond {v.dtype}", "smaller values, or a wider dtype")
    return Concepts(
        i_and,
        i_or,
        constant.to(v),
        objective,
        (best.lower * unit[:, 0, 0]).to(v),
        off.clamp(min=0).to(v),
        best.steps.to(v.device),
        converged.to(v.device),
    )
