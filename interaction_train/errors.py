"""The one exception for bad input, and the checks that raise it in several places."""

from __future__ import annotations

from collections.abc import Collection
from operator import index
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the public face imports no torch
    from torch import Tensor

_ROUNDING = 1e-5  # beyond [0, 1], of images that come back from a normalisation


class InputError(ValueError):
    """Bad input: the message names the argument, what came and what was expected.

    The command line prints it as one line and exits with status 2. What is said to be in a range
    is refused outside of it.
    """

    def __init__(self, argument: str, got: object, expected: str) -> None:
        super().__init__(f"{argument}: got {got}, expected {expected}")
        self.argument, self.got, self.expected = argument, got, expected

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str]]:
        # pytest-xdist and DataLoader workers send exceptions between processes.
        return type(self), (self.argument, str(self.got), self.expected)


def at_least(argument: str, value: float, least: float) -> None:
    """Refuse a number below ``least``, NaN, or what is no number."""
    _number(argument, value)
    if not value >= least:
        raise InputError(argument, value, f"at least {least}")


def whole(argument: str, value: int, least: int, most: int | None = None) -> int:
    """The value, if it is a whole number from ``least`` on, up to ``most`` where that is given."""
    if not hasattr(value, "__index__"):
        raise InputError(argument, _told(value), "a whole number")
    at_least(argument, value, least)
    if most is not None:
        in_range(argument, value, least, most)
    return index(value)


def in_range(
    argument: str,
    value: float,
    low: float,
    high: float,
    *,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuse a number outside [low, high], which ``above`` and ``below`` leave open.

    And NaN, and what is no number.
    """
    _number(argument, value)
    enough = low < value if above else low <= value
    if not enough or not (value < high if below else value <= high):
        begin, end = "(" if above else "[", ")" if below else "]"
        raise InputError(argument, value, f"in {begin}{low:g}, {high:g}{end}")


def _number(argument: str, value: object) -> None:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InputError(argument, _told(value), "a number")


def _told(value: object) -> object:
    """What came, in a word."""
    return value if hasattr(value, "__float__") else repr(value)


def one_of(argument: str, value: object, allowed: Collection[object]) -> None:
    """Refuse a value that is not among those allowed, which the message lists."""
    if value not in list(allowed):  # which, unlike a mapping, may be asked for what has no hash
        raise InputError(argument, repr(value), f"one of {', '.join(map(repr, allowed))}")


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def checked_logits(output: Any, rows: int, argument: str = "model") -> Tensor:
    """What a network returned for so many rows, if it is ``(rows, classes)``; no host sync."""
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != rows:
        got = type(output).__name__ if shape is None else tuple(shape)
        raise InputError(argument, f"an output of {got}", f"logits ({rows}, classes)")
    return output


def refuse_one_logit(logits: Tensor) -> None:
    """Refuse the head ``(..., 1)`` of two classes, whose one column is no label's logit."""
    if logits.shape[-1] < 2:
        expected = "a head with a logit per class (for one logit z of two classes: 0 and z)"
        raise InputError("model", "one logit", expected)


def refuse_probabilities(logits: Tensor, argument: str = "model") -> None:
    """Refuse NaN, and rows of non-negative numbers that sum to 1; reads the values back."""
    if bool(logits.isnan().any()):
        raise InputError(argument, "outputs with NaN", "logits")
    total = logits.detach().float().sum(-1)
    if bool((logits >= 0).all()) and bool(((total - 1).abs() < 1e-4).all()):
        raise InputError(argument, "outputs that look like probabilities", "logits")


def checked_labels(labels: Any, count: int, argument: str = "labels") -> Tensor:
    """Labels, if they are an int64 tensor ``(count,)``."""
    dtype, shape = getattr(labels, "dtype", None), getattr(labels, "shape", None)
    if str(dtype) != "torch.int64" or shape != (count,):
        got = type(labels).__name__ if shape is None else f"{dtype} {tuple(shape)}"
        raise InputError(argument, got, f"int64 ({count},), one per sample")
    return labels


def checked_classes(labels: Tensor, classes: int, argument: str = "labels") -> None:
    """Refuse labels outside 0 … classes − 1; reads their bounds back to the host."""
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        got = f"{classes} classes and labels from {low} to {high}"
        raise InputError(argument, got, "labels from 0 on, below the number of classes")


def checked_images(images: Any, argument: str = "images") -> Tensor:
    """A batch of images ``(B, ...)``, floats without NaN, clamped to [0, 1] against rounding."""
    if not hasattr(images, "is_floating_point") or not images.is_floating_point():
        got = getattr(images, "dtype", type(images).__name__)
        raise InputError(argument, got, "a tensor of floating point values in [0, 1]")
    if images.dim() < 2 or len(images) == 0:
        raise InputError(argument, f"shape {tuple(images.shape)}", "a batch (B, C, H, W)")
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also when NaN
        raise InputError(argument, f"values from {low:.6g} to {high:.6g}", "values in [0, 1]")
    return images.clamp(0, 1)
