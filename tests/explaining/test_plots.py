import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.patches import PathPatch
from PIL import Image

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.explaining.canvas import centroids, grey_image
from interaction_train.explaining.plots import Plots
from interaction_train.tracking.figures import save_figure
from interaction_train.tracking.style import NEGATIVE, POSITIVE
from tests.explaining.standin import digits, drawn, segments
from tests.tracking.looks import boxes, check, overlapping, svg

KINDS = ("heatmap", "pairs", "matrix", "network")
LONG = tuple(f"income in thousands of dollars per year {k}" for k in range(64))


def colour(size: int) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))


CASES = {
    "digits": digits,
    "segments": lambda: drawn(16, colour(224), segments()),
    "8 x 8 cells": lambda: drawn(64, colour(32), it.GridPlayers(8, 8).cells((3, 32, 32))),
    "grey without channels": lambda: drawn(4, colour(8)[0], it.GridPlayers(2, 2).cells((8, 8))),
    "features": lambda: drawn(8, torch.zeros(8), None),
    "64 long names": lambda: drawn(64, torch.zeros(64), None, LONG),
    "two": lambda: drawn(2, torch.zeros(2), None),
}


@pytest.fixture(scope="module")
def explained():
    return digits()


def lines(figure) -> dict[tuple[int, int], PathPatch]:
    """Pair → its line."""
    found = {}
    for patch in figure.axes[0].patches:
        if match := re.fullmatch(r"pair-(\d+)-(\d+)", patch.get_gid() or ""):
            found[int(match[1]), int(match[2])] = patch
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", CASES)
def test_ticks_titles_and_legends(case):
    explanation = CASES[case]()
    plots = Plots(explanation)
    for kind in KINDS:
        figure = getattr(plots, kind)()
        check(figure)
        title = " ".join(figure.get_suptitle().split())
        assert title.endswith(explanation.title(0)), kind
    figure = plots.spectrum()
    check(figure)
    assert explanation.network in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["features", "64 long names"])
def test_names_do_not_overlap(case, kind):
    figure = getattr(Plots(CASES[case]()), kind)()
    check(figure)
    if kind in ("pairs", "network"):
        names = [text for text in figure.axes[0].texts if text.get_rotation() % 90 == 0]
        assert overlapping(boxes(names)) == 0
        assert len(figure.axes[0].texts) == len(CASES[case]().names)


@pytest.mark.parametrize("kind", [*KINDS, "spectrum"])
def test_files_are_valid_and_the_same_every_time(explained, kind, tmp_path):
    png, vector = save_figure(getattr(Plots(explained), kind)(), tmp_path / kind)
    assert Image.open(png).format == "PNG"
    assert ElementTree.fromstring(vector.read_text()).tag.endswith("svg")
    first = [png.read_bytes(), vector.read_bytes()]
    again = save_figure(getattr(Plots(explained), kind)(), tmp_path / kind)
    assert [path.read_bytes() for path in again] == first


def test_heat_map_tints_each_cell_by_its_value(explained):
    figure = Plots(explained).heatmap(1)
    axes = figure.axes[1]
    grey, tint = axes.images
    shown = np.asarray(tint.get_array(), dtype=float)
    for player, value in enumerate(explained.shapley[1].tolist()):
        assert (shown[explained.cells(1).numpy() == player] == value).all()
    low, high = tint.get_clim()
    assert -low == high == float(explained.shapley[1].abs().max())
    assert np.asarray(grey.get_array()).min() > 0.5  # pale
    told = [float(text.get_text().replace("−", "-")) for text in axes.texts]
    assert told == pytest.approx(explained.shapley[1].tolist(), abs=0.051)
    assert "nats" in figure.axes[2].get_ylabel()


def test_pixels_of_no_player_are_not_tinted():
    cells = it.GridPlayers(2, 2).cells((8, 8)).clone()
    cells[0] = -1
    figure = Plots(drawn(4, colour(8), cells)).heatmap()
    shown = np.ma.filled(figure.axes[1].images[1].get_array(), np.nan)
    assert np.isnan(shown[0]).all()
    assert not np.isnan(shown[1:]).any()


def test_bars_of_other_players_are_sorted_and_have_errors():
    explanation = CASES["features"]()
    (axes,) = Plots(explanation).heatmap().axes
    lengths = [bar.get_width() for bar in axes.patches]
    assert sorted(lengths) == pytest.approx(sorted(explanation.shapley[0].tolist()))
    assert [abs(x) for x in lengths] == sorted((abs(x) for x in lengths), reverse=True)
    best = int(explanation.shapley[0].abs().argmax())
    assert axes.get_yticklabels()[0].get_text() == f"player {best}"
    (errors,) = axes.collections
    ends = errors.get_segments()[0][:, 0]
    assert np.ptp(ends) == pytest.approx(0.4)
    assert "one standard error" in axes.get_xlabel()
    explanation.shapley_stderr *= 0
    (axes,) = Plots(explanation).heatmap().axes
    assert "error" not in axes.get_xlabel()


