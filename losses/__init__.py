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
from interaction_train.losses.walsh import WalshPenalty

__all__ = [
    "BandLoss",
    "GroupReduction",
    "InteractionLoss",
    "InteractionReduction",
    "OrderLoss",
    "OrderWeights",
    "PartitionReduction",
    "WalshPenalty",
    "order_weights",
    "order_weights_figure",
]
