"""Lightning callbacks, one per file."""

from interaction_train.callbacks.adversarial_writer import AdversarialWriter
from interaction_train.callbacks.exact_interactions import ExactInteractions
from interaction_train.callbacks.interaction_spectrum import SpectrumMonitor
from interaction_train.callbacks.order_report import OrderReport
from interaction_train.callbacks.regularizer import InteractionRegularizer

__all__ = [
    "AdversarialWriter",
    "ExactInteractions",
    "InteractionRegularizer",
    "OrderReport",
    "SpectrumMonitor",
]
