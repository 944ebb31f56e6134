"""Flexibility: how much the shape of the spectrum differs between the samples of a group."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from interaction_train.indices.means import Mean, standard_error
from interaction_train.metrics.rows import Statistics, column


def flexibility(rows: Tensor) -> Statistics:
    """E_x ½ Σ_m |J_x^(m)/ΣJ_x − group mean|: total variation from the mean shape, in [0, 1].

    A measure of ours, for the survey's claim in Sec. 4.2 that textures are encoded more
    flexibly than shapes. J_x are the plug-in strengths of one sample, whose estimation noise counts
    as difference between samples too. Those without interactions have no shape and are left out.

    Returns:
        ``flexibility``; ``flexibility_noise``, how far apart the shapes from two halves of a
        sample's contexts are, over √2: about what halves would make of equal samples; and
        ``flexibility_corrected``, √max(0, F² − noise²) for the flexibility F of halves; each with
        its standard error over samples (delta method) ``<key>_stderr``. What the choice of pairs
        adds is not corrected. Scalars; NaN for less than two samples.
    """
    shapes = torch.stack([_shape(column(rows, key)) for key in ("plug_in", "first", "second")])
    shapes = shapes[:, shapes.isfinite().all(-1).all(0)]
    if shapes.shape[1] < 2:
        shapes = shapes.new_full((3, 2, shapes.shape[-1]), torch.nan)
    whole, first, second = map(_distance_from_mean, shapes)
    apart = _total_variation(shapes[1] - shapes[2]) / math.sqrt(2)
    noise: Mean = (apart.mean(), apart - apart.mean())
    half: Mean = ((first[0] + second[0]) / 2, (first[1] + second[1]) / 2)
    rest = (half[0].square() - noise[0].square()).clamp(min=0).sqrt()
    corrected: Mean = (rest, (half[0] * half[1] - noise[0] * noise[1]) / rest)
    result = {}
    for key, (value, deviations) in {"": whole, "_noise": noise, "_corrected": corrected}.items():
        result[f"flexibility{key}"] = value
        result[f"flexibility{key}_stderr"] = standard_error(deviations)
    return result


def _shape(strength: Tensor) -> Tensor:
    return strength / strength.sum(-1, keepdim=True)


def _total_variation(difference: Tensor) -> Tensor:
    return difference.abs().sum(-1) / 2


def _distance_from_mean(shapes: Tensor) -> Mean:
    """Of shapes ``(B, M)``; every sample moves the mean shape towards itself."""
    away = shapes - shapes.mean(0)
    far = _total_variation(away)
    return far.mean(), far - far.mean() - away @ away.sign().mean(0) / 2
