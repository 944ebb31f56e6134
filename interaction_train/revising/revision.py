"""What a revision of images gives, and originals beside their revisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.tracking.figures import new_panels, show_image
from interaction_train.tracking.style import styled

_PANEL = 1.5  # inches


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


@styled()
def revisions_figure(
    revisions: Sequence[Revision], rows: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Images, one a row: the original, then each revision, for a grid of m1 and m2 say (Fig. 5).

    Above each revision stand m1 and m2, the numbers of sets weakened and strengthened, and the
    ratio of their strengths before and after.

    Args:
        revisions: of the same images, of one or three channels.
        rows: what is written above each original; default: its number.
        title: of the figure.

    Raises:
        InputError: no revision, of other images than the first one, other channels, or fewer or
            more rows.
    """
    if not revisions:
        raise InputError("revisions", "none", "at least one")
    original = revisions[0].original
    if original.shape[1] not in (1, 3):
        raise InputError("revisions", f"images {tuple(original.shape)}", "(B, 1 or 3, H, W)")
    for place, revision in enumerate(revisions):
        if revision.original.shape != original.shape or bool((revision.original != original).any()):
            raise InputError("revisions", f"one of other images at {place}", "the first one's")
    columns, lines = 1 + len(revisions), len(original)
    rows = [f"image {b}" for b in range(lines)] if rows is None else rows
    if len(rows) != lines:
        raise InputError("rows", f"{len(rows)} texts", f"one for each of {lines} images")
    figure, panels = new_panels(lines, columns, _PANEL * columns, 0.4 + 1.25 * _PANEL * lines)
    for b, line in enumerate(panels):
        show_image(line[0], original[b], rows[b])
        for axes, revision in zip(line[1:], revisions, strict=True):
            first, last = revision.ratio[b, [0, -1]].tolist()
            m1, m2 = revision.weakened.shape[1], revision.strengthened.shape[1]
            told = f"\nratio {first:.2g} → {last:.2g}" if m1 else ""
            show_image(axes, revision.image[b], f"m₁ = {m1}, m₂ = {m2}{told}")
    figure.suptitle(title)
    return figure
