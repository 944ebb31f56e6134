"""What a revision of images gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Revision:
    """B images before and after, and what a feature and the network make of them.

    Attributes:
        original: ``(B, C, H, W)`` in [0, 1].
        image: the revised images, the last step's.
        strengthened: the sets that were to get stronger, bool ``(B, m2, n)``.
        weakened: the sets that were to get weaker, bool ``(B, m1, n)``.
        strengths: ‖I(S)‖₂ of all sets in the originals, ``(B, 2^n)``.
        revised_strengths: the same in the revised images.
        history: Σ‖I(S)‖₂ over the strengthened and over the weakened sets, ``(B, steps + 1, 2)``,
            before the first step and after each.
        logits: of the originals, ``(B, classes)``.
        revised_logits: of the revised images.

    Of sets, bit i of an index in ``(B, 2^n)`` says whether player i is in.
    """

    original: Tensor
    image: Tensor
    strengthened: Tensor
    weakened: Tensor
    strengths: Tensor
    revised_strengths: Tensor
    history: Tensor
    logits: Tensor
    revised_logits: Tensor

    @property
    def ratio(self) -> Tensor:
        """Strength of the strengthened sets over that of the weakened ones, ``(B, steps + 1)``."""
        return self.history[..., 0] / self.history[..., 1]