def test_what_bars_leave_out_is_said():
    explanation = CASES["64 long names"]()
    (axes,) = Plots(explanation).heatmap().axes
    values = explanation.shapley[0]
    left = values[values.abs().argsort(descending=True)[30:]].sum()
    assert f"34 others: {left:+.3g}".replace("-", "−") in axes.get_xlabel()


@pytest.mark.parametrize("case", ["digits", "segments", "features"])
def test_lines_are_as_wide_as_pairs_are_strong(case):
    explanation = CASES[case]()
    figure = Plots(explanation).pairs(0, 5)
    found = lines(figure)
    table = explanation.pairs[0]
    first, second = torch.triu_indices(*table.shape, 1)
    strongest = table[first, second].abs().argsort(descending=True)[:5]
    expected = {(int(first[k]), int(second[k])) for k in strongest}
    assert found.keys() == expected
    top = max(abs(float(table[pair])) for pair in expected)
    for pair, line in found.items():
        value = float(table[pair])
        assert line.get_linewidth() == pytest.approx(6 * abs(value) / top)
        positive = np.allclose(line.get_edgecolor()[:3], it_rgb(POSITIVE))
        assert positive == (value > 0)
        assert positive or np.allclose(line.get_edgecolor()[:3], it_rgb(NEGATIVE))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"|I| = {top:.3g}" in " ".join(labels)


def it_rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))


def test_lines_join_the_middles_of_cells():
    cells = segments()
    figure = Plots(drawn(16, colour(224), cells)).pairs(0, 3)
    for pair, line in lines(figure).items():
        ends = line.get_path().vertices[[0, -1]]
        for player, (x, y) in zip(pair, ends, strict=True):
            assert cells[round(y), round(x)] == player


def test_a_middle_lies_in_its_own_cell():
    ring = torch.ones(9, 9, dtype=torch.int64)
    ring[3:6, 3:6] = 0
    inner, outer, none = centroids(ring, 3)
    assert inner.tolist() == [4, 4]
    assert ring[int(outer[1]), int(outer[0])] == 1
    assert np.isnan(none).all()


def test_matrix_is_signed_symmetric_and_named(explained):
    figure = Plots(explained).matrix(2)
    (image,) = figure.axes[0].images
    table = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    expected = explained.pairs[2].double().clone().fill_diagonal_(torch.nan)
    np.testing.assert_array_equal(table, expected.numpy())
    low, high = image.get_clim()
    assert -low == high == float(explained.pairs[2].abs().max())
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(explained.names)
    assert not explained.pairs[2].isnan().any()  # the explanation's own numbers stay


def test_spectrum_has_the_explanations_values_and_bands(explained):
    (axes,) = Plots(explained).spectrum().axes
    (line,) = axes.lines
    found = explained.spectrum()
    assert list(line.get_xdata()) == list(found["orders"]) == list(range(8))
    np.testing.assert_allclose(line.get_ydata(), found["value"])
    band = axes.collections[0].get_paths()[0].vertices
    middle, error = float(found["value"][3]), float(found["stderr"][3])
    at = sorted(set(band[band[:, 0] == 3][:, 1].round(9)))
    assert at == pytest.approx([middle - error, middle + error], abs=1e-6)
    assert "standard error" in axes.get_xlabel()
    (axes,) = Plots(CASES["segments"]()).spectrum().axes
    assert "standard error" not in axes.get_xlabel()


def test_nodes_are_as_large_as_values(explained):
    figure = Plots(explained).network(1)
    nodes = figure.axes[0].collections[0]
    values = explained.shapley[1].double().numpy()
    areas = nodes.get_sizes()
    np.testing.assert_allclose(areas / areas.max(), abs(values) / abs(values).max(), rtol=1e-6)
    colours = nodes.get_facecolors()[:, :3]
    expected = [it_rgb(POSITIVE if value > 0 else NEGATIVE) for value in values]
    np.testing.assert_allclose(colours, expected)
    assert len(lines(figure)) == 36
    assert len(lines(Plots(CASES["64 long names"]()).network())) == 40


def test_nothing_to_draw():
    explanation = CASES["features"]()
    explanation.pairs.zero_()
    explanation.shapley.zero_()
    for kind in KINDS:
        check(getattr(Plots(explanation), kind)())


