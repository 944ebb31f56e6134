"""Interaction indices, exact ones of small games and sampled ones of large games.

Estimates are in float64, or in float32 on devices without it.
"""

from interaction_train.indices.blocks import block_interaction as block_interaction
from interaction_train.indices.curve import (
    OrderCurve as OrderCurve,
    ValueEstimates as ValueEstimates,
    mean_interaction as mean_interaction,
    player_interactions as player_interactions,
    sample_order_curve as sample_order_curve,
    sample_shapley_values as sample_shapley_values,
)
from interaction_train.indices.exact import (
    all_coalitions as all_coalitions,
    dividends as dividends,
    exact_values as exact_values,
    interaction_spectrum as interaction_spectrum,
    multi_order_interactions as multi_order_interactions,
    order_curve as order_curve,
    order_strengths as order_strengths,
    shapley_interactions as shapley_interactions,
    shapley_values as shapley_values,
    values_from_dividends as values_from_dividends,
)
from interaction_train.indices.exact_sets import (
    block_shapley_values as block_shapley_values,
    multivariate_interaction as multivariate_interaction,
    multivariate_strength as multivariate_strength,
    shapley_interaction as shapley_interaction,
)
from interaction_train.indices.maps import (
    InteractionMaps as InteractionMaps,
    interaction_map as interaction_map,
    interaction_maps as interaction_maps,
)
from interaction_train.indices.sampled_blocks import (
    BetweenBlocks as BetweenBlocks,
    sample_between as sample_between,
)
from interaction_train.indices.sampled_pairs import (
    REFERENCE_RATIOS as REFERENCE_RATIOS,
    PairEstimates as PairEstimates,
    resolve_orders as resolve_orders,
    sample_multi_order as sample_multi_order,
    sample_shapley_pairs as sample_shapley_pairs,
)
from interaction_train.indices.sampled_sets import (
    Multivariate as Multivariate,
    Strength as Strength,
    sample_multivariate as sample_multivariate,
    sample_strength as sample_strength,
)
