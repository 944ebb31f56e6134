"""Metrics of a network's interactions: torchmetrics shells over functions of per-sample rows."""

from interaction_train.metrics.flexibility import flexibility as flexibility
from interaction_train.metrics.groups import Groups as Groups, split_groups as split_groups
from interaction_train.metrics.orders import (
    Disentanglement as Disentanglement,
    InteractionSpectrum as InteractionSpectrum,
    InteractionStrength as InteractionStrength,
)
from interaction_train.metrics.perturbation import (
    PerturbationInteraction as PerturbationInteraction,
)
from interaction_train.metrics.rows import (
    COLUMNS as COLUMNS,
    disentanglement as disentanglement,
    spectrum as spectrum,
    strength as strength,
    unique_rows as unique_rows,
)
