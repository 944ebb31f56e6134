"""How many rows to send through a network at once."""

from __future__ import annotations

import time
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interaction_train.game.evaluation import Network, without_grad

CANDIDATES = (16, 32, 64, 128, 256, 512)
_FALLBACK = 64
_CPU_ROWS = 64  # of a differentiable pass; far larger ones take longer per row on processors
_CPU_ELEMENTS = 2**16  # of one's input where samples are vectors, so that rows cost little
_ELEMENTS = 128 * 3 * 224 * 224  # of one's input elsewhere; tens of GiB for a ResNet-152
_ROUNDS = 4
_chosen: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], int]] = WeakKeyDictionary()


def chunk_rows(network: Network, owner: nn.Module | None, sample: Tensor, rows: int) -> int:
    """The fastest chunk size for so many rows, timed once per owner, shape, dtype and device.

    Small jobs take what is known or else a fixed size. ``sample`` is one input ``(1, ...)``.
    """
    if owner is None:
        return _FALLBACK
    known = _chosen.get(owner, {})
    half = torch.is_autocast_enabled(sample.device.type)
    key = (tuple(sample.shape), sample.dtype, sample.device, half, torch.get_num_threads())
    if key not in known:
        if rows < 4 * sum(CANDIDATES):
            return _FALLBACK
        known = _chosen.setdefault(owner, known)
        known[key] = _fastest(network, sample)
    return known[key]


def gradient_rows(sample: Tensor, total: int) -> int:
    """How many of a differentiable job's ``total`` rows go through a network at once."""
    size = max(1, sample.numel())
    limit = _ELEMENTS // size
    if sample.device.type == "cpu":
        limit = max(_CPU_ROWS, _CPU_ELEMENTS // size) if sample.dim() == 1 else _CPU_ROWS
    return max(1, min(total, limit))


def _fastest(network: Network, sample: Tensor) -> int:
    best: dict[int, float] = {}
    with suppress(torch.OutOfMemoryError):
        _per_row(network, sample, CANDIDATES[0])  # the first call of all is slower
    for candidate in CANDIDATES:
        try:
            best[candidate] = _per_row(network, sample, candidate)
        except torch.OutOfMemoryError:
            break
        if all(best[c] > 1.05 * min(best.values()) for c in list(best)[-2:]):
            break  # twice slower: the caches are full, and larger chunks only get slower
    # The best few take turns, so that a busy machine slows all alike.
    limit = 1.3 * min(best.values(), default=0.0)
    good = [c for c, seconds in best.items() if seconds <= limit]
    for _ in range(_ROUNDS):
        for candidate in good:
            best[candidate] = min(best[candidate], _per_row(network, sample, candidate))
    return min(good, key=best.__getitem__, default=CANDIDATES[0])


def _per_row(network: Network, sample: Tensor, rows: int) -> float:
    return _seconds(network, sample.expand(rows, *sample.shape[1:]).contiguous()) / rows


def _seconds(network: Network, batch: Tensor) -> float:
    with without_grad():
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        start = time.perf_counter()
        network(batch)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
    return time.perf_counter() - start
