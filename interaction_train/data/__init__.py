"""Data modules: digits, and images from a folder, an archive or torchvision."""

from interaction_train.data.module import DigitsDataModule, ImageDataModule, ImageSplits

__all__ = ["DigitsDataModule", "ImageDataModule", "ImageSplits"]
