"""Perturbation crafting and transfer evaluation."""

from interaction_train.attacks.attack import TransferAttack
from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.gradients import (
    Momentum,
    Nesterov,
    TranslationInvariance,
    VarianceTuning,
)
from interaction_train.attacks.inputs import GaussianAveraging, InputDiversity, ScaleInvariance
from interaction_train.attacks.objectives import InteractionObjective, MaskedObjective, Objective
from interaction_train.attacks.parts import Part, Step
from interaction_train.attacks.presets import HybridIRAttack, IRAttack
from interaction_train.attacks.skip import SkipGradient, residual_branches, skip_gradient

__all__ = [
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
    "ScaleInvariance",
    "SkipGradient",
    "Step",
    "TransferAttack",
    "TranslationInvariance",
    "VarianceTuning",
    "residual_branches",
    "skip_gradient",
]
