"""Interaction losses, one per file."""

from interaction_train.losses.interaction import InteractionLoss

__all__ = ["InteractionLoss"]
