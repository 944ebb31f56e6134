"""Every element of a sample belongs to exactly one player."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers, UnitPlayers

some = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def grids(draw):
    height, width = draw(st.integers(1, 23)), draw(st.integers(1, 23))
    return height, width, draw(st.integers(1, height)), draw(st.integers(1, width))


def coalitions_of(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


class TestGridPlayers:
    def test_divisible_size(self):
        expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
        assert GridPlayers(2, 2).cells((3, 4, 4)).tolist() == expected

    def test_size_that_does_not_divide(self):
        # floor(y * 2 / 5) = 0 0 0 1 1, floor(x * 3 / 4) = 0 0 1 2.
        top, bottom = [0, 0, 1, 2], [3, 3, 4, 5]
        assert GridPlayers(2, 3).cells((5, 4)).tolist() == [top, top, top, bottom, bottom]

    @some
    @given(grids())
    def test_cells_partition_the_pixels(self, grid):
        height, width, rows, cols = grid
        players = GridPlayers(rows, cols)
        n = players.count((height, width))
        assert n == rows * cols
        cells = players.cells((height, width))
        assert cells.shape == (height, width)
        counts = cells.flatten().bincount(minlength=n)
        assert len(counts) == n
        # Cells are rectangles whose sides are one of the two nearest integers.
        least = (height // rows) * (width // cols)
        most = -(-height // rows) * -(-width // cols)
        assert least >= 1
        assert least <= int(counts.min())
        assert int(counts.max()) <= most
        for r, c in itertools.product(range(rows), range(cols)):
            y, x = (cells == r * cols + c).nonzero(as_tuple=True)
            area = int((y.max() - y.min() + 1) * (x.max() - x.min() + 1))
            assert area == len(y) == int(counts[r * cols + c])

    @some
    @given(grids())
    def test_singletons_cover_every_pixel_once(self, grid):
        height, width, rows, cols = grid
        singletons = torch.eye(rows * cols, dtype=torch.bool)
        masks = GridPlayers(rows, cols).mask(singletons, (1, height, width))
        assert masks.shape == (rows * cols, 1, height, width)
        assert (masks.sum(0) == 1).all()
        assert masks.flatten(1).any(1).all()

    @some
    @given(grids(), st.integers(0, 2**16))
    def test_mask_against_a_slow_loop(self, grid, seed):
        height, width, rows, cols = grid
        coalitions = coalitions_of(2, 3, rows * cols, seed=seed)
        masks = GridPlayers(rows, cols).mask(coalitions, (4, height, width))
        assert masks.dtype == torch.bool
        assert masks.shape == (2, 3, 1, height, width)
        for y, x in itertools.product(range(height), range(width)):
            player = int(y * rows / height + 1e-9) * cols + int(x * cols / width + 1e-9)
            assert torch.equal(masks[:, :, 0, y, x], coalitions[:, :, player])

    @pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5), (2, 3, 6, 5)])
    def test_leading_axes_of_a_sample_share_cells(self, shape):
        coalitions = coalitions_of(7, 4)
        masks = GridPlayers(2, 2).mask(coalitions, shape)
        assert masks.shape == (7, *(1 for _ in shape[:-2]), 6, 5)
        full = masks.expand(7, *shape).reshape(7, -1, 6, 5)
        plain = GridPlayers(2, 2).mask(coalitions, (6, 5))
        assert torch.equal(full, plain.unsqueeze(1).expand_as(full))

    def test_one_cell(self):
        masks = GridPlayers(1, 1).mask(torch.tensor([[True], [False]]), (3, 4, 4))
        assert masks[0].all()
        assert not masks[1].any()

    @pytest.mark.parametrize(("rows", "cols", "name"), [(0, 3, "rows"), (3, -1, "cols")])
    def test_refuses_no_cells(self, rows, cols, name):
        with pytest.raises(InputError, match=rf"{name}: got .*, expected at least 1"):
            GridPlayers(rows, cols)

    @pytest.mark.parametrize(("rows", "cols"), [(5, 1), (1, 7)])
    def test_refuses_more_cells_than_pixels(self, rows, cols):
        players = GridPlayers(rows, cols)
        expected = f"grid of {rows} x {cols} cells, expected no more cells than the 4 x 6 pixels"
        with pytest.raises(InputError, match=expected):
            players.count((3, 4, 6))
        with pytest.raises(InputError, match=expected):
            players.mask(torch.ones(1, rows * cols, dtype=torch.bool), (3, 4, 6))

    @pytest.mark.parametrize("shape", [(), (8,)])
    def test_refuses_samples_without_two_axes(self, shape):
        with pytest.raises(InputError, match="height, width"):
            GridPlayers(1, 1).count(shape)

    def test_repr_names_the_grid(self):
        assert repr(GridPlayers(3, 4)) == "GridPlayers(3, 4)"


class TestUnitPlayers:
    def test_elements(self):
        shape, players = (2, 3, 4), UnitPlayers()
        assert players.count(shape) == 24
        coalitions = coalitions_of(5, 24)
        masks = players.mask(coalitions, shape)
        assert masks.shape == (5, *shape)
        for player, place in enumerate(itertools.product(*map(range, shape))):
            assert torch.equal(masks[(slice(None), *place)], coalitions[:, player])

    def test_channels(self):
        shape, players = (4, 2, 3), UnitPlayers("channel")
        assert players.count(shape) == 4
        coalitions = coalitions_of(5, 6, 4)
        masks = players.mask(coalitions, shape)
        assert masks.shape == (5, 6, 4, 1, 1)
        for channel in range(4):
            assert torch.equal(masks[:, :, channel, 0, 0], coalitions[..., channel])

    @pytest.mark.parametrize("unit", ["element", "channel"])
    def test_flat_features(self, unit):
        players, coalitions = UnitPlayers(unit), coalitions_of(3, 7)
        assert players.count((7,)) == 7
        assert torch.equal(players.mask(coalitions, (7,)), coalitions)

    def test_refuses_unit(self):
        with pytest.raises(InputError, match="unit: got 'neuron'"):
            UnitPlayers("neuron")

    @pytest.mark.parametrize("unit", ["element", "channel"])
    def test_refuses_scalars(self, unit):
        with pytest.raises(InputError, match="at least one axis"):
            UnitPlayers(unit).count(())

    def test_repr_names_the_unit(self):
        assert repr(UnitPlayers("channel")) == "UnitPlayers('channel')"
