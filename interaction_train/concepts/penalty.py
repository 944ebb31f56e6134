"""How much an interaction costs that several networks have."""

from __future__ import annotations

import torch
from torch import Tensor


class Penalty:
    """‖x‖ = (1 − α) max_m |x_m| + α Σ_m |x_m| of an interaction in M networks; |x| for M = 1.

    The largest is paid in full and the others by their share α: at 1 nothing is gained by sharing,
    at 0 an interaction that one network has is free for the others (Chen et al., "Defining and
    Extracting Generalizable Interaction Primitives from DNNs", 2024, Eq. 6). Interactions are
    ``(b, M, 2, 2^n)``; the AND of ∅, the constant, costs nothing.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def total(self, x: Tensor) -> Tensor:
        """Σ ‖x(S)‖ over all interactions, ``(b,)``."""
        sizes = x.abs()
        norms = (1 - self.alpha) * sizes.amax(1) + self.alpha * sizes.sum(1)
        return norms.sum((-2, -1)) - norms[:, 0, 0]

    def gauge(self, y: Tensor) -> Tensor:
        """The largest dual norm of all interactions, ``(b,)``."""
        if y.shape[1] == 1:
            return y.abs().amax((1, 2, 3))
        top = y.abs().sort(1, descending=True).values.cumsum(1)
        return (top / self._steps(y)).amax((1, 2, 3))

    def project(self, y: Tensor) -> Tensor:
        """The nearest point whose dual norm is at most 1, interaction by interaction."""
        if y.shape[1] == 1:
            return y.clamp(-1, 1)
        # y less its proximal point: that of α Σ|x| first, then that of (1 − α) max |x|.
        rest = (y.abs() - self.alpha).clamp(min=0)
        order = rest.sort(1, descending=True).values
        count = torch.arange(1, y.shape[1] + 1, device=y.device).view(-1, 1, 1)
        level = ((order.cumsum(1) - (1 - self.alpha)) / count).amax(1, keepdim=True).clamp(min=0)
        return y - y.sign() * torch.minimum(rest, level)

    def _steps(self, y: Tensor) -> Tensor:
        count = torch.arange(1, y.shape[1] + 1, device=y.device, dtype=y.dtype)
        return (1 - self.alpha + self.alpha * count).view(-1, 1, 1)
