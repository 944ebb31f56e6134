"""The dtype that sums run in."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(device: torch.device | str) -> torch.dtype:
    """float64, or float32 where the device lacks it, as Apple's do."""
    try:  # asked every time: a dispatch mode may refuse it for a while
        torch.empty(0, dtype=torch.float64, device=device)
    except Exception:
        return torch.float32
    return torch.float64


def wide(values: Tensor) -> Tensor:
    """Values in the dtype that sums on their device run in."""
    return values.to(wide_dtype(values.device))
