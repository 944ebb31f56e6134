"""What can be told of a figure without eyes."""

import io
from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from interaction_train.tracking.figures import save_figure
from interaction_train.tracking.style import styled


def svg(figure: Figure, folder) -> str:
    """The figure as SVG text."""
    (path,) = save_figure(figure, folder / "drawn.svg")
    return path.read_text()


def boxes(texts: list[Text]) -> list[Bbox]:
    """Where texts that show something are drawn."""
    return [t.get_window_extent() for t in texts if t.get_text() and t.get_visible()]


def overlapping(found: list[Bbox]) -> int:
    """How many pairs of boxes share an area."""
    pairs = (Bbox.intersection(a, b) for a, b in combinations(found, 2))
    return sum(
        shared is not None and shared.width > 0.5 and shared.height > 0.5 for shared in pairs
    )


@styled()  # as ticks are chosen whenever they are asked for
def check(figure: Figure) -> None:
    """No tick labels over each other, no legend over data, nothing beyond the page, a title."""
    figure.savefig(io.BytesIO(), dpi=figure.dpi)  # lays it out, in the pixels of boxes
    titles = [axes.get_title(loc=loc) for axes in figure.axes for loc in ("left", "center")]
    assert any([figure.get_suptitle(), *titles])
    page = figure.bbox
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = [tick for tick in axis.get_ticklabels() if axes.axison]
            assert overlapping(boxes(shown)) == 0, [tick.get_text() for tick in shown]
        if axes.axison:
            tight = axes.get_tightbbox()
            assert tight.x0 > page.x0 - 1
            assert tight.x1 < page.x1 + 1
            assert tight.y0 > page.y0 - 1
            assert tight.y1 < page.y1 + 1
        for legend in figure.legends:
            inside = Bbox.intersection(legend.get_window_extent(), axes.bbox)
            assert inside is None or min(inside.width, inside.height) < 1
