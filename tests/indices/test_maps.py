"""Maps of interactions against exact sums, at every size and order."""

import pytest
import torch
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.indices import (
    exact_values,
    interaction_map,
    interaction_maps,
    multi_order_interactions,
    sample_multi_order,
)
from interaction_train.indices.maps import Partners
from interaction_train.sampling.pairs import AllPairs, PairBlocks
from interaction_train.sampling.random import Draws
from tests.indices.test_sampled import LABELS, images, network


def game(side=3, batch=3, **changes):
    net, x = network(side * side), images(batch, side)
    return MaskedGame(net, x, 0.2, GridPlayers(side, side), "logit", LABELS[:batch], **changes)


def exact_maps(game):
    """Σ_j |I^(m)(i,j)|, ``(B, n − 1, n)``."""
    return multi_order_interactions(exact_values(game)).abs().sum(-1)


def test_nine_players_are_exact_at_every_order():
    expected = exact_maps(game())
    for order in range(8):
        for reading in ("plug_in", "split_sign"):
            found = interaction_map(game(), order, 35, reading=reading)
            torch.testing.assert_close(found, expected[:, order], rtol=1e-10, atol=1e-12)
    found = interaction_maps(game(), 35, orders=range(8))
    assert found.exact == (True,) * 8
    few = interaction_maps(game(), 20, orders=range(8))  # C(7, m) is 1, 7, 21, 35, 35, 21, 7, 1
    assert few.exact == (True, True, False, False, False, False, True, True)
    assert [few.told(k) for k in (1, 2)] == ["exact", "plug-in"]
    torch.testing.assert_close(few.plug_in[:, 6], expected[:, 6])


def test_end_orders_of_many_players_are_exact():
    """A sum over pairs of x_i x_j a_ij has I = a_ij x_i x_j at every order: 40 of them."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 40, generator=generator, dtype=torch.float64).triu(1)
    x = torch.rand(2, 40, generator=generator, dtype=torch.float64)

    def net(x):
        return torch.stack([((x @ a) * x).sum(-1), 0 * x[:, 0]], 1)

    expected = ((a + a.T) * x[:, :, None] * x[:, None]).abs().sum(-1)
    pairs = MaskedGame(net, x, 0.0, UnitPlayers(), "logit", torch.tensor([0, 0]))
    found = interaction_maps(pairs, 30, orders=[0, 20, 38], partners=39)
    assert found.exact == (True, False, True)
    for k in range(3):  # in the middle no context differs from another
        torch.testing.assert_close(found.plug_in[:, k], expected)
        torch.testing.assert_close(found.split_sign[:, k], expected)
    some = interaction_maps(pairs, 2, orders=[0, 20], partners=3)
    assert (some.exact, some.partners, some.told(0)) == ((False,) * 2, 3, "plug-in, 3 partners")
    for order in (0, 20):  # partners are drawn, and drawn evenly
        draws = torch.stack(
            [interaction_map(pairs, order, 8, partners=3, seed=k) for k in range(60)]
        )
        error = draws.std(0) / 60**0.5
        assert ((draws.mean(0) - expected) / error).abs().max() < 4
        assert bool((error > 0).all())  # every player had partners in every draw


@pytest.mark.parametrize(("n", "number"), [(7, 2), (9, 8), (36, 4), (49, 16), (256, 16), (2, 1)])
def test_every_player_has_partners_and_no_pair_comes_twice(n, number):
    choice = Partners(number)
    pairs = choice.blocks(UnitPlayers(), (n,), Draws(torch.arange(3))).pairs
    for own in pairs:
        times = torch.bincount(own.flatten(), minlength=n)
        assert int(times.min()) == choice.count(n)
        assert int(times.max()) <= 2 * choice.count(n)
        assert len({tuple(sorted(pair)) for pair in own.tolist()}) == len(own)
    assert abs(choice.count(n) - number) <= max(1, number // 2)


def test_some_pairs_of_a_block_are_refused_between_the_end_orders():
    class Chain(AllPairs):
        def blocks(self, players, shape, draws):
            whole = super().blocks(players, shape, draws)
            return PairBlocks(whole.members, whole.edges[:5])

    with pytest.raises(InputError, match="pairs: got 5 pairs of blocks of 9"):
        sample_multi_order(game(), Chain(), 4, orders=[3])
    assert sample_multi_order(game(), Chain(), 4, orders=[0]).value.shape == (3, 1, 5)


def test_readings_hold_the_truth_between_them():
    expected = exact_maps(game())[:, 3]
    draws = [interaction_maps(game(), 8, orders=[3], seed=k) for k in range(30)]
    for key, side in (("plug_in", 1), ("split_sign", -1)):
        found = torch.stack([getattr(one, key)[:, 0] for one in draws])
        off = side * (found.mean(0) - expected) / (found.std(0) / 30**0.5)
        assert float(off.min()) > -3.5
        assert float(off.mean()) > 1
    many = interaction_map(game(), 3, 34, seed=1) / expected  # one less than all
    assert float((many - 1).abs().mean()) < 0.15


def test_a_samples_map_depends_on_nothing_else():
    together = interaction_maps(game(4), 6, orders=[0, 5, 14], partners=4)
    torch.manual_seed(1)
    chunked = interaction_maps(game(4, chunk_size=7), 6, orders=[0, 5, 14], partners=4)
    torch.testing.assert_close(chunked.plug_in, together.plug_in)
    alone = interaction_maps(game(4, batch=1), 6, orders=[5], partners=4)
    torch.testing.assert_close(alone.plug_in[0, 0], together.plug_in[0, 1])
    other = interaction_maps(game(4), 6, orders=[5], partners=4, seed=1)
    assert not torch.allclose(other.plug_in[:, 0], together.plug_in[:, 1])


def test_default_orders_are_low_middle_and_high():
    assert interaction_maps(game(4, batch=1), 2, partners=2).orders == (1, 7, 13)
    assert interaction_maps(game(2, batch=1), 2).orders == (0, 1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 8}, "orders: got 8"),
        ({"order": 1.5}, "orders: got 1.5, expected a whole number"),
        ({"order": 0, "partners": 1.5}, "partners: got 1.5"),
        ({"order": 0, "contexts": 1}, "contexts: got 1"),
        ({"order": 0, "partners": 0}, "partners: got 0"),
        ({"order": 0, "reading": "rms"}, "reading: got 'rms'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        interaction_map(game(), **options)


def test_a_payoff_that_is_not_finite_names_its_sample():
    class Broken(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1)
            return torch.stack([total / (x[:, 0, 0, 0] < 1), total], 1)

    x = torch.full((2, 1, 2, 2), 0.5)
    x[1] = 1
    with pytest.raises(InputError, match="not finite for sample 1"):
        interaction_map(MaskedGame(Broken(), x, 0.0, GridPlayers(2, 2), "logit", LABELS[[0, 0]]), 0)
