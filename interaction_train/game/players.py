"""How a tensor splits into the players of a cooperative game."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from interaction_train.errors import InputError, one_of, whole


class Players(ABC):
    """A sample's elements split into n players; coalitions are bool, true if present.

    Attributes:
        samples: the number of samples of the batch that these players are made for; None for any.
    """

    samples: int | None = None

    @abstractmethod
    def count(self, shape: Sequence[int]) -> int:
        """Number of players n; raises InputError where the sample cannot be split this way."""

    @abstractmethod
    def mask(self, coalitions: Tensor, shape: Sequence[int]) -> Tensor:
        """Turn coalitions ``(..., n)`` into element masks that broadcast to ``(..., *shape)``."""

    def names(self, shape: Sequence[int]) -> tuple[str, ...]:
        """A short name for each of the n players; numbers in it count from 0."""
        return tuple(f"player {k}" for k in range(self.count(shape)))

    def background(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor | None:
        """Which elements are in no player, always present: bool that broadcasts to ``shape``.

        None where every element belongs to a player.
        """
        return None

    def part(self, samples: slice | Tensor) -> Players:
        """The players of some samples of the batch; differs only where ``samples`` is not None.

        Tensors are int64 ``(R,)``, in which samples may come several times.
        """
        return self

    def cells(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor | None:
        """The player that each pixel belongs to; None for players that are no image regions."""
        return None


class GridPlayers(Players):
    """The cells of a ``rows`` x ``cols`` grid over the last two axes; channels share a cell.

    Pixel row y of an image of height H belongs to grid row ``floor(y * rows / H)``, and columns
    likewise, also when the size does not divide. Player ``r * cols + c`` is the cell in grid row r,
    column c.

    Args:
        rows: cells along the height, at least 1.
        cols: cells along the width, likewise.

    Examples:
        >>> import torch
        >>> players = GridPlayers(2, 2)
        >>> players.cells((1, 3, 4))
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1],
                [2, 2, 3, 3]])
        >>> players.mask(torch.tensor([True, False, False, True]), (1, 3, 4)).int()
        tensor([[[1, 1, 0, 0],
                 [1, 1, 0, 0],
                 [0, 0, 1, 1]]], dtype=torch.int32)
    """

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols = whole("rows", rows, 1), whole("cols", cols, 1)

    def __repr__(self) -> str:
        return f"GridPlayers({self.rows}, {self.cols})"

    def __str__(self) -> str:
        return f"{self.rows} × {self.cols} grid"

    def count(self, shape: Sequence[int]) -> int:
        if len(shape) < 2:
            raise InputError("players", f"a sample of shape {tuple(shape)}", "(..., height, width)")
        height, width = shape[-2], shape[-1]
        if self.rows > height or self.cols > width:
            expected = f"no more cells than the {height} x {width} pixels of the sample"
            raise InputError("players", f"a grid of {self.rows} x {self.cols} cells", expected)
        return self.rows * self.cols

    def names(self, shape: Sequence[int]) -> tuple[str, ...]:
        """``"r0c2"`` is the cell in grid row 0, column 2."""
        self.count(shape)
        return tuple(f"r{r}c{c}" for r in range(self.rows) for c in range(self.cols))

    def cells(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """The player that each pixel belongs to, ``(height, width)`` int64."""
        self.count(shape)
        rows = torch.arange(shape[-2], device=device) * self.rows // shape[-2]
        cols = torch.arange(shape[-1], device=device) * self.cols // shape[-1]
        return rows[:, None] * self.cols + cols

    def mask(self, coalitions: Tensor, shape: Sequence[int]) -> Tensor:
        cells = self.cells(shape, coalitions.device).flatten()
        broadcast = (*(1 for _ in shape[:-2]), shape[-2], shape[-1])
        return coalitions.index_select(-1, cells).unflatten(-1, broadcast)


class UnitPlayers(Players):
    """Units of a feature tensor: every element, or every channel (the first axis), is a player.

    Examples:
        >>> UnitPlayers().count((4, 8, 8)), UnitPlayers("channel").count((4, 8, 8))
        (256, 4)
    """

    def __init__(self, unit: Literal["element", "channel"] = "element") -> None:
        one_of("unit", unit, ("element", "channel"))
        self.unit = unit

    def __repr__(self) -> str:
        return f"UnitPlayers({self.unit!r})"

    def _axes(self, shape: Sequence[int]) -> tuple[int, ...]:
        if not shape:
            raise InputError("players", "a sample of shape ()", "at least one axis")
        return tuple(shape) if self.unit == "element" else (shape[0], *(1 for _ in shape[1:]))

    def count(self, shape: Sequence[int]) -> int:
        return math.prod(self._axes(shape))

    def names(self, shape: Sequence[int]) -> tuple[str, ...]:
        word = "unit" if self.unit == "element" else "channel"
        return tuple(f"{word} {k}" for k in range(self.count(shape)))

    def mask(self, coalitions: Tensor, shape: Sequence[int]) -> Tensor:
        return coalitions.unflatten(-1, self._axes(shape))
