"""Which pairs: every pair equally likely, none twice, none that is no neighbour."""

import itertools

import pytest
import torch

from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.sampling.pairs import AllPairs, GivenPairs, NeighbourPairs, RandomPairs
from interaction_train.sampling.random import Draws, content_hash


def draws(samples=1, seed=0):
    return Draws(content_hash(torch.arange(samples)[:, None]), seed, "test")


def keys(blocks):
    pairs = blocks.pairs.sort(-1).values
    return pairs[..., 0] * 10_000 + pairs[..., 1]


def test_random_pairs_are_distinct_and_equally_likely():
    blocks = RandomPairs(2, 4).blocks(GridPlayers(3, 4), (1, 6, 8), draws(4000))
    assert blocks.members.shape == (4000, 2, 4)
    assert (blocks.members.flatten(1).sort(-1).values.diff(dim=-1) > 0).all()
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
    assert blocks.members.shape == (3, 3, 2)  # each alone: contexts are drawn per sample


def neighbours(rows, cols, radius):
    return [
        i * 10_000 + j
        for i, j in itertools.combinations(range(rows * cols), 2)
        if abs(i // cols - j // cols) <= radius and abs(i % cols - j % cols) <= radius
    ]


@pytest.mark.parametrize("number", [1, 7, 16])
def test_neighbours_are_distinct_and_equally_likely(number):
    """Also at the border, and whatever their offset."""
    rows, cols, radius, samples = 8, 7, 2, 20_000
    choice = NeighbourPairs(radius, number)
    blocks = choice.blocks(GridPlayers(rows, cols), (1, 16, 14), draws(samples))
    assert blocks.pairs.shape == (samples, number, 2)
    found = keys(blocks)
    assert (found.sort(-1).values.diff(dim=-1) > 0).all()
    pairs, counts = found.unique(return_counts=True)
    assert pairs.tolist() == neighbours(rows, cols, radius)
    # Counts are Poisson-like or, of a systematic sample, steadier.
    assert float(((counts - counts.double().mean()).square() / counts.double().mean()).mean()) < 1.3


def test_neighbours_are_spread_over_the_grid():
    blocks = NeighbourPairs(2, 16).blocks(GridPlayers(16, 16), (3, 32, 32), draws(500))
    middle = blocks.pairs.double()
    row, col = (middle // 16).mean(-1), (middle % 16).mean(-1)
    tile = (row // 4) * 4 + col // 4
    filled = torch.stack([(tile == k).any(-1) for k in range(16)]).double().mean()
    chance = 1 - (1 - 1 / 16) ** 16  # of 16 pairs anywhere: .64
    assert float(filled) > chance + 0.2


@pytest.mark.parametrize("number", [None, 1000])
def test_all_neighbours_each_as_a_block_of_its_own(number):
    blocks = NeighbourPairs(2, number).blocks(GridPlayers(4, 4), (1, 8, 8), draws(2))
    assert blocks.members.shape == (2, len(neighbours(4, 4, 2)), 2)
    assert keys(blocks)[1].tolist() == neighbours(4, 4, 2)


@pytest.mark.parametrize("number", [3, 50])
def test_at_the_end_orders_a_third_of_the_neighbours_or_more_are_all(number):
    choice = NeighbourPairs(2, number).at_ends(10)
    blocks = choice.blocks(GridPlayers(4, 4), (1, 8, 8), draws(2))
    assert blocks.members.shape == (2, 1, 16)
    assert keys(blocks)[1].tolist() == neighbours(4, 4, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GivenPairs([(1, 2), (2, 1)]), r"pairs: got the pair \(1, 2\) twice"),
        (lambda: GivenPairs([(3, 3)]), r"pairs: got \(3, 3\), expected two different"),
        (lambda: GivenPairs([]), "pairs: got none"),
        (lambda: RandomPairs(0), "blocks: got 0"),
        (lambda: RandomPairs(1, 1), "size: got 1"),
        (lambda: NeighbourPairs(0), "radius: got 0"),
        (lambda: NeighbourPairs(2, 0), "number: got 0"),
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
