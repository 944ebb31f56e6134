"""Interactions of two blocks of players: exact ones, and sampled ones with their errors."""

import pytest
import torch
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game import masked
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import UnitPlayers
from interaction_train.indices.blocks import block_interaction
from interaction_train.indices.exact import exact_values, values_from_dividends
from interaction_train.indices.exact_sets import block_shapley_values, multivariate_interaction
from interaction_train.indices.sampled_blocks import sample_between

FIRST = [[0], [0, 1], [6, 3, 5], [2, 4]]
SECOND = [[4], [2], [1, 7], [0, 1, 3, 5, 6, 7]]


def game(batch=2, seed=0, **options):
    """A network of 8 units."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.7)
    x = torch.rand(2, 8, generator=generator, dtype=torch.float64)[:batch] * 2
    labels = torch.tensor([0, 1])[:batch]
    options = {"chunk_size": 512, **options}
    return MaskedGame(net, x, 0.0, UnitPlayers(), "logit", labels, **options)


def by_definition(v, a, b):
    """φ([a∪b]) − φ([a]) − φ([b]), at three indices of the Shapley values of all blocks."""
    phi = block_shapley_values(v, [*a, *b])
    only_a = (1 << len(a)) - 1
    return phi[..., -1] - phi[..., only_a] - phi[..., ((1 << len(b)) - 1) << len(a)]


def test_exact_is_the_difference_of_shapley_values():
    v = exact_values(game())
    found = block_interaction(v, FIRST, SECOND)
    assert found.shape == (2, 4)
    for k, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        torch.testing.assert_close(found[:, k], by_definition(v, a, b))
        torch.testing.assert_close(block_interaction(v, a, b), found[:, k])
        torch.testing.assert_close(block_interaction(v, b, a), found[:, k])
    torch.testing.assert_close(found[:, 0], multivariate_interaction(v, [0, 4]))


def test_exact_without_others_and_with_gradient():
    v = torch.tensor([0.5, 1.0, 2.0, 7.0], requires_grad=True)
    psi = block_interaction(v, [1], [0])
    assert float(psi.detach()) == 7 - 1 - 2 + 0.5
    psi.backward()
    assert v.grad.tolist() == [1, -1, -1, 1]


def test_exact_in_blocks_of_pairs(monkeypatch):
    v = exact_values(game())
    whole = block_interaction(v, FIRST, SECOND)
    monkeypatch.setattr("interaction_train.indices.blocks.CELLS", 1)
    assert torch.equal(block_interaction(v, FIRST, SECOND), whole)


def test_sampled_within_three_errors():
    exact = block_interaction(exact_values(game()), FIRST[:3], SECOND[:3])
    z = []
    for seed in range(100):
        found = sample_between(game(), FIRST[:3], SECOND[:3], 100, seed=seed)
        z.append((found.value - exact) / found.stderr)
    z = torch.stack(z)
    assert ((z.abs() < 3).sum(0) >= 95).all()
    assert z.mean(0).abs().max() < 0.45  # unbiased: 4.5 errors of a mean of 100
    assert 0.75 < z.square().mean() < 1.35  # the errors are no larger and no smaller than said


def test_more_contexts_smaller_errors():
    few, many = (sample_between(game(), FIRST, SECOND, k) for k in (20, 2000))
    ratio = (few.stderr / many.stderr)[:, :3]
    assert 6 < ratio.mean() < 15  # √100
    assert (few.evaluations, many.evaluations) == (4 * 20 * 4, 4 * 2000 * 4)
    # Blocks that hold all players have one context, ∅.
    exact = block_interaction(exact_values(game()), FIRST[3], SECOND[3])
    torch.testing.assert_close(few.value[:, 3], exact)
    assert few.stderr[:, 3].max() < 1e-14


def test_what_is_linear_in_the_context_adds_no_error():
    """Concepts of up to three players: Δ is linear in T, and T with its complement gives ψ."""
    generator = torch.Generator().manual_seed(3)
    size = torch.tensor([bin(s).count("1") for s in range(64)])
    v = values_from_dividends(torch.randn(64, generator=generator).double() * (size <= 3))
    bits = torch.tensor([1 << i for i in range(6)])

    def network(x):
        z = v[(x.long() * bits).sum(1)]
        return torch.stack([z, torch.zeros_like(z)], 1)

    stub = MaskedGame(
        network, torch.ones(1, 6).double(), 0.0, UnitPlayers(), labels=torch.tensor([0])
    )
    found = sample_between(stub, [[0], [3]], [[5], [1]], 4)
    torch.testing.assert_close(found.value[0], block_interaction(v, [[0], [3]], [[5], [1]]))
    assert found.stderr.max() < 1e-12


def test_draws_depend_on_sample_and_pair_alone(monkeypatch):
    together = sample_between(game(), FIRST, SECOND, 20)
    alone = sample_between(game(1), FIRST[2], SECOND[2], 20)
    torch.testing.assert_close(alone.value, together.value[:1, 2])
    torch.testing.assert_close(alone.stderr, together.stderr[:1, 2])
    assert alone.value.shape == (1,)
    turned = sample_between(game(), SECOND, FIRST, 20)
    torch.testing.assert_close(turned.value, together.value)
    other = sample_between(game(), FIRST, SECOND, 20, seed=1)
    assert (other.value != together.value)[:, :3].all()
    monkeypatch.setattr(masked, "ROWS", 1)
    small = game(chunk_size=7)
    state = torch.get_rng_state()
    slices = sample_between(small, FIRST, SECOND, 20)
    torch.testing.assert_close(slices.value, together.value)
    torch.testing.assert_close(slices.stderr, together.stderr)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0, 1], [1, 2], "a, b: got player 1 in both, expected blocks apart"),
        ([[0], [3, 4]], [[1], [4]], "a, b: got player 4 in both of pair 1"),
        ([[0], [3, 4]], [[1], [8]], r"b: got \(8,\) of pair 1, expected distinct players out of"),
        ([0, 0], [1], r"a: got \(0, 0\), expected distinct players"),
        ([], [1], r"a: got \(\), expected distinct players"),
        ([[0], [1]], [[2]], "a, b: got 2 and 1 blocks"),
        ([[0]], [2], "b: got 2 of pair 0, expected a block of players"),
    ],
)
def test_blocks_that_are_refused(a, b, message):
    v = torch.zeros(256)
    with pytest.raises(InputError, match=message):
        block_interaction(v, a, b)
    with pytest.raises(InputError, match=message):
        sample_between(game(), a, b)


@pytest.mark.parametrize(("contexts", "message"), [(2, "contexts: got 2"), (7, "contexts: got 7")])
def test_contexts_that_are_refused(contexts, message):
    with pytest.raises(InputError, match=message):
        sample_between(game(), [0], [1], contexts)


def test_payoffs_that_are_not_finite():
    broken = MaskedGame(
        lambda x: x.log(), torch.ones(1, 3), 0.0, UnitPlayers(), labels=torch.tensor([0])
    )
    with pytest.raises(InputError, match="not finite for sample 0"):
        sample_between(broken, [0], [1])
