"""Lightning callbacks."""

from interaction_train.callbacks.adversarial_robustness import AdversarialRobustness
from interaction_train.callbacks.adversarial_training import AdversarialTraining
from interaction_train.callbacks.adversarial_writer import AdversarialWriter
from interaction_train.callbacks.attribution_report import AttributionReport
from interaction_train.callbacks.concept_monitor import ConceptMonitor
from interaction_train.callbacks.exact_interactions import ExactInteractions
from interaction_train.callbacks.generalization_gap import GeneralizationGap
from interaction_train.callbacks.recovery_monitor import RecoveryMonitor
from interaction_train.callbacks.regularizer import InteractionRegularizer, OrderReport
from interaction_train.callbacks.run_report import RunReport
from interaction_train.callbacks.sampled_metric import DisentanglementMonitor, SpectrumMonitor
from interaction_train.callbacks.visual_concepts import VisualConcepts

__all__ = [
    "AdversarialRobustness",
    "AdversarialTraining",
    "AdversarialWriter",
    "AttributionReport",
    "ConceptMonitor",
    "DisentanglementMonitor",
    "ExactInteractions",
    "GeneralizationGap",
    "InteractionRegularizer",
    "OrderReport",
    "RecoveryMonitor",
    "RunReport",
    "SpectrumMonitor",
    "VisualConcepts",
]
