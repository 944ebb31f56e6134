__version__: str

from . import (
    attacks as attacks,
    attributions as attributions,
    baselines as baselines,
    callbacks as callbacks,
    concepts as concepts,
    data as data,
    explaining as explaining,
    game as game,
    indices as indices,
    losses as losses,
    metrics as metrics,
    models as models,
    recovery as recovery,
    revising as revising,
    sampling as sampling,
    tracking as tracking,
    training as training,
)
from .attacks import (
    AdversarialCrafter as AdversarialCrafter,
    AdversarialSet as AdversarialSet,
    Ensemble as Ensemble,
    HybridIRAttack as HybridIRAttack,
    IRAttack as IRAttack,
    TransferAttack as TransferAttack,
    TransferEvaluation as TransferEvaluation,
)
from .attributions import (
    allocation as allocation,
    attribute as attribute,
    check_principles as check_principles,
    degree_effects as degree_effects,
    distribute as distribute,
    infidelity as infidelity,
    second_order_effects as second_order_effects,
    table_iv as table_iv,
)
from .baselines import (
    LearnedBaseline as LearnedBaseline,
    compare_baselines as compare_baselines,
    learn_baseline as learn_baseline,
)
from .callbacks import (
    InteractionRegularizer as InteractionRegularizer,
    SpectrumMonitor as SpectrumMonitor,
)
from .concepts import (
    Concepts as Concepts,
    InteractionTree as InteractionTree,
    Surrogate as Surrogate,
    concept_graph as concept_graph,
    feature_dividends as feature_dividends,
    fidelity as fidelity,
    interaction_tree as interaction_tree,
    joint_concepts as joint_concepts,
    merge_single as merge_single,
    or_interactions as or_interactions,
    phrase_interactions as phrase_interactions,
    same_interactions as same_interactions,
    select_concepts as select_concepts,
    sparse_concepts as sparse_concepts,
    values_from_and_or as values_from_and_or,
)
from .data import (
    DigitsDataModule as DigitsDataModule,
    ImageDataModule as ImageDataModule,
    TableDataModule as TableDataModule,
    TextDataModule as TextDataModule,
)
from .errors import InputError as InputError
from .explaining import (
    Explanation as Explanation,
    explain as explain,
    explain_texts as explain_texts,
)
from .game.absence import input_baseline as input_baseline
from .game.batch import GameBatch as GameBatch
from .game.evaluation import logits_of as logits_of
from .game.layers import (
    LayerPrefix as LayerPrefix,
    LayerSuffix as LayerSuffix,
    record as record,
)
from .game.masked import MaskedGame as MaskedGame
from .game.normalize import Normalize as Normalize, normalized as normalized
from .game.players import GridPlayers as GridPlayers, Players as Players, UnitPlayers as UnitPlayers
from .game.segments import SegmentPlayers as SegmentPlayers
from .game.tabular import FeaturePlayers as FeaturePlayers
from .game.tokens import TokenPlayers as TokenPlayers
from .indices import (
    interaction_map as interaction_map,
    interaction_maps as interaction_maps,
    mean_interaction as mean_interaction,
    player_interactions as player_interactions,
    sample_between as sample_between,
    sample_multi_order as sample_multi_order,
    sample_multivariate as sample_multivariate,
    sample_order_curve as sample_order_curve,
    sample_shapley_pairs as sample_shapley_pairs,
    sample_shapley_values as sample_shapley_values,
    sample_strength as sample_strength,
)
from .indices.exact import (
    all_coalitions as all_coalitions,
    dividends as dividends,
    exact_values as exact_values,
    multi_order_interactions as multi_order_interactions,
    order_curve as order_curve,
    shapley_interactions as shapley_interactions,
    shapley_values as shapley_values,
)
from .indices.exact_sets import (
    multivariate_interaction as multivariate_interaction,
    multivariate_strength as multivariate_strength,
    shapley_interaction as shapley_interaction,
)
from .losses import (
    BandLoss as BandLoss,
    GroupReduction as GroupReduction,
    InteractionLoss as InteractionLoss,
    OrderLoss as OrderLoss,
    PartitionReduction as PartitionReduction,
    WalshPenalty as WalshPenalty,
    order_weights as order_weights,
)
from .metrics import (
    Disentanglement as Disentanglement,
    InteractionSpectrum as InteractionSpectrum,
    InteractionStrength as InteractionStrength,
    PerturbationInteraction as PerturbationInteraction,
)
from .models import load_weights as load_weights, pretrained as pretrained
from .recovery import (
    WalshModel as WalshModel,
    budget_curve as budget_curve,
    fit_rows as fit_rows,
    fit_walsh as fit_walsh,
    strongest as strongest,
)
from .revising import revise_image as revise_image
from .sampling.pairs import (
    AllPairs as AllPairs,
    GivenPairs as GivenPairs,
    NeighbourPairs as NeighbourPairs,
    PairSampler as PairSampler,
    RandomPairs as RandomPairs,
)
from .sampling.random import Draws as Draws, content_hash as content_hash
from .training.module import InteractionClassifier as InteractionClassifier
from .training.objective import WeightedTerm as WeightedTerm
