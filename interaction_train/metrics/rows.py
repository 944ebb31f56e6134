"""The functional core of the metrics: one row of numbers per sample, and statistics of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.game.payoffs import logit
from interaction_train.game.precision import wide
from interaction_train.indices.means import Mean, ratio, standard_error
from interaction_train.indices.readings import (
    READINGS,
    Reading,
    half_plug_ins,
    plug_in,
    product,
    split_sign,
)
from interaction_train.indices.sampled_pairs import PairEstimates

COLUMNS = (
    "signed", "plug_in", "split_sign", "product", "first", "second", "size", "count", "scale"
)  # fmt: skip
"""What a row holds for every order: means over pairs of the interaction, of the three readings of
its absolute value (``product`` is that of two parts), of the plug-in reading from either half of
the contexts alone, of the mean |Δ| over contexts and of the number of contexts; and |z_y − mean of
the other logits| of the sample. Rows are ``(B, columns, M)``, in float64 where the device has
it."""

Statistics = dict[str, Tensor]


def logit_scale(logits: Tensor, y: Tensor) -> Tensor:
    """|z_y − mean of the other logits| of every sample, ``(B,)``."""
    own = wide(logit(logits, y))
    return (own - (wide(logits).sum(-1) - own) / max(1, logits.shape[-1] - 1)).abs()


def exact_rows(interactions: Tensor, scale: Tensor) -> Tensor:
    """Rows out of exact interactions ``(B, M, n, n)``, 0 below rounding noise, and a column."""
    n = interactions.shape[-1]
    upper = torch.triu_indices(n, n, 1, device=interactions.device)
    pairs = wide(interactions[..., upper[0], upper[1]])
    size = pairs.abs().mean(-1)
    square = pairs.square().mean(-1)
    scales = scale[:, None].to(size).expand_as(size)
    one = torch.ones_like(size)
    return torch.stack([pairs.mean(-1), size, size, square, size, size, size, one, scales], 1)


def estimate_rows(estimates: PairEstimates, scale: Tensor, signed: Tensor | None = None) -> Tensor:
    """Rows out of estimates, a column ``(B,)`` and, if known better, the mean ``(B, M)``."""
    parts = (
        estimates.mean if signed is None else signed,
        estimates.over_pairs(plug_in(estimates)),
        estimates.over_pairs(split_sign(estimates)),
        estimates.over_pairs(product(estimates)),
        *(estimates.over_pairs(half) for half in half_plug_ins(estimates)),
        estimates.over_pairs(estimates.size),
        estimates.contexts,
        scale[:, None].expand_as(estimates.mean),
    )
    return torch.stack(parts, 1)


def unique_places(content: Tensor) -> Tensor:
    """Where each sample stands first, in an order that depends on contents ``(B,)`` int64 alone."""
    content, order = content.sort(stable=True)
    first = torch.ones_like(content, dtype=torch.bool)
    first[1:] = content[1:] != content[:-1]
    return order[first]


def unique_rows(content: Tensor, rows: Tensor) -> Tensor:
    """Each sample's row once, in the order of :func:`unique_places`."""
    return rows[unique_places(content)]


def column(rows: Tensor, name: str) -> Tensor:
    """One column of the rows, ``(B, M)``."""
    return rows[:, COLUMNS.index(name)]


def mean_of(rows: Tensor, name: str) -> Mean:
    """The mean of a column."""
    values = column(rows, name)
    return values.mean(0), values - values.mean(0)


def strengths(rows: Tensor, reading: Reading) -> Mean:
    """Absolute strength E_x E_ij |I| per order; ``"rms"`` is √max(0, E_x E_ij m1·m2)."""
    if reading != "rms":
        return mean_of(rows, reading)
    value, deviations = mean_of(rows, "product")
    root = value.clamp(min=0).sqrt()
    return root, deviations / (2 * root)


def with_errors(means: dict[str, Mean], rows: Tensor) -> Statistics:
    """Means with standard errors, NaN for less than two samples; ``contexts`` and ``samples``."""
    result = {}
    for key, (value, deviations) in means.items():
        result[key], result[f"{key}_stderr"] = value, standard_error(deviations)
    result["contexts"] = column(rows, "count").mean(0)
    result["samples"] = torch.tensor(len(rows), device=rows.device)
    return result


def spectrum(rows: Tensor) -> Statistics:
    """J^(m) = E_x E_ij |I^(m)(i,j|x)| / E_m [same], over the orders in the rows (survey, Eq. 21).

    Returns:
        ``signed``, the mean interaction; per reading of |I| the strengths ``<reading>``, in the
        unit of the payoff, and ``J_<reading>``; each with its standard error over samples
        ``<key>_stderr``; ``contexts``, the mean number per pair; all ``(M,)``; and ``samples``, a
        scalar. NaN without samples.
    """
    means = {"signed": mean_of(rows, "signed")}
    for reading in READINGS:
        means[reading] = strengths(rows, reading)
        overall = [part.mean(-1, keepdim=True) for part in means[reading]]
        means[f"J_{reading}"] = ratio(means[reading], (overall[0], overall[1]))
    return with_errors(means, rows)


def disentanglement(rows: Tensor) -> Statistics:
    """D^(m) = E_{x,ij} |E_S Δ| / E_{x,ij} E_S |Δ|, a ratio of global means.

    1 at the end orders, which have one context. ``D_plug_in``, an upper reading with a floor of
    about 1/√K, and ``D_split_sign``, a lower one; the rest as in :func:`spectrum`.
    """
    size = mean_of(rows, "size")
    means = {f"D_{key}": ratio(strengths(rows, key), size) for key in READINGS[:2]}
    return with_errors(means, rows)


def strength(rows: Tensor) -> Statistics:
    """Interaction strength: E_x E_ij |I^Shap(i,j|x)| over E_x |z_y − mean of the other logits|.

    Zhang et al., "Interpreting and Boosting Dropout from a Game-Theoretic View" (ICLR 2021). As
    scalars ``strength_<reading>``, its numerator ``<reading>`` and its denominator ``scale``; the
    rest as in :func:`spectrum`.
    """
    scale = mean_of(rows, "scale")
    means: dict[str, Mean] = {}
    for reading in READINGS:
        means[reading] = strengths(rows, reading)
        means[f"strength_{reading}"] = ratio(means[reading], scale)
    result = {"scale": scale[0], **with_errors(means, rows)}
    return {key: value.squeeze() for key, value in result.items()}


def perturbation_statistics(rows: Tensor) -> Statistics:
    """What :class:`~interaction_train.metrics.PerturbationInteraction` returns, as scalars."""
    means = {"mean": mean_of(rows, "signed"), "gain": mean_of(rows, "scale")}
    means |= {reading: strengths(rows, reading) for reading in READINGS}
    return {key: value.squeeze() for key, value in with_errors(means, rows).items()}
