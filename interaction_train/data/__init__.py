"""Data modules: digits, and images from a folder, an archive or torchvision."""

from interaction_train.data.keyed import Cutout, KeyedSampler
from interaction_train.data.module import DigitsDataModule, ImageDataModule

__all__ = ["Cutout", "DigitsDataModule", "ImageDataModule", "KeyedSampler"]
