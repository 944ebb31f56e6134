"""Interaction losses, one per file."""

from interaction_train.losses.band import BandLoss
from interaction_train.losses.interaction import InteractionLoss
from interaction_train.losses.order import OrderLoss
from interaction_train.losses.order_weights import OrderWeights, order_weights, order_weights_figure
from interaction_train.losses.reduction import (
    GroupReduction,
    InteractionReduction,
    PartitionReduction,
)

__all__ = [
    "BandLoss",
    "GroupReduction",
    "InteractionLoss",
    "InteractionReduction",
    "OrderLoss",
    "OrderWeights",
    "PartitionReduction",
    "order_weights",
    "order_weights_figure",
]
