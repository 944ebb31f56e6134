"""Segments of label maps as players: one map for all samples, or one for each."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers
from interaction_train.game.segments import SegmentPlayers
from interaction_train.indices import exact_values, shapley_interactions, shapley_values
from interaction_train.indices.exact import all_coalitions

SHAPE = (2, 4, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=3):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(seed), dtype=p.dtype))
    return model


def images(batch, seed=1):
    return torch.rand(batch, *SHAPE, generator=generator(seed), dtype=torch.float64)


def random_maps(batch, seed=2):
    """Labels out of -40, 3, 7, 100, 2000, of which some samples have fewer than others."""
    choice = torch.tensor([-40, 3, 7, 100, 2000])
    most = torch.arange(batch)[:, None, None] % 4 + 2
    return choice[torch.randint(0, 10**6, (batch, *SHAPE[1:]), generator=generator(seed)) % most]


def slow_mask(labels, coalition):
    """Pixel by pixel: which pixels of a map are present."""
    order = sorted(set(labels.flatten().tolist()))
    return [[coalition[order.index(label)] for label in row] for row in labels.tolist()]


class TestOneMap:
    labels = torch.tensor([[9, 9, 9, -2, -2], [9, 9, 9, -2, -2], [0, 0, 5, 5, 5], [0, 0, 5, 5, 5]])

    def test_players_are_ranked_labels(self):
        players = SegmentPlayers(self.labels)
        assert players.count(SHAPE) == 4
        assert players.names(SHAPE) == ("segment -2", "segment 0", "segment 5", "segment 9")
        expected = [[3, 3, 3, 0, 0], [3, 3, 3, 0, 0], [1, 1, 2, 2, 2], [1, 1, 2, 2, 2]]
        assert players.cells(SHAPE).tolist() == expected

    def test_masks_are_those_of_single_pixels(self):
        players = SegmentPlayers(self.labels)
        every = all_coalitions(4)
        masks = players.mask(every, SHAPE)
        assert masks.shape == (16, 1, 4, 5)
        for mask, coalition in zip(masks, every.tolist(), strict=True):
            assert mask[0].tolist() == slow_mask(self.labels, coalition)

    def test_a_grid_is_a_label_map(self):
        grid = GridPlayers(2, 3)
        segments = SegmentPlayers(grid.cells(SHAPE))
        coalitions = torch.rand(3, 7, 6, generator=generator()) < 0.5
        assert torch.equal(segments.mask(coalitions, SHAPE), grid.mask(coalitions, SHAPE))

    def test_masks_and_arrays(self):
        inside = torch.zeros(4, 5, dtype=torch.bool)
        inside[1:3, 1:4] = True
        players = SegmentPlayers(inside.numpy())
        assert players.names(SHAPE) == ("segment 0", "segment 1")
        assert torch.equal(players.mask(torch.tensor([False, True]), SHAPE)[0], inside)


class TestMapPerSample:
    @pytest.mark.parametrize("chunk_size", [1, 3, 16, 40, 1000])
    def test_values_are_those_of_single_samples(self, chunk_size):
        """Chunks that hold a part of a sample, a whole one, and several."""
        maps, x, model = random_maps(6), images(6), network()
        labels = torch.arange(6) % 3
        game = MaskedGame(
            model, x, 0.3, SegmentPlayers(maps), "log_odds", labels, chunk_size=chunk_size
        )
        values = exact_values(game)
        assert values.shape == (6, 2**5)
        for b in range(6):
            alone = SegmentPlayers(maps[b])
            n = alone.count(SHAPE)
            single = MaskedGame(model, x[b : b + 1], 0.3, alone, "log_odds", labels[b : b + 1])
            torch.testing.assert_close(
                values[b, : 2**n], exact_values(single)[0], rtol=0, atol=1e-12
            )

    def test_gradients_through_checkpointed_chunks(self):
        maps, model = random_maps(4), network()
        coalitions = torch.rand(4, 6, 5, generator=generator()) < 0.5
        found = []
        for chunk_size in (None, 4, 12):
            x = images(4).requires_grad_()
            y = torch.zeros(4, dtype=torch.int64)
            game = MaskedGame(
                model, x, 0.3, SegmentPlayers(maps), "logit", y, chunk_size=chunk_size
            )
            game(coalitions, grad=True).square().sum().backward()
            found.append(x.grad)
        torch.testing.assert_close(found[1], found[0])
        torch.testing.assert_close(found[2], found[0])

    def test_missing_players_are_dummies(self):
        maps = random_maps(4)
        counts = [len(m.unique()) for m in maps]
        assert counts == [2, 3, 4, 5]
        y = torch.zeros(4, dtype=torch.int64)
        v = exact_values(MaskedGame(network(), images(4), 0.3, SegmentPlayers(maps), "logit", y))
        values, pairs = shapley_values(v), shapley_interactions(v)
        for b, n in enumerate(counts):
            assert values[b, :n].abs().min() > 1e-6
            assert values[b, n:].abs().sum() < 1e-9
            assert pairs[b, n:].abs().sum() < 1e-9

    def test_cells_and_names(self):
        players = SegmentPlayers(random_maps(4))
        cells = players.cells(SHAPE)
        assert cells.shape == (4, 4, 5)
        assert [int(c.max()) for c in cells] == [1, 2, 3, 4]
        part = players.part(slice(2, 4))
        assert part.samples == 2
        assert torch.equal(part.cells(SHAPE), cells[2:])
        assert part.count(SHAPE) == 5
        assert players.names(SHAPE)[4] == "segment 4"

    def test_chosen_samples(self):
        """Samples by their number, some of them twice."""
        maps = torch.arange(3 * 4 * 5).view(3, 4, 5) % 7 % 3
        chosen = torch.tensor([2, 0, 2])
        coalitions = torch.rand(3, 6, 3) < 0.5
        got = SegmentPlayers(maps).part(chosen).mask(coalitions, (2, 4, 5))
        expected = SegmentPlayers(maps[chosen]).mask(coalitions, (2, 4, 5))
        assert torch.equal(got, expected)


class TestLosses:
    """Terms on training batches take one map, or a map for each sample of a whole batch."""

    def loss(self, players, **settings):
        term = it.InteractionLoss(players=players, baseline=0.3, **settings)
        return term(network(), images(4), torch.zeros(4, dtype=torch.int64), step=0)

    def test_maps_that_are_all_the_same(self):
        labels = random_maps(4)[3]
        assert len(labels.unique()) == 5
        one = self.loss(SegmentPlayers(labels), batch_fraction=1.0)
        each = self.loss(SegmentPlayers(labels.expand(4, -1, -1)), batch_fraction=1.0)
        torch.testing.assert_close(each, one)
        assert float(one.detach()) != 0

    def test_a_part_of_the_batch(self):
        with pytest.raises(InputError, match="players of 4 samples"):
            self.loss(SegmentPlayers(random_maps(4)), batch_fraction=0.5)


class TestBadInput:
    def test_labels(self):
        for bad in (torch.rand(4, 5), torch.zeros(5, dtype=torch.int64), torch.zeros(1, 0)):
            with pytest.raises(InputError, match="labels: got"):
                SegmentPlayers(bad)

    def test_samples_of_another_size(self):
        with pytest.raises(InputError, match=r"players: got a sample of shape \(2, 5, 4\)"):
            SegmentPlayers(torch.zeros(4, 5, dtype=torch.int64)).count((2, 5, 4))

    def test_batches_of_another_size(self):
        players = SegmentPlayers(random_maps(3))
        with pytest.raises(InputError, match=r"players of 3 samples.*the batch has, 2"):
            MaskedGame(network(), images(2), 0.3, players, "all")
        with pytest.raises(InputError, match="players of 3 samples"):
            players.mask(torch.zeros(2, 4, players.count(SHAPE), dtype=torch.bool), SHAPE)
        with pytest.raises(InputError, match="players of 3 samples"):
            players.mask(torch.zeros(4, players.count(SHAPE), dtype=torch.bool), SHAPE)
