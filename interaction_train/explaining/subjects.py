"""What is explained: image files, sentences, or samples of a data set, with their players."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from interaction_train.errors import InputError, checked_images
from interaction_train.explaining.inputs import resolve_players
from interaction_train.explaining.pictures import Fitting, read_labels, read_picture
from interaction_train.explaining.sentences import read_sentence
from interaction_train.game.players import Players
from interaction_train.game.segments import SegmentPlayers
from interaction_train.game.tabular import FeaturePlayers

GRID = "grid:3x3"
"""The players of an image, if none are given."""
_MOST = 1024  # players: all their pairs are shown


@dataclass(frozen=True)
class Input:
    """A sample to explain.

    Attributes:
        name: of its folder.
        x: what the network sees, an image ``(C, H, W)``, ids ``(L,)`` or features ``(F,)``.
        players: its own.
        names: of the players, where these have no better.
    """

    name: str
    x: Tensor
    players: Players
    names: Sequence[str] | None = None


def image_file(path: str | Path, fitting: Fitting, players: str) -> Input:
    """An image file; players are a grid's name, or a file with a label map."""
    picture = read_picture(path)
    x, size = fitting.image(picture), (picture.height, picture.width)
    return Input(Path(path).stem, x, _players(players, x, fitting, size))


def load_data(data: L.LightningDataModule, ckpt_path: str | None) -> None:
    """Set a data module up for testing, with what a checkpoint of its run knows, its vocabulary."""
    data.prepare_data()
    if ckpt_path is not None and Path(ckpt_path).suffix == ".ckpt":
        saved = torch.load(ckpt_path, weights_only=True, map_location="cpu")
        state = saved.get(type(data).__qualname__) if isinstance(saved, Mapping) else None
        if state:
            data.load_state_dict(state)
    data.setup("test")


def sentences(texts: Sequence[str], data: Any, players: str | None) -> Iterator[Input]:
    """Sentences, as a ``TextDataModule`` or one like it reads them, with the words as players."""
    if players not in (None, "tokens"):
        raise InputError("players", repr(players), "'tokens', as the samples are sentences")
    tokenizer, vocabulary = (getattr(data, name, None) for name in ("tokenizer", "vocabulary"))
    if tokenizer is None and vocabulary is None:
        expected = "none: its samples are no sentences"
        raise InputError("text", f"sentences, and {type(data).__name__} as data", expected)
    for k, text in enumerate(texts):
        read = read_sentence(text, tokenizer, vocabulary, "text")
        if read.unknown:
            print(f"sentence{k}: {read.told}", file=sys.stderr)
        yield Input(f"sentence{k}", read.ids, read.players, read.names)


def first_samples(data: Any, count: int, players: str | None) -> list[Input]:
    """The first ``count`` samples of the test loader, as the data module gives them."""
    texts = getattr(data, "texts", None)
    if isinstance(texts, Mapping):
        found = list(sentences(texts["test"][:count], data, players))
    else:
        first = enumerate(islice(_test_samples(data), count))
        found = [_sample(f"sample{k}", x, data, players) for k, x in first]
    if len(found) < count:
        raise InputError("samples", count, f"at most {len(found)}, as many as there are to test")
    return found


def _test_samples(data: Any) -> Iterator[Tensor]:
    loaders = data.test_dataloader()
    for batch in loaders[0] if isinstance(loaders, list | tuple) else loaders:
        if not isinstance(batch, Sequence) or not isinstance(batch[0], Tensor):
            raise InputError("data", f"batches of {type(batch).__name__}", "(inputs, labels)")
        yield from batch[0]


def _sample(name: str, x: Tensor, data: Any, players: str | None) -> Input:
    if x.dim() != 1:
        x = checked_images(x[None], "data")[0]
        own = _players(players or GRID, x, Fitting(), tuple(x.shape[-2:]))
        return Input(name, x, own)
    kind = "features" if x.is_floating_point() else "tokens"
    if players not in (None, kind):
        raise InputError("players", repr(players), f"{kind!r}, as the samples are {x.dtype}")
    if kind == "tokens":
        return Input(name, x, resolve_players(kind))
    if groups := getattr(data, "groups", None):
        return Input(name, x, FeaturePlayers(groups))
    return Input(name, x, FeaturePlayers(), getattr(data, "feature_names", None))


def _players(players: str, x: Tensor, fitting: Fitting, size: tuple[int, ...]) -> Players:
    found: Players
    if players.startswith("grid:"):
        found = resolve_players(players)
    elif Path(players).is_file():
        height, width = size
        found = SegmentPlayers(fitting.labels(read_labels(players), (height, width), x.shape))
    else:
        raise InputError("players", repr(players), '"grid:3x3" or the like, or a label map\'s file')
    count = found.count(x.shape)
    if not 2 <= count <= _MOST:
        raise InputError("players", f"{players!r}, {count} of them", f"from 2 to {_MOST}")
    return found
