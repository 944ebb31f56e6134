from itertools import combinations

import pytest
import torch

import interaction_train as it
from interaction_train.baselines import (
    dividend_l1,
    low_order_marginal,
    low_order_shapley,
    order_gains,
)
from interaction_train.errors import InputError
from interaction_train.sampling.random import Draws, content_hash
from tests.baselines.games import smooth_network

N = 6


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, N, generator=generator, dtype=torch.float64), torch.tensor([0, 2, 1])


def game(samples, absent=0.1, n=N):
    x, y = samples
    players = it.UnitPlayers()
    return it.MaskedGame(smooth_network(n), x, absent, players, "log_odds", y, chunk_size=64)


def brute_force(samples, m):
    """Gains v(S∪i) − v(S) of every player i over all contexts of m others, ``(B, n, C)``."""
    v = it.exact_values(game(samples))

    def at(members):
        return v[:, sum(1 << k for k in members)]

    return torch.stack([
        torch.stack([at((*s, i)) - at(s) for s in combinations(sorted({*range(N)} - {i}), m)], -1)
        for i in range(N)
    ], 1)  # fmt: skip


def test_one_set_of_contexts_gives_every_gain(samples):
    found = order_gains(game(samples), contexts=100)
    assert len(found) == N // 2
    for m, gains in enumerate(found):
        torch.testing.assert_close(gains, brute_force(samples, m).mean(-1))


def test_losses_are_their_definitions(samples):
    gains = [brute_force(samples, m) for m in range(N // 2)]
    shapley = sum(g.mean(-1).abs().sum(-1) for g in gains)
    marginal = sum(g.abs().mean(-1).sum(-1) for g in gains)
    torch.testing.assert_close(low_order_shapley(game(samples)), shapley)
    torch.testing.assert_close(low_order_marginal(game(samples)), marginal)
    interactions = it.dividends(it.exact_values(game(samples)))[:, 1:]
    torch.testing.assert_close(dividend_l1(game(samples)), interactions.abs().sum(-1))


def test_evaluations_are_n_minus_m_plus_1_per_context(samples):
    rows = []
    one = game(samples)
    one.progress = rows.append
    low_order_shapley(one, contexts=4)
    wanted = 1 * (N + 1) + 4 * N + 4 * (N - 1)  # there is one context of no player
    assert sum(rows) == 3 * wanted


def test_sampled_contexts_are_unbiased(samples):
    x, y = (part[:1].expand(400, *part.shape[1:]) for part in samples)
    draws = Draws(torch.arange(400), name="test")
    found = order_gains(game((x, y)), contexts=3, draws=draws, absolute=True)[2]
    truth = brute_force(samples, 2)[0].abs().mean(-1)
    left_out = found.masked_fill(found == 0, torch.nan)  # players in all three contexts
    error = left_out.std(0) / 400**0.5
    assert ((left_out.nanmean(0) - truth).abs() < 4 * error.nan_to_num(1)).all()


def test_draws_depend_on_the_sample_alone(samples):
    x, y = samples
    together = low_order_shapley(game(samples), contexts=2)
    alone = torch.cat([low_order_shapley(game((x[k : k + 1], y[k : k + 1])), 2) for k in range(3)])
    torch.testing.assert_close(together, alone)
    again = low_order_shapley(game(samples), 2, Draws(content_hash(x), 1, "baselines"))
    assert not torch.allclose(together, again)


@pytest.mark.parametrize("objective", [low_order_shapley, low_order_marginal, dividend_l1])
def test_gradients_are_finite_differences(objective, samples):
    b = torch.full((N,), 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: objective(game(samples, b), 3), b)


def test_what_is_refused(samples):
    with pytest.raises(InputError, match="contexts: got 0"):
        low_order_shapley(game(samples), contexts=0)
    x, y = samples
    with pytest.raises(InputError, match="at least 2 players"):
        low_order_shapley(game((x[:, :1], y), n=1))
    with pytest.raises(InputError, match=r"players: got 13, expected in \[1, 12\]"):
        dividend_l1(game((x.repeat(1, 3)[:, :13], y), n=13))
    several = it.MaskedGame(smooth_network(N), x, 0.0, it.UnitPlayers(), "all")
    with pytest.raises(InputError, match="payoff"):
        low_order_shapley(several)
