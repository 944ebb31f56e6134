"""How many rows to send through a network at once."""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interaction_train.evaluation import Network, without_grad

CANDIDATES = (16, 32, 64, 128, 256, 512)
_FALLBACK = 64
_chosen: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], int]] = WeakKeyDictionary()


def chunk_rows(network: Network, owner: nn.Module | None, sample: Tensor, rows: int) -> int:
    """The fastest chunk size for evaluation, timed once per model, shape, dtype and device.

    Small jobs, which timing would only delay, take what is known or else a fixed size.

    Args:
        network: what is timed, called on ``(chunk, ...)``.
        owner: the module that the choice is remembered for.
        sample: one sample ``(1, ...)`` of the network's input.
        rows: how many rows the job has.
    """
    if owner is None:
        return _FALLBACK
    known = _chosen.get(owner, {})
    key = (
        tuple(sample.shape),
        sample.dtype,
        sample.device,
        torch.is_autocast_enabled(sample.device.type),
        torch.get_num_threads(),
    )
    if key not in known:
        if rows < 4 * sum(CANDIDATES):
            return _FALLBACK
        known = _chosen.setdefault(owner, known)
        known[key] = _fastest(network, sample)
    return known[key]


def _fastest(network: Network, sample: Tensor) -> int:
    best, best_time = CANDIDATES[0], float("inf")
    for candidate in CANDIDATES:
        batch = sample.expand(candidate, *sample.shape[1:]).contiguous()
        try:
            per_row = min(_seconds(network, batch) for _ in range(3)) / candidate
        except torch.OutOfMemoryError:
            break
        if per_row < best_time:
            best, best_time = candidate, per_row
        elif per_row > 1.5 * best_time:
            break  # the caches are full; larger chunks only get slower
    return best


def _seconds(network: Network, batch: Tensor) -> float:
    with without_grad():
        _synchronize(batch.device)
        start = time.perf_counter()
        network(batch)
        _synchronize(batch.device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
