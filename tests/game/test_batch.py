"""Games of different n in one call, against each alone."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.game.batch import GameBatch
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.game.tokens import TokenPlayers
from interaction_train.indices.exact import all_coalitions, exact_values
from tests.words import MASK, PAD, WordNet, sentences


def games_of(lengths, net=None, batch=1, **settings):
    net = net or WordNet()
    return [
        MaskedGame(
            net, sentences(batch, length, seed=length), MASK, TokenPlayers(), "log_odds",
            torch.arange(batch) % 3, **settings,
        )
        for length in lengths
    ]  # fmt: skip


@pytest.mark.parametrize("pad", [None, PAD])
@pytest.mark.parametrize("chunk_size", [None, 1, 7, 100])
def test_lengths_4_7_10_as_one_by_one(pad, chunk_size):
    games = games_of([4, 10, 7, 4], batch=2)
    values = exact_values(GameBatch(games, pad, chunk_size))
    for game, found in zip(games, values, strict=True):
        assert found.shape == (2, 2**game.n)
        torch.testing.assert_close(found, exact_values(game))


def test_further_inputs_are_filled_up_too():
    net, games = WordNet(), []
    for length in (3, 6):
        shown = torch.ones(2, length, dtype=torch.bool)
        shown[1, -1] = False
        ids = sentences(2, length)
        extra = {"attention_mask": shown}
        games.append(MaskedGame(net, ids, MASK, TokenPlayers(), "all", extra=extra))
    values = exact_values(GameBatch(games, pad=PAD))
    for game, found in zip(games, values, strict=True):
        torch.testing.assert_close(found, exact_values(game))


@pytest.mark.parametrize("lengths", [(3, 3, 5), (5, 3, 3), (3, 5)])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_inputs_of_one_size_are_never_filled_up(lengths, chunk_size):
    class Shifted(WordNet):
        def forward(self, ids, shift):
            return super().forward(ids) + shift

    net = Shifted()  # of three classes: as many as some sentences have words
    games = []
    for k, length in enumerate(lengths):
        extra = {"shift": torch.randn(1, 3, generator=torch.Generator().manual_seed(k)).double()}
        ids = sentences(1, length, seed=k)
        games.append(MaskedGame(net, ids, MASK, TokenPlayers(), "all", extra=extra))
    for game, found in zip(games, exact_values(GameBatch(games, PAD, chunk_size)), strict=True):
        torch.testing.assert_close(found, exact_values(game))


def test_chunk_sizes_of_the_games_do_not_count():
    net, calls = WordNet(), []
    net.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    exact_values(GameBatch(games_of([3, 4], net, chunk_size=1), PAD))
    assert calls == [24]


def test_different_players_payoffs_and_classes():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).double()
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    games = [
        MaskedGame(net, x, 0.2, GridPlayers(2, 2), "logit", torch.tensor([0, 1, 2])),
        MaskedGame(net, x[:1], x[1:2], GridPlayers(1, 3), "all"),
        MaskedGame(net, x[1:], 0.0, it.SegmentPlayers(torch.arange(32).view(2, 4, 4) // 5), "all"),
    ]
    values = exact_values(GameBatch(games))
    for game, found in zip(games, values, strict=True):
        torch.testing.assert_close(found, exact_values(game))


def test_values_in_several_jobs(monkeypatch):
    monkeypatch.setattr("interaction_train.indices.exact.ROWS", 50)
    games = games_of([4, 7, 5, 4], batch=3)
    expected = [game(all_coalitions(game.n)) for game in games]
    for found, right in zip(exact_values(GameBatch(games, PAD)), expected, strict=True):
        torch.testing.assert_close(found, right)
    for game, right in zip(games, expected, strict=True):
        torch.testing.assert_close(exact_values(game), right)


def test_rows_go_through_the_network_once():
    net, calls = WordNet(), []
    net.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    games = games_of([4, 5, 6] * 10, net)
    exact_values(GameBatch(games, PAD, chunk_size=128))
    rows = sum(2**game.n for game in games)
    assert sum(shape[0] for shape in calls) == rows
    assert len(calls) == -(-rows // 128)
    # Sorted by length: a chunk is filled up to the longest of its own.
    assert [shape[1] for shape in calls] == sorted(shape[1] for shape in calls)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_gradients(chunk_size):
    net = WordNet()
    games = games_of([3, 5], net)
    coalitions = [all_coalitions(game.n)[1:6] for game in games]
    found = GameBatch(games, PAD, chunk_size)(coalitions, grad=True)
    sum(part.square().sum() for part in found).backward()
    gradient, net.embedding.weight.grad = net.embedding.weight.grad, None
    alone = [game(masks, grad=True) for game, masks in zip(games, coalitions, strict=True)]
    sum(part.square().sum() for part in alone).backward()
    torch.testing.assert_close(gradient, net.embedding.weight.grad)


def test_no_trace():
    net = WordNet().train()
    GameBatch(games_of([3, 4], net), PAD)([all_coalitions(3), all_coalitions(4)])
    assert net.training
    assert net.embedding.weight.grad is None


def test_bad_input():
    games = games_of([3, 4])
    with pytest.raises(InputError, match="games: got none"):
        GameBatch([])
    with pytest.raises(InputError, match="game 1 of another network"):
        GameBatch([*games[:1], *games_of([4])])
    with pytest.raises(InputError, match="coalitions: got 1 tensors"):
        GameBatch(games)([all_coalitions(3)])
    with pytest.raises(InputError, match=r"coalitions: .*expected bool \(K, 4\)"):
        GameBatch(games)([all_coalitions(3), all_coalitions(3)])
    with pytest.raises(InputError, match="chunk_size"):
        GameBatch(games, chunk_size=0)
    for pad in (0.5, float("nan"), 2**70):
        with pytest.raises(InputError, match=r"pad: .* token's id, as the samples are torch.int64"):
            GameBatch(games, pad)
    net = nn.Flatten()
    images = [MaskedGame(net, torch.rand(1, 2, k), 0.0, UnitPlayers(), "all") for k in (2, 3)]
    with pytest.raises(InputError, match="differ in their first axis"):
        GameBatch(images, pad=0)
    with pytest.raises(InputError, match="24 players"):
        exact_values(GameBatch(games_of([3, 24])))
