"""Players that are the segments of a label map: superpixels, a mask, the classes of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.players import Players


class SegmentPlayers(Players):
    """The segments of a label map over the last two axes; channels share a segment.

    Player k is the segment with the k-th smallest label, so labels need not be consecutive. With a
    map for each sample n is the largest number of segments, and the last players of a sample with
    fewer are dummies: they have no pixels and change nothing, all that they take part in is 0.

    Args:
        labels: integers or bool ``(H, W)``, one map for all samples, or ``(B, H, W)``, one for each
            sample of a batch; a tensor or an array. Maps for each sample go with a batch of B
            samples only, not with losses that look at a part of it.

    Raises:
        InputError: labels of another dtype or shape, here; samples of another size or, with a map
            for each, of another number, on use.

    Examples:
        >>> players = SegmentPlayers([[7, 7, 2], [7, 9, 2]])
        >>> players.count((3, 2, 3)), players.names((3, 2, 3))
        (3, ('segment 2', 'segment 7', 'segment 9'))
        >>> players.cells((3, 2, 3))
        tensor([[1, 1, 0],
                [1, 2, 0]])
        >>> SegmentPlayers([[[0, 1]], [[0, 0]]]).count((3, 1, 2))  # the second sample has a dummy
        2
    """

    def __init__(self, labels: Any) -> None:
        try:
            maps = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            got, expected = type(labels).__name__, "a tensor, an array or lists of integers or bool"
            raise InputError("labels", got, expected) from None
        if maps.dim() not in (2, 3) or 0 in maps.shape:
            expected = "(height, width) or (B, height, width)"
            raise InputError("labels", f"shape {tuple(maps.shape)}", expected)
        if maps.is_floating_point() or maps.is_complex() or maps.dtype == torch.uint64:
            raise InputError("labels", maps.dtype, "integers, one for each segment, or bool")
        self.samples = len(maps) if maps.dim() == 3 else None
        flat = maps.detach().long().reshape(-1, maps.shape[-2] * maps.shape[-1])
        ordered, place = flat.sort(-1)
        rank = torch.nn.functional.pad((ordered.diff() != 0).cumsum(-1), (1, 0))
        self._cells = torch.empty_like(flat).scatter_(-1, place, rank).view(-1, *maps.shape[-2:])
        self._n = int(rank.max()) + 1
        self._labels = ordered[0].unique().tolist() if self.samples is None else range(self._n)

    def __repr__(self) -> str:
        maps = "one map" if self.samples is None else f"{self.samples} maps"
        height, width = self._cells.shape[-2:]
        return f"SegmentPlayers({maps} of {height} x {width}, {self._n} segments)"

    def count(self, shape: Sequence[int]) -> int:
        if tuple(shape[-2:]) != tuple(self._cells.shape[-2:]):
            expected = f"(..., {', '.join(map(str, self._cells.shape[-2:]))}), the label map's"
            raise InputError("players", f"a sample of shape {tuple(shape)}", expected)
        return self._n

    def names(self, shape: Sequence[int]) -> tuple[str, ...]:
        """``"segment 7"`` has the label 7 of the one map, or is player 7 where maps differ."""
        self.count(shape)
        return tuple(f"segment {label}" for label in self._labels)

    def cells(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """The player that each pixel belongs to, int64 ``(H, W)``, or ``(B, H, W)`` for B maps."""
        self.count(shape)
        self._cells = self._cells.to(device or self._cells.device)  # where it was used last
        return self._cells[0] if self.samples is None else self._cells

    def part(self, samples: slice) -> SegmentPlayers:
        if self.samples is None:
            return self
        chosen = object.__new__(SegmentPlayers)
        chosen._cells, chosen._n, chosen._labels = self._cells[samples], self._n, self._labels
        chosen.samples = len(chosen._cells)
        return chosen

    def mask(self, coalitions: Tensor, shape: Sequence[int]) -> Tensor:
        cells = self.cells(shape, coalitions.device).flatten(-2)
        broadcast = (*(1 for _ in shape[:-2]), shape[-2], shape[-1])
        if self.samples is None:
            return coalitions.index_select(-1, cells).unflatten(-1, broadcast)
        if coalitions.dim() != 3 or len(coalitions) != self.samples:
            got = f"players of {self.samples} samples, for coalitions {tuple(coalitions.shape)}"
            raise InputError("players", got, f"coalitions ({self.samples}, K, {self._n})")
        cells = cells.unsqueeze(1).expand(-1, coalitions.shape[1], -1)
        return coalitions.gather(-1, cells).unflatten(-1, broadcast)
