"""The look of every figure of the package, whatever matplotlib's own settings are.

Nothing global changes: the settings hold while a figure is built (:func:`styled`) and, as ticks and
fonts are made late, whenever a :class:`StyledFigure` is drawn or saved. pyplot is not imported.
"""

from __future__ import annotations

import io
from contextlib import _GeneratorContextManager
from typing import Any

import matplotlib
import matplotlib.style
from cycler import cycler
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK, RULE = "#1f2933", "#b4bec8"
"""Text and axes; the grid."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#661f1f", "#cc79a7", "#0d3380")
"""Curves: at least 3 : 1 on white and on the report's dark page, apart for the colour-blind."""
POSITIVE, NEGATIVE = "#c4501b", "#1c6ea4"
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#08406b", "#3b8cc0", "#f4f4f2", "#e07b39", "#7d2e05"]
)
"""Diverging, negative blue and positive orange, with a neutral middle."""
SEQUENTIAL = matplotlib.colormaps["viridis"]
DPI = 150
_NOTEBOOK_DPI = 80

STYLE: dict[str, Any] = {
    "font.family": ["sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "figure.titlesize": 10,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "hatch.color"), RULE),
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    # Beyond six curves the colours come again, with dashes.
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":", "-."]) * cycler(color=COLOURS),
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "errorbar.capsize": 2,
    "text.parse_math": False,  # a dollar in a name is no formula
    "image.interpolation": "nearest",
    "image.cmap": "viridis",
    "savefig.dpi": DPI,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "interaction-train",
    "pdf.fonttype": 42,
}


def styled() -> _GeneratorContextManager[None]:
    """The style, as a context or a decorator: matplotlib's defaults, then :data:`STYLE`."""
    return matplotlib.style.context(["default", STYLE])


class StyledFigure(Figure):
    """A figure in the package's style also where it is drawn later, in a notebook for instance."""

    def draw(self, renderer: RendererBase) -> None:
        with styled():
            super().draw(renderer)

    def savefig(self, *args: Any, **options: Any) -> None:
        with styled():
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        """What a notebook shows, also one that has not loaded pyplot."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_NOTEBOOK_DPI)
        return buffer.getvalue()
