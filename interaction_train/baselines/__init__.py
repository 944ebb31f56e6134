"""Learned baselines: what an absent player should show, and what that changes."""

from interaction_train.baselines.compare import compare_baselines as compare_baselines
from interaction_train.baselines.learn import learn_baseline as learn_baseline
from interaction_train.baselines.learned import LearnedBaseline as LearnedBaseline
from interaction_train.baselines.measures import Measures as Measures
from interaction_train.baselines.objectives import (
    dividend_l1 as dividend_l1,
    low_order_marginal as low_order_marginal,
    low_order_shapley as low_order_shapley,
    order_gains as order_gains,
)
