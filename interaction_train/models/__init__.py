"""Reference networks, normalisation as a first layer, and weights."""

from interaction_train.game.normalize import (
    Normalize as Normalize,
    Standardize as Standardize,
    normalized as normalized,
)
from interaction_train.models.defenses import (
    BitDepthDefense as BitDepthDefense,
    JPEGDefense as JPEGDefense,
    ResizePadDefense as ResizePadDefense,
    SmoothingDefense as SmoothingDefense,
)
from interaction_train.models.networks import (
    CIFAR10_MEAN as CIFAR10_MEAN,
    CIFAR10_STD as CIFAR10_STD,
    CIFARVGG as CIFARVGG,
    DIGITS_MEAN as DIGITS_MEAN,
    DIGITS_STD as DIGITS_STD,
    CIFARAlexNet as CIFARAlexNet,
    CIFARResNet as CIFARResNet,
    CIFARThinResNet as CIFARThinResNet,
    DigitsMLP as DigitsMLP,
    DigitsNet as DigitsNet,
)
from interaction_train.models.table import TableMLP as TableMLP
from interaction_train.models.text import TextTransformer as TextTransformer
from interaction_train.models.weights import (
    load_weights as load_weights,
    pretrained as pretrained,
    weights_tag as weights_tag,
)
