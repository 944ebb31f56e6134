"""What a network's decision is made of: sparse AND-OR concepts, with a proof of how few.

And interaction trees: which players, words for instance, join first.
"""

from interaction_train.concepts.concepts import Concepts as Concepts
from interaction_train.concepts.features import (
    feature_dividends as feature_dividends,
    feature_strengths as feature_strengths,
)
from interaction_train.concepts.fidelity import (
    Fidelity as Fidelity,
    fidelity as fidelity,
    same_interactions as same_interactions,
    strength_by_order as strength_by_order,
)
from interaction_train.concepts.graph import (
    ConceptGraph as ConceptGraph,
    concept_graph as concept_graph,
)
from interaction_train.concepts.phrases import (
    Phrase as Phrase,
    Phrases as Phrases,
    phrase_interactions as phrase_interactions,
)
from interaction_train.concepts.selection import (
    Surrogate as Surrogate,
    select_concepts as select_concepts,
)
from interaction_train.concepts.sparse import (
    joint_concepts as joint_concepts,
    shared as shared,
    sparse_concepts as sparse_concepts,
)
from interaction_train.concepts.transforms import (
    merge_single as merge_single,
    or_interactions as or_interactions,
    values_from_and_or as values_from_and_or,
)
from interaction_train.concepts.tree_spans import (
    control_spans as control_spans,
    span_agreement as span_agreement,
    tree_spans as tree_spans,
)
from interaction_train.concepts.trees import (
    InteractionTree as InteractionTree,
    interaction_tree as interaction_tree,
)
