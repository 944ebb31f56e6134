"""Sampled interaction indices with standard errors, for games too large to enumerate."""

from interaction_train.indices.curve import (
    OrderCurve,
    mean_interaction,
    player_interactions,
    sample_order_curve,
)
from interaction_train.indices.sampled_pairs import (
    REFERENCE_RATIOS,
    PairEstimates,
    resolve_orders,
    sample_multi_order,
    sample_shapley_pairs,
)
from interaction_train.indices.sampled_sets import (
    Multivariate,
    Strength,
    sample_multivariate,
    sample_strength,
)

__all__ = [
    "REFERENCE_RATIOS",
    "Multivariate",
    "OrderCurve",
    "PairEstimates",
    "Strength",
    "mean_interaction",
    "player_interactions",
    "resolve_orders",
    "sample_multi_order",
    "sample_multivariate",
    "sample_order_curve",
    "sample_shapley_pairs",
    "sample_strength",
]
