"""Interaction indices, exact ones of small games and sampled ones of large games.

Estimates are in float64, or in float32 on devices without it.
"""

from interaction_train.indices.curve import (
    OrderCurve,
    mean_interaction,
    player_interactions,
    sample_order_curve,
)
from interaction_train.indices.exact import (
    all_coalitions,
    dividends,
    exact_values,
    interaction_spectrum,
    multi_order_interactions,
    order_curve,
    order_strengths,
    shapley_interactions,
    shapley_values,
    values_from_dividends,
)
from interaction_train.indices.exact_sets import (
    block_shapley_values,
    multivariate_interaction,
    multivariate_strength,
    shapley_interaction,
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
    "all_coalitions",
    "block_shapley_values",
    "dividends",
    "exact_values",
    "interaction_spectrum",
    "mean_interaction",
    "multi_order_interactions",
    "multivariate_interaction",
    "multivariate_strength",
    "order_curve",
    "order_strengths",
    "player_interactions",
    "resolve_orders",
    "sample_multi_order",
    "sample_multivariate",
    "sample_order_curve",
    "sample_shapley_pairs",
    "sample_strength",
    "shapley_interaction",
    "shapley_interactions",
    "shapley_values",
    "values_from_dividends",
]
