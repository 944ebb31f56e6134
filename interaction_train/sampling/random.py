"""Stateless random numbers: a counter-based hash in int64 tensor operations.

A number depends only on (seed, name, step, content of the sample, stream, draw, player), so it is
the same for any batch size, order, device and number of processes. There is no generator, no loop
and no host synchronisation; the global RNG state is never touched.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.errors import InputError

# SplitMix64 (Steele, Lea, Flood 2014): increment and the finaliser's multipliers, as signed numbers
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_BYTES_AS_INT = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _shift_xor(value: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask makes the shift a logical one.
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1).bitwise_xor_(value)


def _mix(value: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection of int64 with full avalanche."""
    value = _shift_xor(value, 30).mul_(_MULTIPLIERS[0])
    value = _shift_xor(value, 27).mul_(_MULTIPLIERS[1])
    return _shift_xor(value, 31)


def content_hash(x: Tensor) -> Tensor:
    """Hash each sample's bytes, ``(B, ...)`` → ``(B,)`` int64, equal on every device.

    Raises:
        InputError: ``x`` has no batch axis or is complex.
    """
    if x.dim() == 0 or x.is_complex():
        raise InputError("x", f"{x.dtype} of shape {tuple(x.shape)}", "a real batch (B, ...)")
    flat = x.detach().reshape(len(x), math.prod(x.shape[1:])).contiguous()
    words = flat.view(_BYTES_AS_INT[flat.element_size()]).to(torch.int64)
    # Every word is mixed with its place before the sum. A weighted sum of the words would not do:
    # small numbers in float64 end in 48 zero bits, so that few bits of the sum would vary.
    places = _mix(torch.arange(1, words.shape[1] + 1, device=x.device).mul_(_STEP))
    return _mix(_mix(words + places).sum(-1) + words.shape[1])


def sample_hash(x: Tensor, y: Tensor) -> Tensor:
    """Content hashes of samples with their labels, ``(B,)`` int64."""
    return content_hash(torch.stack([content_hash(x), y], 1))


@dataclass(frozen=True)
class Draws:
    """A source of stateless random numbers for a batch of samples.

    Args:
        content: ``(B,)`` int64 content hashes (:func:`content_hash`).
        seed: the run's seed.
        name: who draws, for instance the name of a loss.
        step: the global micro-batch counter in training, 0 in evaluation.

    Examples:
        >>> x = torch.arange(6.0).reshape(3, 2)
        >>> alone = Draws(content_hash(x[2:]), seed=1).bits("contexts", 4)
        >>> torch.equal(Draws(content_hash(x), seed=1).bits("contexts", 4)[2:], alone)
        True
    """

    content: Tensor
    seed: int = 0
    name: str = ""
    step: int = 0

    def bits(self, stream: str, *axes: int | range | Tensor) -> Tensor:
        """64 random bits per cell, ``(B, *axes)`` int64, uniform over all 2^64 values.

        Args:
            stream: what the numbers are for; different streams are independent.
            axes: one axis each: a length, or the indices wanted of a longer axis.
        """
        key = f"{self.seed}|{self.name!r}|{self.step}|{stream!r}".encode()
        root = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big", signed=True)
        state = _mix(self.content ^ root)
        for axis in axes:
            if not isinstance(axis, Tensor):
                wanted = range(axis) if isinstance(axis, int) else axis
                axis = torch.arange(wanted.start, wanted.stop, wanted.step, device=state.device)
            state = _mix(state.unsqueeze(-1) + (axis + 1) * _STEP)
        return state

    def uniform(self, stream: str, *axes: int | range | Tensor) -> Tensor:
        """Uniform numbers in [0, 1), ``(B, *axes)`` float32 with 24 random bits."""
        return to_uniform(self.bits(stream, *axes))

    def normal(self, stream: str, *axes: int | range | Tensor) -> Tensor:
        """Standard normal numbers, ``(B, *axes)`` float32, by Box and Muller's transform."""
        bits = self.bits(stream, *axes)
        # One minus the first number lies in (0, 1], whose logarithm is finite.
        radius = to_uniform(bits).neg_().add_(1).log_().mul_(-2).sqrt_()
        return radius.mul_(to_uniform(bits >> 32).mul_(2 * math.pi).cos_())


def to_uniform(bits: Tensor) -> Tensor:
    """The low 24 bits as a float32 in [0, 1)."""
    return bits.bitwise_and(0xFFFFFF).to(torch.float32).mul_(2.0**-24)