def test_grey_images_are_scaled_where_they_must():
    assert grey_image(torch.full((3, 2, 2), 0.25)).tolist() == [[0.25] * 2] * 2
    scaled = grey_image(torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]]))
    assert scaled.tolist() == [[0, 0.5], [0.75, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_count_from_the_end(explained, kind, tmp_path):
    last = [svg(getattr(Plots(explained), kind)(sample), tmp_path) for sample in (3, -1)]
    assert last[0] == last[1]


def test_standard_errors_are_told_where_there_are_any(explained):
    plots = Plots(drawn(4, colour(8), it.GridPlayers(2, 2).cells((8, 8))))
    assert "errors up to 0.2\n" in plots.heatmap().get_suptitle()
    assert "errors up to 0.1\n" in plots.pairs().get_suptitle()
    assert "errors up to 0.1\n" in plots.matrix().get_suptitle()
    assert "error" not in Plots(explained).matrix().get_suptitle()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_that_are_not_there(explained, kind):
    for sample in (-5, 4):
        with pytest.raises(
            InputError, match=f"sample: got {sample}, expected one of the 4 samples"
        ):
            getattr(Plots(explained), kind)(sample)
    with pytest.raises(InputError, match="count: got 0"):
        Plots(explained).pairs(0, 0)


ODD = ("$", "cost in $", "$x$ & <y>", 'a "q" \\n', "a\nb", "$$", "a_b^c", "%")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["heatmap", "pairs", "matrix", "network", "spectrum", "graph"])
def test_names_are_no_formulas(kind, tmp_path):
    """Dollars, backslashes and line breaks in the names of players, network and classes."""
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(8, 2, generator=random)
    explanation = it.explain(
        lambda x: x.prod(1, keepdim=True) + x.cumsum(1).tanh() @ weights,
        torch.rand(1, 8, generator=random),
        players=it.FeaturePlayers(names=ODD),
        baseline=0.0,
        network="$net$",
        classes=["$0", "{$1"],
    )
    text = ElementTree.fromstring(svg(getattr(explanation.plot, kind)(), tmp_path))
    shown = "".join(text.itertext())
    assert "$net$" in shown
    if kind != "spectrum":
        assert "cost in $" in shown
        assert "a b" in shown


@pytest.mark.parametrize(("scale", "told"), [(1e-9, "e−"), (1e9, "e+"), (1.0, "."), (0.0, "+0.0")])
def test_values_of_any_size_fit_into_their_cells(scale, told):
    explanation = drawn(16, colour(32), it.GridPlayers(4, 4).cells((3, 32, 32)))
    explanation.shapley *= scale
    figure = Plots(explanation).heatmap()
    check(figure)
    texts = figure.axes[1].texts
    assert len(texts) == 16
    assert all(told in text.get_text() for text in texts)
    assert overlapping(boxes(texts)) == 0


@pytest.mark.parametrize("height", [16, 64, 256])
@pytest.mark.parametrize("kind", ["heatmap", "pairs", "network"])
def test_figures_have_the_proportions_of_the_image(kind, height):
    image = torch.rand(3, height, 64, generator=torch.Generator().manual_seed(0))
    cells = it.GridPlayers(3, 3).cells(image.shape)
    figure = getattr(Plots(drawn(9, image, cells)), kind)()
    check(figure)
    assert figure.get_figheight() < 10
    shown = [axes.get_window_extent().height for axes in figure.axes if axes.images]
    assert max(shown) > 0.25 * figure.bbox.height


def test_notes_of_bars_stay_on_the_page():
    explanation = drawn(
        64, torch.zeros(64), None, tuple(f"a long column name {k}" for k in range(64))
    )
    explanation.payoff = "log_odds"
    check(Plots(explanation).heatmap())


@pytest.mark.parametrize("kind", ["in range", "normalised", "bytes", "two channels", "no channels"])
def test_the_graph_shows_inputs_as_the_heat_map_does(kind):
    """Images outside of [0, 1] are scaled to it, not cut off."""
    image = colour(6)
    x = {
        "in range": image,
        "normalised": 4 * image - 2,
        "bytes": (255 * image).byte(),
        "two channels": image[:2],
        "no channels": image[0],
    }[kind]
    explanation = it.explain(
        lambda x: torch.stack([x.float().flatten(1).std(1), x.float().flatten(1)[:, 0]], 1),
        x[None],
        players="grid:2x2" if x.dim() == 3 else it.SegmentPlayers(torch.arange(36).view(6, 6) // 9),
        baseline=0,
    )
    heat = explanation.plot.heatmap().axes[0].images[0].get_array()
    heat = np.broadcast_to(heat if heat.ndim == 3 else heat[..., None], (6, 6, 3))
    cells = explanation.cells(0).numpy()
    graph = explanation.graph()
    players = graph.layer("player")
    thumbnails = explanation.plot.graph().axes[0].images[: len(players)]
    for node, thumbnail in zip(players, thumbnails, strict=True):
        own = np.isin(cells, node.players)
        assert np.allclose(thumbnail.get_array()[own], heat[own], atol=1e-6)


def test_the_graph_of_a_constant_network():
    explanation = it.explain(
        lambda x: torch.zeros(len(x), 2), torch.rand(1, 3), 0, "features", baseline=0.0
    )
    figure = explanation.plot.graph(noise=0)
    check(figure)
    shown = figure.axes[0].title, figure.axes[0]._left_title
    assert all(box.x1 <= figure.bbox.x1 for box in boxes(list(shown)))
    title = " ".join(figure.axes[0].get_title(loc="left").split())
    assert title.endswith("0 concepts of 3 players")
