__version__: str

from . import (
    attacks as attacks,
)
from . import (
    callbacks as callbacks,
)
from . import (
    data as data,
)
from . import (
    game as game,
)
from . import (
    indices as indices,
)
from . import (
    losses as losses,
)
from . import (
    metrics as metrics,
)
from . import (
    models as models,
)
from . import (
    sampling as sampling,
)
from . import (
    tracking as tracking,
)
from . import (
    training as training,
)
from .attacks import (
    AdversarialCrafter as AdversarialCrafter,
)
from .attacks import (
    AdversarialSet as AdversarialSet,
)
from .attacks import (
    Ensemble as Ensemble,
)
from .attacks import (
    HybridIRAttack as HybridIRAttack,
)
from .attacks import (
    IRAttack as IRAttack,
)
from .attacks import (
    TransferAttack as TransferAttack,
)
from .attacks import (
    TransferEvaluation as TransferEvaluation,
)
from .callbacks import (
    InteractionRegularizer as InteractionRegularizer,
)
from .callbacks import (
    SpectrumMonitor as SpectrumMonitor,
)
from .data import DigitsDataModule as DigitsDataModule
from .data import ImageDataModule as ImageDataModule
from .errors import InputError as InputError
from .game.absence import input_baseline as input_baseline
from .game.evaluation import logits_of as logits_of
from .game.layers import LayerSuffix as LayerSuffix
from .game.layers import record as record
from .game.masked import MaskedGame as MaskedGame
from .game.normalize import Normalize as Normalize
from .game.normalize import normalized as normalized
from .game.players import (
    GridPlayers as GridPlayers,
)
from .game.players import (
    Players as Players,
)
from .game.players import (
    UnitPlayers as UnitPlayers,
)
from .indices import (
    mean_interaction as mean_interaction,
)
from .indices import (
    player_interactions as player_interactions,
)
from .indices import (
    sample_multi_order as sample_multi_order,
)
from .indices import (
    sample_multivariate as sample_multivariate,
)
from .indices import (
    sample_order_curve as sample_order_curve,
)
from .indices import (
    sample_shapley_pairs as sample_shapley_pairs,
)
from .indices import (
    sample_strength as sample_strength,
)
from .indices.exact import all_coalitions as all_coalitions
from .indices.exact import dividends as dividends
from .indices.exact import exact_values as exact_values
from .indices.exact import multi_order_interactions as multi_order_interactions
from .indices.exact import order_curve as order_curve
from .indices.exact import shapley_interactions as shapley_interactions
from .indices.exact import shapley_values as shapley_values
from .indices.exact_sets import multivariate_interaction as multivariate_interaction
from .indices.exact_sets import multivariate_strength as multivariate_strength
from .indices.exact_sets import shapley_interaction as shapley_interaction
from .losses import (
    BandLoss as BandLoss,
)
from .losses import (
    GroupReduction as GroupReduction,
)
from .losses import (
    InteractionLoss as InteractionLoss,
)
from .losses import (
    OrderLoss as OrderLoss,
)
from .losses import (
    PartitionReduction as PartitionReduction,
)
from .losses import (
    order_weights as order_weights,
)
from .metrics import (
    Disentanglement as Disentanglement,
)
from .metrics import (
    InteractionSpectrum as InteractionSpectrum,
)
from .metrics import (
    InteractionStrength as InteractionStrength,
)
from .metrics import (
    PerturbationInteraction as PerturbationInteraction,
)
from .models import load_weights as load_weights
from .models import pretrained as pretrained
from .sampling.pairs import (
    AllPairs as AllPairs,
)
from .sampling.pairs import (
    GivenPairs as GivenPairs,
)
from .sampling.pairs import (
    NeighbourPairs as NeighbourPairs,
)
from .sampling.pairs import (
    PairSampler as PairSampler,
)
from .sampling.pairs import (
    RandomPairs as RandomPairs,
)
from .sampling.random import Draws as Draws
from .sampling.random import content_hash as content_hash
from .training.module import InteractionClassifier as InteractionClassifier
from .training.objective import WeightedTerm as WeightedTerm
