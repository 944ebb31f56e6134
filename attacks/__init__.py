"""Perturbation crafting and transfer evaluation."""

from interaction_train.attacks.attack import (
    HybridIRAttack as HybridIRAttack,
    IRAttack as IRAttack,
    TransferAttack as TransferAttack,
)
from interaction_train.attacks.ensemble import Ensemble as Ensemble
from interaction_train.attacks.norms import round_to_bytes as round_to_bytes
from interaction_train.attacks.objectives import (
    InteractionObjective as InteractionObjective,
    MaskedObjective as MaskedObjective,
    Objective as Objective,
)
from interaction_train.attacks.parts import (
    GaussianAveraging as GaussianAveraging,
    InputDiversity as InputDiversity,
    Momentum as Momentum,
    Nesterov as Nesterov,
    Part as Part,
    ScaleInvariance as ScaleInvariance,
    Step as Step,
    TranslationInvariance as TranslationInvariance,
    VarianceTuning as VarianceTuning,
)
from interaction_train.attacks.sets.crafter import AdversarialCrafter as AdversarialCrafter
from interaction_train.attacks.sets.dataset import (
    AdversarialSet as AdversarialSet,
    read_adversarial_set as read_adversarial_set,
)
from interaction_train.attacks.skip import (
    SkipGradient as SkipGradient,
    residual_branches as residual_branches,
    skip_gradient as skip_gradient,
)
from interaction_train.attacks.transfer.module import TransferEvaluation as TransferEvaluation
from interaction_train.attacks.transfer.rates import TransferRate as TransferRate
from interaction_train.metrics.perturbation import (
    PerturbationInteraction as PerturbationInteraction,
    perturbation_game as perturbation_game,
    perturbation_interaction as perturbation_interaction,
    sampled_interactions as sampled_interactions,
)
