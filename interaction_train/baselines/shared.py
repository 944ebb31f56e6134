"""One baseline for all samples, as a vector that learns in standardised coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, in_range
from interaction_train.game.absence import SUFFIX, check_fits, read_baseline
from interaction_train.game.precision import wide

Start = str | Path | float | Sequence[float] | Tensor


class SharedBaseline(nn.Module):
    """b = start + scale · shift, whose ``shift`` is the only parameter, 0 at first.

    Args:
        start: where to start, of the shape of the baseline.
        scale: the standard deviations of the coordinates, of the same shape.
        max_shift: bound on every |shift|, in standard deviations; None for no bound.

    Raises:
        InputError: a bound that is not positive.
    """

    start: Tensor
    scale: Tensor

    def __init__(self, start: Tensor, scale: Tensor, max_shift: float | None = None) -> None:
        super().__init__()
        if max_shift is not None:
            in_range("max_shift", max_shift, 0, math.inf, above=True, below=True)
        self.max_shift = max_shift
        self.register_buffer("start", start.detach().clone())
        self.register_buffer("scale", scale.to(start))
        self.shift = nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        return self.start + self.scale * self.shift

    @torch.no_grad()
    def project(self) -> None:
        """Put the shift back within its bound, after a step of the optimizer."""
        if self.max_shift is not None:
            self.shift.clamp_(-self.max_shift, self.max_shift)


def starting_value(start: Start, x: Tensor, argument: str = "start") -> Tensor:
    """A baseline to start from, for samples ``(B, ...)`` of floating point numbers.

    ``"mean"``, ``"median"``, ``"zero"`` and several numbers are one per column of ``(B, F)``,
    ``(F,)``; per coordinate of embeddings ``(B, L, D)``, ``(D,)``; else per channel, ``(C, 1, 1)``.
    A number is one that all coordinates share, ``()``; a saved baseline, or a tensor that
    broadcasts to a sample, keeps its own shape.

    Raises:
        InputError: an unknown name, or a value that does not fit.
    """
    shape = coordinates(x)
    if isinstance(start, str) and start in STATISTICS:
        return _STATISTICS[start](_columns(x, shape)).view(shape).to(x)
    if isinstance(start, Tensor):
        given = start.detach().to(x)
    elif isinstance(start, Path) or (isinstance(start, str) and start.endswith(SUFFIX)):
        given = read_baseline(start, argument).to(x)
    elif isinstance(start, str):
        expected = f"one of {', '.join(map(repr, STATISTICS))}, numbers or a {SUFFIX} file"
        raise InputError(argument, repr(start), expected)
    elif isinstance(start, Sequence):
        if len(start) != math.prod(shape):
            expected = f"{math.prod(shape)}, one per coordinate of {tuple(x.shape[1:])}"
            raise InputError(argument, f"{len(start)} numbers", expected)
        given = x.new_tensor(list(start)).view(shape)
    else:
        given = x.new_full((), start)
    check_fits(argument, given, x)
    if not bool(given.isfinite().all()):
        raise InputError(argument, "numbers that are not finite", "finite ones")
    return given.clone()


def described(start: Start) -> str | float:
    """A start in a few characters."""
    if isinstance(start, str | Path):
        return str(start)
    return float(start) if isinstance(start, float | int) else f"a {type(start).__name__}"


def coordinates(x: Tensor) -> tuple[int, ...]:
    """The shape of a baseline for samples ``(B, ...)``."""
    if x.dim() <= 3:
        return (x.shape[-1],)
    return (x.shape[1], *(1 for _ in x.shape[2:]))


def deviations(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard deviations of the coordinates of a baseline; 1 where ``x`` is constant."""
    columns = wide(_columns(x, shape))
    std = columns.std(-1, correction=0)
    moves = std > torch.finfo(x.dtype).eps * columns.abs().amax(-1)
    return torch.where(moves, std, 1.0).view(tuple(shape)).to(x)


def _columns(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The numbers ``(coordinates, values)`` that share each coordinate of a shape."""
    full = (*(1 for _ in range(x.dim() - 1 - len(shape))), *shape)
    kept = [axis for axis, size in enumerate(full, 1) if size > 1]
    rest = [axis for axis in range(x.dim()) if axis not in kept]
    return x.permute(*kept, *rest).reshape(math.prod(shape), -1)


_STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda columns: wide(columns).mean(-1),
    # Of an even count the mean of both in the middle, of which torch's has the lower.
    "median": lambda columns: (columns.median(-1).values - (-columns).median(-1).values) / 2,
    "zero": lambda columns: columns.new_zeros(len(columns)),
}
STATISTICS = tuple(_STATISTICS)
