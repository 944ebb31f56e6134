import subprocess
import sys
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from interaction_train.errors import InputError
from interaction_train.losses.order_weights import order_weights, order_weights_figure
from interaction_train.tracking.figures import (
    heat_map_figure,
    legend_below,
    new_figure,
    pixel_step,
    save_figure,
    show_epsilons,
    show_image,
    spectrum_figure,
)
from interaction_train.tracking.style import COLOURS, NEGATIVE, POSITIVE, SIGNED, styled
from tests.tracking.looks import check, svg

# Machado et al. 2009, severity 1, on linear RGB; and Ottosson's OKLab.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def linear(colour) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    return TO_LAB @ np.cbrt(TO_CONES @ np.clip(light, 0, 1))


def seen_apart(first, second) -> float:
    """The least distance of two colours in OKLab over the kinds of colour blindness."""
    return min(
        float(np.linalg.norm(lab(np.array(m) @ linear(first)) - lab(np.array(m) @ linear(second))))
        for m in BLINDNESS.values()
    )


def pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def spectrum() -> Figure:
    value = [1.5, 1.0, 0.9, 1.1, 1.6]
    curve = {"orders": range(5), "value": value, "stderr": [0.1] * 5}
    names = ("clean, plug-in", "adversarial, plug-in", "floor of plug-in, 1/√contexts")
    return spectrum_figure(dict.fromkeys(names, curve), "Interactions, 4 × 4 grid, 240 samples")


def heat_map(epochs: int = 200) -> Figure:
    ratios = [f"{r:g}" for r in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)]
    values = [[1 + e / epochs] * 7 for e in range(epochs)]
    return heat_map_figure(values, range(0, 5 * epochs, 5), ratios, "J(m)", "J(m) over training")


def weights() -> Figure:
    band, low = order_weights(16, {12: 1.0, 8: -2.0, 4: 1.0}), order_weights(25, {5: 1.0, 0: -1.0})
    return order_weights_figure({"band": band, "low": low})


FIGURES = [spectrum, heat_map, weights]


def test_a_notebook_shows_a_figure_without_pyplot():
    figure, _ = new_figure()
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("make", FIGURES)
def test_ticks_titles_and_legends(make):
    check(make())


@pytest.mark.parametrize("epochs", [1, 2, 13, 1000])
def test_heat_maps_of_any_length(epochs):
    check(heat_map(epochs))


@pytest.mark.parametrize("make", FIGURES)
def test_settings_of_others_neither_change_nor_matter(make, tmp_path):
    before = dict(matplotlib.rcParams)
    usual = svg(make(), tmp_path)
    assert dict(matplotlib.rcParams) == before
    odd = {"font.size": 31, "axes.grid": False, "axes.facecolor": "black", "svg.hashsalt": "x"}
    with matplotlib.rc_context({**odd, "xtick.color": "red", "savefig.dpi": 17}):
        figure = make()
        assert svg(figure, tmp_path) == usual
        shown = pixels(make())  # as a notebook shows it
    np.testing.assert_array_equal(shown, pixels(make()))


def test_pyplot_is_not_loaded():
    code = (
        "import sys, interaction_train.tracking.figures as f, interaction_train.explaining.plots; "
        "f.new_figure(); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_files(tmp_path):
    figure = spectrum()
    paths = save_figure(figure, tmp_path / "new" / "a")
    assert [path.name for path in paths] == ["a.png", "a.svg"]
    assert Image.open(paths[0]).size == (900, 600)
    root = ElementTree.fromstring(paths[1].read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    told = "".join(root.itertext())
    assert "Interactions, 4 × 4 grid, 240 samples" in told  # text is text
    assert "order m (players in the context)" in told
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in save_figure(spectrum(), tmp_path / "b")] == first
    assert save_figure(figure, tmp_path / "a.pdf")[0].read_bytes().startswith(b"%PDF")
    with pytest.raises(InputError, match=r"path: got a\.jpg, expected a name in \.png, \.svg"):
        save_figure(figure, tmp_path / "a.jpg")


def test_colours_are_seen_on_white_and_by_the_colour_blind():
    for colour in (*COLOURS, POSITIVE, NEGATIVE):
        assert 1.05 / (linear(colour) @ LUMINANCE + 0.05) >= 3, colour
    for first, second in [*combinations(COLOURS, 2), (POSITIVE, NEGATIVE)]:
        assert seen_apart(first, second) > 0.07, (first, second)
    with styled():
        cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    looks = [(style["color"], style["linestyle"]) for style in cycle]
    assert looks[:6] == [(colour, "-") for colour in COLOURS]
    assert len(set(looks)) == len(looks) == 24


def test_signed_map_is_symmetric_around_a_neutral_middle():
    middle = np.array(SIGNED(0.5)[:3])
    assert np.ptp(middle) < 0.02
    assert middle.min() > 0.9
    for t in np.linspace(0.05, 0.5, 10):
        below, above = (lab(linear(SIGNED(0.5 + sign * t)[:3])) for sign in (-1, 1))
        assert abs(below[0] - above[0]) < 0.08, t  # as light
        assert below[2] < 0 < above[2]  # blue and orange
        if t > 0.2:
            assert seen_apart(SIGNED(0.5 - t)[:3], SIGNED(0.5 + t)[:3]) > 0.1


@pytest.mark.parametrize(
    ("levels", "labels"),
    [
        ([1, 2, 4, 8, 16], ["0", "4/255", "8/255", "16/255"]),
        ([8], ["0", "8/255"]),
        (list(range(1, 17)), None),
        ([1, 2, 4, 8, 16, 25, 38], None),
        ([0.5, 2.55], ["0", "0.00196", "0.01"]),
    ],
)
@pytest.mark.parametrize("width", [3.0, 6.0])
def test_few_ticks_of_epsilon_as_255ths(levels, labels, width):
    figure, axes = new_figure(width, 3)
    axes.plot([k / 255 for k in levels], levels)
    show_epsilons(axes, [k / 255 for k in levels])
    axes.set_title("a")
    check(figure)
    shown = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels is None or set(shown) == set(labels)
    assert f"{levels[-1]}/255" in shown or labels
    assert len(shown) <= 7


def test_pixel_steps():
    assert [pixel_step(eps) for eps in (8 / 255, 0.1, 2.0)] == ["8/255", "0.1", "510/255"]


def test_legends_of_many_curves_and_of_others_figures():
    figure, axes = new_figure()
    for k in range(14):
        axes.plot([0, 1], [k, k], label=f"a rather long name of curve {k}")
    axes.set_title("a")
    legend_below(axes)
    check(figure)
    other = Figure()
    axes = other.add_subplot()
    axes.plot([0, 1], label="a")
    legend_below(axes)
    assert axes.get_legend() is not None
    assert not other.legends


def test_captions_of_images_are_broken():
    figure, axes = new_figure(1.5, 1.8)
    show_image(axes, np.zeros((4, 4, 1)), "digits_resnet: SIA + masked + MI\nperturbation × 2.1")
    pixels(figure)
    box = axes.title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert axes.get_title().count("\n") > 1
