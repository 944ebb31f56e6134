"""Which pairs: every pair equally likely, none twice, none that is no neighbour."""

import itertools

import pytest
import torch

from interaction_train.draws import Draws, content_hash
from interaction_train.errors import InputError
from interaction_train.pairs import AllPairs, GivenPairs, NeighbourPairs, RandomPairs
from interaction_train.players import GridPlayers, UnitPlayers


def draws(samples=1, seed=0):
    return Draws(content_hash(torch.arange(samples)[:, None]), seed, "test")


def keys(blocks):
    pairs = blocks.pairs.sort(-1).values
    return pairs[..., 0] * 10_000 + pairs[..., 1]


def test_random_pairs_are_distinct_and_equally_likely():
    blocks = RandomPairs(2, 4).blocks(GridPlayers(3, 4), (1, 6, 8), draws(4000))
    assert blocks.members.shape == (4000, 2, 4)
    assert (blocks.members.flatten(1).sort(-1).values.diff(dim=-1) > 0).all()
    assert blocks.complete
    torch.testing.assert_close(blocks.weights.sum(-1), torch.ones(4000, dtype=torch.float64))
    _, counts = keys(blocks).unique(return_counts=True)
    expected = 4000 * 12 / 66
    assert len(counts) == 66
    assert ((counts - expected) / expected**0.5).square().mean() < 1.6


def test_few_players_give_what_they_have():
    blocks = RandomPairs(4, 16).blocks(UnitPlayers(), (5,), draws(2))
    assert blocks.members.shape == (2, 1, 5)
    assert len(blocks.edges) == 10
    blocks = RandomPairs(4, 4).blocks(UnitPlayers(), (9,), draws(2))
    assert blocks.members.shape == (2, 2, 4)


def test_all_pairs():
    blocks = AllPairs().blocks(UnitPlayers(), (5,), draws(2))
    assert blocks.pairs[1].tolist() == [list(pair) for pair in itertools.combinations(range(5), 2)]


def test_given_pairs_keep_their_order():
    given = [(7, 2), (0, 7), (4, 5)]
    blocks = GivenPairs(given).blocks(UnitPlayers(), (8,), draws(3))
    assert blocks.pairs[2].tolist() == [list(pair) for pair in given]
    assert blocks.members.shape == (3, 1, 5)
    assert not blocks.complete


@pytest.mark.parametrize(("side", "patches"), [(None, 1), (3, 2), (4, 1)])
def test_every_pair_of_neighbours_weighs_the_same(side, patches):
    """Also at the border, and whatever its offset."""
    rows, cols, radius, samples = 8, 7, 2, 20_000
    choice = NeighbourPairs(radius, patches, side)
    blocks = choice.blocks(GridPlayers(rows, cols), (1, 16, 14), draws(samples))
    weight = torch.zeros(10_000 * rows * cols, dtype=torch.float64)
    weight.index_add_(0, keys(blocks).flatten(), blocks.weights.flatten())
    wanted = [
        i * 10_000 + j
        for i, j in itertools.combinations(range(rows * cols), 2)
        if abs(i // cols - j // cols) <= radius and abs(i % cols - j % cols) <= radius
    ]
    inside = weight[wanted]
    assert weight.sum() == pytest.approx(float(inside.sum()))  # no other pair weighs anything
    assert float(inside.sum()) / samples == pytest.approx(1, abs=0.01)
    # Counts of hits are Poisson-like: the spread must be that of chance.
    unit = float(blocks.weights.max())
    counts = inside / unit
    assert float(((counts - counts.mean()).square() / counts.mean()).mean()) < 1.4


def test_small_grids_are_taken_whole():
    blocks = NeighbourPairs(2).blocks(GridPlayers(4, 4), (1, 8, 8), draws(2))
    assert blocks.members.shape == (2, 1, 16)
    assert len(blocks.edges) == 90


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GivenPairs([(1, 2), (2, 1)]), r"pairs: got the pair \(1, 2\) twice"),
        (lambda: GivenPairs([(3, 3)]), r"pairs: got \(3, 3\), expected two different"),
        (lambda: GivenPairs([]), "pairs: got none"),
        (lambda: RandomPairs(0), "blocks: got 0"),
        (lambda: RandomPairs(1, 1), "size: got 1"),
        (lambda: NeighbourPairs(0), "radius: got 0"),
        (lambda: NeighbourPairs(2, side=2), "side: got 2"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("choice", "players", "shape", "message"),
    [
        (GivenPairs([(0, 9)]), UnitPlayers(), (8,), "pairs: got player 9"),
        (NeighbourPairs(), UnitPlayers(), (8,), "players: got UnitPlayers.*expected GridPlayers"),
        (AllPairs(), UnitPlayers(), (1,), "players: got 1 player, expected at least 2"),
    ],
)
def test_players_that_do_not_fit(choice, players, shape, message):
    with pytest.raises(InputError, match=message):
        choice.blocks(players, shape, draws())
