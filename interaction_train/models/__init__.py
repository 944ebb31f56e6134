"""Reference networks, normalisation as a first layer, and weights."""

from interaction_train.game.normalize import Normalize, normalized
from interaction_train.models.cifar_resnet import CIFARThinResNet
from interaction_train.models.networks import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFARVGG,
    DIGITS_MEAN,
    DIGITS_STD,
    CIFARAlexNet,
    CIFARResNet,
    DigitsMLP,
    DigitsNet,
)
from interaction_train.models.weights import load_weights, pretrained, weights_tag

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CIFARVGG",
    "DIGITS_MEAN",
    "DIGITS_STD",
    "CIFARAlexNet",
    "CIFARResNet",
    "CIFARThinResNet",
    "DigitsMLP",
    "DigitsNet",
    "Normalize",
    "load_weights",
    "normalized",
    "pretrained",
    "weights_tag",
]
