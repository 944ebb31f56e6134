"""What is explained: image files, or samples of a data set, each with its players."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from torch import Tensor

from interaction_train.errors import InputError, checked_images
from interaction_train.explaining.inputs import resolve_players
from interaction_train.explaining.pictures import Fitting, read_labels, read_picture
from interaction_train.game.players import Players
from interaction_train.game.segments import SegmentPlayers

_MOST = 1024  # players: all their pairs are shown


@dataclass(frozen=True)
class Input:
    """An image to explain: its name, what the network sees of it ``(C, H, W)``, its players."""

    name: str
    x: Tensor
    players: Players


def image_file(path: str | Path, fitting: Fitting, players: str) -> Input:
    """An image file; players are a grid's name, or a file with a label map."""
    picture = read_picture(path)
    x, size = fitting.image(picture), (picture.height, picture.width)
    return Input(Path(path).stem, x, _players(players, x, fitting, size))


def first_samples(data: L.LightningDataModule, count: int, players: str) -> Iterator[Input]:
    """The first ``count`` samples of the test loader, as the data module gives them."""
    data.prepare_data()
    data.setup("test")
    loaders = data.test_dataloader()
    found = 0
    for batch in loaders[0] if isinstance(loaders, list | tuple) else loaders:
        if not isinstance(batch, Sequence) or not isinstance(batch[0], Tensor):
            raise InputError("data", f"batches of {type(batch).__name__}", "(images, labels)")
        for x in checked_images(batch[0], "data")[: count - found]:
            yield Input(f"sample{found}", x, _players(players, x, Fitting(), tuple(x.shape[-2:])))
            found += 1
        if found == count:
            return
    raise InputError("samples", count, f"at most {found}, as many as there are to test")


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
