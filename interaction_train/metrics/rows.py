"""The functional core of the metrics: one row of numbers per sample, and statistics of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from interaction_train.errors import checked_labels
from interaction_train.game.absence import input_baseline
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import Payoff, logit
from interaction_train.game.players import Players
from interaction_train.indices.readings import READINGS, Reading, plug_in, product, split_sign
from interaction_train.indices.sampled_pairs import PairEstimates
from interaction_train.sampling.random import sample_hash

COLUMNS = ("signed", "plug_in", "split_sign", "product", "size", "count", "scale")
"""What a row holds for every order: means over pairs of the interaction, of the three readings of
its absolute value (``product`` is that of two parts), of the mean |Δ| over contexts and of the
number of contexts; and |z_y − mean of the other logits| of the sample."""

_MEASURED = COLUMNS.index("size") + 1  # the columns before are measured interactions
_NOISE = 8  # units in the last place of the logits that a mean |Δ| may be off by

Statistics = dict[str, Tensor]


def interaction_rows(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    estimate: Callable[[MaskedGame], PairEstimates],
    *,
    players: Players,
    payoff: str | Payoff,
    baseline: float | Sequence[float] | None = None,
    only_correct: bool = True,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """One row per sample.

    Args:
        model: the network, ``(rows, ...)`` → logits ``(rows, classes)``.
        x: samples ``(B, C, ...)``.
        y: labels ``(B,)`` int64.
        estimate: the estimator.
        players: how a sample splits into players.
        payoff: what the game reads off the logits, one number per sample.
        baseline: what absent players show (:func:`~interaction_train.game.absence.input_baseline`).
        only_correct: leave out samples that the network gets wrong.
        chunk_size: rows sent through the network at once; default: the fastest.

    Returns:
        the rows' content hashes (of sample and label) ``(b,)`` int64, the rows
        ``(b, columns, M)`` float64 (:data:`COLUMNS`), and the M orders; b counts the samples that
        are kept, and without any the orders are empty and M is 0.

    Raises:
        InputError: input that the game, the players or the estimator refuse; for payoffs that are
            not finite the message gives the place among the samples that are kept.
    """
    logits = eval_logits(model, x)
    dtype = logits.dtype
    logits = logits.float() if dtype in (torch.float16, torch.bfloat16) else logits
    checked_labels(y, len(x), "y")
    if only_correct:
        right = logits.argmax(-1) == y
        x, y, logits = x[right], y[right], logits[right]
    content = sample_hash(x, y)
    if len(x) == 0:
        return content, x.new_zeros(0, len(COLUMNS), 0, dtype=torch.float64), ()
    absent = input_baseline(model, baseline, x)
    game = MaskedGame(model, x, absent, players, payoff, y, chunk_size=chunk_size)
    estimates = estimate(game)
    rows = estimate_rows(estimates, logit_scale(logits, y))
    # Below rounding noise there is no interaction: 0, so that ratios of nothing else are NaN.
    noise = _NOISE * torch.finfo(dtype).eps * logits.double().abs().amax(-1)
    silent = column(rows, "size") < noise[:, None]
    rows[:, :_MEASURED] = rows[:, :_MEASURED].masked_fill(silent[:, None], 0)
    return content, rows, estimates.orders


def logit_scale(logits: Tensor, y: Tensor) -> Tensor:
    """|z_y − mean of the other logits| of every sample, ``(B,)`` float64."""
    own = logit(logits, y).double()
    return (own - (logits.double().sum(-1) - own) / max(1, logits.shape[-1] - 1)).abs()


def exact_rows(interactions: Tensor, scale: Tensor) -> Tensor:
    """Rows out of exact interactions of all pairs.

    Args:
        interactions: ``(B, M, n, n)``, symmetric, of M orders; 0 below rounding noise.
        scale: ``(B,)``, what the column of that name holds.

    Returns:
        ``(B, columns, M)`` float64 (:data:`COLUMNS`), in which all readings agree.
    """
    n = interactions.shape[-1]
    upper = torch.triu_indices(n, n, 1, device=interactions.device)
    pairs = interactions[..., upper[0], upper[1]].double()
    size = pairs.abs().mean(-1)
    square = pairs.square().mean(-1)
    scales = scale[:, None].double().expand_as(size)
    return torch.stack([pairs.mean(-1), size, size, square, size, torch.ones_like(size), scales], 1)


def estimate_rows(estimates: PairEstimates, scale: Tensor, signed: Tensor | None = None) -> Tensor:
    """Rows out of estimates.

    Args:
        estimates: of B samples and M orders.
        scale: ``(B,)``, what the column of that name holds.
        signed: ``(B, M)``, mean interactions known better than from the estimates.

    Returns:
        ``(B, columns, M)`` float64 (:data:`COLUMNS`).
    """
    parts = (
        estimates.mean if signed is None else signed,
        estimates.over_pairs(plug_in(estimates)),
        estimates.over_pairs(split_sign(estimates)),
        estimates.over_pairs(product(estimates)),
        estimates.over_pairs(estimates.size),
        estimates.contexts,
        scale[:, None].expand_as(estimates.mean),
    )
    return torch.stack(parts, 1)


def unique_rows(content: Tensor, rows: Tensor) -> Tensor:
    """Each sample's row once, in an order that depends on the contents alone.

    Args:
        content: ``(B,)`` int64.
        rows: ``(B, columns, M)``.
    """
    content, order = content.sort(stable=True)
    first = torch.ones_like(content, dtype=torch.bool)
    first[1:] = content[1:] != content[:-1]
    return rows[order[first]]


def strengths(rows: Tensor, reading: Reading) -> tuple[Tensor, Tensor]:
    """Absolute strength E_x E_ij |I| per order, and what each sample adds to its error.

    Args:
        rows: ``(B, columns, M)``.
        reading: which reading of |I|; ``"rms"`` is √max(0, E_x E_ij m1·m2).

    Returns:
        ``(M,)``, and deviations ``(B, M)`` whose spread over √B is the standard error (first
        order).
    """
    if reading != "rms":
        values = column(rows, reading)
        return values.mean(0), values - values.mean(0)
    values = column(rows, "product")
    root = values.mean(0).clamp(min=0).sqrt()
    return root, (values - values.mean(0)) / (2 * root)


def column(rows: Tensor, name: str) -> Tensor:
    """One column of the rows, ``(B, M)``."""
    return rows[:, COLUMNS.index(name)]


def standard_error(deviations: Tensor) -> Tensor:
    """Standard error of a mean from its deviations ``(B, M)``; NaN for fewer than two samples."""
    if len(deviations) < 2:
        return deviations.new_full(deviations.shape[1:], torch.nan)
    return deviations.std(0) / len(deviations) ** 0.5


def ratio(top: tuple[Tensor, Tensor], bottom: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A ratio of means and its standard error, by the delta method.

    Args:
        top: a mean ``(M,)`` and its deviations ``(B, M)``.
        bottom: likewise.
    """
    value = top[0] / bottom[0]
    return value, standard_error((top[1] - value * bottom[1]) / bottom[0])


