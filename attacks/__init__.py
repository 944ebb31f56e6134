"""Perturbation crafting and transfer evaluation."""

from interaction_train.attacks import presets as presets
from interaction_train.attacks.attack import (
    HybridIRAttack as HybridIRAttack,
    IRAttack as IRAttack,
    TransferAttack as TransferAttack,
)
from interaction_train.attacks.ensemble import Ensemble as Ensemble
from interaction_train.attacks.features import (
    FeatureImportance as FeatureImportance,
    NeuronAttribution as NeuronAttribution,
)
from interaction_train.attacks.members import CWA as CWA, SVRE as SVRE, AdaEA as AdaEA
from interaction_train.attacks.norms import round_to_bytes as round_to_bytes
from interaction_train.attacks.objectives import (
    InteractionObjective as InteractionObjective,
    MaskedObjective as MaskedObjective,
    Objective as Objective,
)
from interaction_train.attacks.parts.attention import AttentionSkip as AttentionSkip
from interaction_train.attacks.parts.backward import LinearBackpropagation as LinearBackpropagation
from interaction_train.attacks.parts.base import Part as Part, Step as Step
from interaction_train.attacks.parts.flatness import (
    ExpectedFlatness as ExpectedFlatness,
    GradientRelevance as GradientRelevance,
    PenalizedGradient as PenalizedGradient,
    ReversePerturbation as ReversePerturbation,
)
from interaction_train.attacks.parts.ghost import GhostNetwork as GhostNetwork
from interaction_train.attacks.parts.gradients import (
    EnhancedMomentum as EnhancedMomentum,
    Momentum as Momentum,
    Nesterov as Nesterov,
    TranslationInvariance as TranslationInvariance,
    VarianceTuning as VarianceTuning,
)
from interaction_train.attacks.parts.inputs import (
    InputDiversity as InputDiversity,
    RandomNoise as RandomNoise,
    ScaleInvariance as ScaleInvariance,
)
from interaction_train.attacks.parts.layers import (
    IntermediatePerturbationDecay as IntermediatePerturbationDecay,
)
from interaction_train.attacks.parts.masks import RandomMask as RandomMask
from interaction_train.attacks.parts.mixing import Admix as Admix
from interaction_train.attacks.parts.shuffle import BlockShuffle as BlockShuffle
from interaction_train.attacks.parts.skip import (
    SkipGradient as SkipGradient,
    residual_branches as residual_branches,
    skip_gradient as skip_gradient,
)
from interaction_train.attacks.parts.spectrum import SpectrumScaling as SpectrumScaling
from interaction_train.attacks.parts.steps import (
    FlipDecay as FlipDecay,
    GlobalMomentum as GlobalMomentum,
    StepSchedule as StepSchedule,
)
from interaction_train.attacks.parts.structure import StructureInvariance as StructureInvariance
from interaction_train.attacks.parts.tokens import TokenGradient as TokenGradient
from interaction_train.attacks.parts.warp import (
    AdaptiveWarp as AdaptiveWarp,
    RandomWarp as RandomWarp,
)
from interaction_train.attacks.sets.crafter import AdversarialCrafter as AdversarialCrafter
from interaction_train.attacks.sets.dataset import (
    AdversarialSet as AdversarialSet,
    read_adversarial_set as read_adversarial_set,
)
from interaction_train.attacks.transfer.module import TransferEvaluation as TransferEvaluation
from interaction_train.attacks.transfer.rates import TransferRate as TransferRate
from interaction_train.attacks.tuning.job import tune_attack as tune_attack
from interaction_train.attacks.universal import UniversalPerturbation as UniversalPerturbation
from interaction_train.metrics.perturbation import (
    PerturbationInteraction as PerturbationInteraction,
    perturbation_game as perturbation_game,
    perturbation_interaction as perturbation_interaction,
)
