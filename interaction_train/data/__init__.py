"""Data modules: digits, and images from a folder, an archive or torchvision."""

from interaction_train.data.keyed import KeyedSampler
from interaction_train.data.module import DigitsDataModule, ImageDataModule
from interaction_train.data.transforms import Cutout

__all__ = ["Cutout", "DigitsDataModule", "ImageDataModule", "KeyedSampler"]
