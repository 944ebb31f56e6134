"""Lightning callbacks, one per file."""

from interaction_train.callbacks.exact_interactions import ExactInteractions

__all__ = ["ExactInteractions"]