def spectrum(rows: Tensor) -> Statistics:
    """J^(m) (survey, Eq. 21) and what it is made of.

    J^(m) = E_x E_ij |I^(m)(i,j|x)| / E_m [same], over the orders that were evaluated.

    Args:
        rows: ``(B, columns, M)``, each sample once.

    Returns:
        ``signed``; per reading of |I| the strengths ``<reading>`` and ``J_<reading>``; each with
        its standard error over samples ``<key>_stderr``; ``contexts``, the mean number per pair;
        all ``(M,)``; and ``samples``, a scalar. NaN without samples.
    """
    signed = column(rows, "signed")
    result = {"signed": signed.mean(0), "signed_stderr": standard_error(signed)}
    for reading in READINGS:
        value, deviations = strengths(rows, reading)
        result[reading], result[f"{reading}_stderr"] = value, standard_error(deviations)
        mean = value.mean(-1, keepdim=True), deviations.mean(-1, keepdim=True)
        result[f"J_{reading}"], result[f"J_{reading}_stderr"] = ratio((value, deviations), mean)
    return _with_counts(result, rows)


def disentanglement(rows: Tensor) -> Statistics:
    """D^(m) = E_{x,ij} |E_S Δ| / E_{x,ij} E_S |Δ|, a ratio of global means (formula sheet, 11).

    1 at the end orders, which have one context. The plug-in reading has a floor of about 1/√K.

    Args:
        rows: ``(B, columns, M)``, each sample once.

    Returns:
        ``D_plug_in`` and ``D_split_sign``, an upper and a lower reading, each with its standard
        error over samples ``<key>_stderr``; ``contexts``; all ``(M,)``; and ``samples``.
    """
    size = column(rows, "size")
    bottom = size.mean(0), size - size.mean(0)
    result: Statistics = {}
    for reading in READINGS[:2]:
        top = strengths(rows, reading)
        result[f"D_{reading}"], result[f"D_{reading}_stderr"] = ratio(top, bottom)
    return _with_counts(result, rows)


def strength(rows: Tensor) -> Statistics:
    """Interaction strength: E_x E_ij |I^Shap(i,j|x)| over E_x |z_y − mean of the other logits|.

    As in the dropout paper (formula sheet, 12).

    Args:
        rows: ``(B, columns, 1)``, each sample once.

    Returns:
        ``strength_<reading>`` per reading, its numerator ``<reading>``, each with its standard
        error over samples, the denominator ``scale``, ``contexts`` and ``samples``; scalars.
    """
    scale = column(rows, "scale")
    bottom = scale.mean(0), scale - scale.mean(0)
    result: Statistics = {"scale": bottom[0]}
    for reading in READINGS:
        value, deviations = strengths(rows, reading)
        result[reading], result[f"{reading}_stderr"] = value, standard_error(deviations)
        name = f"strength_{reading}"
        result[name], result[f"{name}_stderr"] = ratio((value, deviations), bottom)
    result = {key: value.squeeze(-1) for key, value in result.items()}
    return {key: value.squeeze() for key, value in _with_counts(result, rows).items()}


def _with_counts(result: Statistics, rows: Tensor) -> Statistics:
    result["contexts"] = column(rows, "count").mean(0)
    result["samples"] = torch.tensor(len(rows), device=rows.device)
    return result
