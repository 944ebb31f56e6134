"""Perturbation crafting and transfer evaluation."""

from interaction_train.attacks.attack import TransferAttack
from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.objectives import InteractionObjective, MaskedObjective, Objective
from interaction_train.attacks.parts.base import Part, Step
from interaction_train.attacks.parts.gradients import (
    Momentum,
    Nesterov,
    TranslationInvariance,
    VarianceTuning,
)
from interaction_train.attacks.parts.inputs import (
    GaussianAveraging,
    InputDiversity,
    ScaleInvariance,
)
from interaction_train.attacks.parts.skip import SkipGradient, residual_branches, skip_gradient
from interaction_train.attacks.presets import HybridIRAttack, IRAttack
from interaction_train.attacks.sets.crafter import AdversarialCrafter
from interaction_train.attacks.sets.dataset import AdversarialSet, read_adversarial_set
from interaction_train.attacks.sets.rounding import round_to_bytes
from interaction_train.attacks.transfer.module import TransferEvaluation
from interaction_train.attacks.transfer.rates import TransferRate
from interaction_train.metrics.perturbation import (
    PerturbationInteraction,
    perturbation_game,
    perturbation_interaction,
    sampled_interactions,
)

__all__ = [
    "AdversarialCrafter",
    "AdversarialSet",
    "Ensemble",
    "GaussianAveraging",
    "HybridIRAttack",
    "IRAttack",
    "InputDiversity",
    "InteractionObjective",
    "MaskedObjective",
    "Momentum",
    "Nesterov",
    "Objective",
    "Part",
    "PerturbationInteraction",
    "ScaleInvariance",
    "SkipGradient",
    "Step",
    "TransferAttack",
    "TransferEvaluation",
    "TransferRate",
    "TranslationInvariance",
    "VarianceTuning",
    "perturbation_game",
    "perturbation_interaction",
    "read_adversarial_set",
    "residual_branches",
    "round_to_bytes",
    "sampled_interactions",
    "skip_gradient",
]
