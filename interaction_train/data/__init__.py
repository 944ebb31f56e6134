"""Data modules: digits, images, sentences and tables; grammar and vocabulary of sentences."""

from interaction_train.data.grammar import Phrase, Sentence, grammar_sentences
from interaction_train.data.keyed import Cutout, KeyedSampler
from interaction_train.data.module import DigitsDataModule, ImageDataModule
from interaction_train.data.tables import TableDataModule
from interaction_train.data.text import BucketSampler, TextDataModule
from interaction_train.data.vocabulary import HuggingFaceTokenizer, Vocabulary

__all__ = [
    "BucketSampler",
    "Cutout",
    "DigitsDataModule",
    "HuggingFaceTokenizer",
    "ImageDataModule",
    "KeyedSampler",
    "Phrase",
    "Sentence",
    "TableDataModule",
    "TextDataModule",
    "Vocabulary",
    "grammar_sentences",
]
