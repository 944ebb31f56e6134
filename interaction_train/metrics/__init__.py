"""Metrics of a network's interactions: torchmetrics shells over functions of per-sample rows."""

from interaction_train.metrics.orders import (
    Disentanglement,
    InteractionSpectrum,
    InteractionStrength,
)
from interaction_train.metrics.perturbation import PerturbationInteraction
from interaction_train.metrics.rows import (
    COLUMNS,
    disentanglement,
    spectrum,
    strength,
    unique_rows,
)

__all__ = [
    "COLUMNS",
    "Disentanglement",
    "InteractionSpectrum",
    "InteractionStrength",
    "PerturbationInteraction",
    "disentanglement",
    "spectrum",
    "strength",
    "unique_rows",
]
