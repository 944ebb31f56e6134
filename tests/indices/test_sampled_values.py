"""Sampled Shapley values against exact ones, and their standard errors against the truth."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.game import masked
from interaction_train.indices import sample_shapley_values

from .test_coverage import Mixed, covered, game


def exact():
    return it.shapley_values(it.exact_values(game(Mixed(), 1)))[0]


def test_errors_hold_the_truth():
    played, truth = game(Mixed(), 1), exact()
    runs = [sample_shapley_values(played, 30, seed=seed) for seed in range(100)]
    worth = slice(8)  # without the unit that always has 0
    errors = (torch.cat([run.value for run in runs]) - truth)[:, worth]
    stderr = torch.cat([run.stderr for run in runs])[:, worth]
    assert 0.9 <= covered(errors, stderr) <= 0.98
    assert abs(float(errors[:, 0].mean() / errors[:, 0].std())) < 4 / 100**0.5
    # Means of 100 runs are ten times closer than one: no bias is left over.
    assert torch.all(errors.mean(0).abs() <= 4 * errors.std(0) / 100**0.5 + 1e-12)


def test_many_chains_come_close():
    found = sample_shapley_values(game(Mixed(), 1), 20_000)
    assert float((found.value - exact()).abs().max()) < 0.02 * float(exact().abs().max())
    assert float(found.stderr.max()) < 0.02 * float(exact().abs().max())


def test_efficiency_and_dummies():
    played = game(Mixed(), 5)
    found = sample_shapley_values(played, 3)
    full, empty = played(torch.tensor([[True] * 9, [False] * 9])).unbind(1)
    torch.testing.assert_close(found.value.sum(1), full - empty, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.ends, torch.stack([empty, full], 1), rtol=0, atol=0)
    assert float(found.value[:, 8].abs().max()) == 0  # the unit of no worth
    assert float(found.stderr[:, 8].abs().max()) == 0


def test_an_additive_game_needs_no_luck():
    class Sum(nn.Module):
        def forward(self, x):
            z = x @ torch.arange(1.0, 7.0, dtype=x.dtype)
            return torch.stack([z, torch.zeros_like(z)], 1)

    x = torch.ones(1, 6, dtype=torch.float64)
    played = it.MaskedGame(Sum(), x, 0.0, it.UnitPlayers(), labels=torch.tensor([0]))
    found = sample_shapley_values(played, 2)
    torch.testing.assert_close(found.value[0], torch.arange(1.0, 7.0, dtype=torch.float64))
    assert float(found.stderr.max()) < 1e-6


def test_draws_depend_on_the_sample_and_the_seed_alone():
    whole = sample_shapley_values(game(Mixed(), 7), 10)
    torch.manual_seed(123)
    played = game(Mixed(), 7)
    one = it.MaskedGame(
        played.model, played.present[4:5], 0.0, it.UnitPlayers(), labels=played.labels[4:5]
    )
    torch.testing.assert_close(sample_shapley_values(one, 10).value[0], whole.value[4])
    assert not torch.equal(sample_shapley_values(one, 10, seed=1).value[0], whole.value[4])


def test_memory_is_flat_and_evaluations_are_counted(monkeypatch):
    rows = []
    call = it.MaskedGame.__call__

    def spy(played, coalitions, **kwargs):
        rows.append(len(played.present) * coalitions.shape[-2])
        return call(played, coalitions, **kwargs)

    expected = sample_shapley_values(game(Mixed(), 2), 50)
    monkeypatch.setattr(it.MaskedGame, "__call__", spy)
    monkeypatch.setattr(masked, "ROWS", 64)
    found = sample_shapley_values(game(Mixed(), 2), 50)
    assert max(rows) <= 64
    assert sum(rows) == 2 * found.evaluations == 2 * (50 * 8 + 2)
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.stderr, expected.stderr)


def test_bad_input():
    with pytest.raises(InputError, match="chains: got 1"):
        sample_shapley_values(game(Mixed(), 1), 1)
    x = torch.ones(1, 1)
    single = it.MaskedGame(nn.Identity(), x, 0.0, it.UnitPlayers(), labels=torch.tensor([0]))
    with pytest.raises(InputError, match="game: got 1 player"):
        sample_shapley_values(single)
    broken = game(Mixed(), 2)
    broken.present[1] = torch.nan
    with pytest.raises(InputError, match="not finite for sample 1"):
        sample_shapley_values(broken)
