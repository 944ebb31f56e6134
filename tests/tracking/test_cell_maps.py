"""The figure of numbers of cells, and that of interaction maps."""

import numpy as np
import pytest
import torch

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.indices.map_figure import interaction_maps_figure
from interaction_train.indices.maps import InteractionMaps
from interaction_train.tracking.cell_maps import cell_maps_figure

CELLS = it.GridPlayers(2, 2).cells((1, 6, 6))
GIVEN = {
    "deeplift_reveal_cancel": torch.tensor([[1.0, -2.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]),
    "shapley": torch.tensor([[10.0, 20.0, 30.0, -40.0], [1.0, 1.0, 1.0, 1.0]]),
}


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_shows_what_its_cell_is_given(channels):
    images = torch.rand(2, channels, 6, 6)
    figure = cell_maps_figure(images, CELLS, GIVEN, ["class 3", "class 5"], "title")
    panels = np.array(figure.axes).reshape(2, 3)
    for b, line in enumerate(panels):
        shown = line[0].images[0].get_array()
        np.testing.assert_allclose(np.squeeze(shown), images[b].movedim(0, -1).squeeze(-1))
        assert line[0].get_title() == ("class 3", "class 5")[b]
        for axes, values in zip(line[1:], GIVEN.values(), strict=True):
            pixels = axes.images[0]
            np.testing.assert_allclose(pixels.get_array(), values[b][CELLS])
            assert pixels.get_clim()[1] == (float(values[b].abs().max()) or 1)
            assert sum(pixels.get_clim()) == 0  # 0 is neutral
    assert panels[0, 1].get_title() == "deeplift\nreveal cancel\n±2"
    assert panels[1, 2].get_title() == "±1"
    assert figure.get_suptitle() == "title"


@pytest.mark.parametrize("shape", [(2, 2, 6, 6), (2, 36)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="images: got shape"):
        cell_maps_figure(torch.rand(shape), CELLS, GIVEN, ["a", "b"], "title")


def test_rows_and_maps_that_are_not_theirs_are_refused():
    images = torch.rand(2, 1, *CELLS.shape)
    with pytest.raises(InputError, match="rows: got 1 texts, expected one for each of 2 images"):
        cell_maps_figure(images, CELLS, GIVEN, ["a"], "title")
    n = int(CELLS.max()) + 1
    for shape in [(1, n), (2, n - 1)]:
        with pytest.raises(InputError, match="maps: got 'map'"):
            cell_maps_figure(images, CELLS, {"map": torch.rand(shape)}, ["a", "b"], "title")


def test_interaction_maps_start_at_0_and_say_how_they_came():
    values = torch.rand(2, 2, 4) + 0.1
    values[1, 1, 0] = torch.nan
    maps = InteractionMaps((0, 2), values, values, (True, False), 3)
    figure = interaction_maps_figure(torch.rand(2, 1, 6, 6), CELLS, maps, ["a", "b"], "maps")
    panels = np.array(figure.axes).reshape(2, 3)
    assert panels[0, 2].get_title().replace("\n", " ").startswith("order 2 of 2, plug-in 0 to ")
    assert "exact" in panels[0, 1].get_title()
    for b in range(2):
        for k in range(2):
            pixels = panels[b, 1 + k].images[0]
            np.testing.assert_allclose(pixels.get_array().filled(np.nan), values[b, k][CELLS])
            assert pixels.get_clim() == (0, pytest.approx(float(values[b, k].nan_to_num().max())))
