"""Synergies shared out among small sets, and orders of influence."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from shapiq.game_theory.exact import ExactComputer
from torch import nn

import interaction_train as it
from interaction_train.attributions import allocation, distribute, influence_orders
from interaction_train.errors import InputError
from tests.attributions.polynomials import Polynomial, close, game_of, index, tensor
from tests.attributions.test_methods import cnn, grid_game, polynomials, some

MONOMIAL = Polynomial({(2, 1, 2): 1.0})
SETS = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]


def given_to(policy, game):
    if policy == "integrated_hessian":
        return game
    if policy == "sum_of_powers":
        return allocation(game, "integrated_gradients")
    return it.dividends(it.exact_values(game))


def share(policy, kappa, T, k, augmented=False):  # noqa: N803
    """What share of I(κ) a set T gets: the policies' definitions on monomials."""
    S = frozenset(i for i, m in enumerate(kappa) if m)  # noqa: N806
    if policy in ("shapley_taylor", "sum_of_powers") or augmented:
        if len(S) < k or (augmented and len(S) <= k):
            return float(S == T)
        if not T <= S or (len(T) != k and policy in ("shapley_taylor", "sum_of_powers")):
            return 0.0
    if policy == "shapley_taylor":
        return 1 / math.comb(len(S), k)
    if policy == "sum_of_powers":
        return sum(kappa[i] for i in T) / sum(kappa) / math.comb(len(S) - 1, k - 1)
    if not S:
        return 0.0
    weights = {i: 1 / len(S) if policy == "recursive_shapley" else kappa[i] / sum(kappa) for i in S}
    sequences = itertools.product(S, repeat=k)
    return sum(math.prod(weights[i] for i in q) for q in sequences if frozenset(q) == T)


POLICIES = ("shapley_taylor", "recursive_shapley", "sum_of_powers", "integrated_hessian")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("integrated_hessian", [n / 25 for n in (4, 1, 4, 4, 8, 4)]),
        ("recursive_shapley", [n / 9 for n in (1, 1, 1, 2, 2, 2)]),
        ("shapley_taylor", [n / 3 for n in (0, 0, 0, 1, 1, 1)]),
        ("sum_of_powers", [n / 10 for n in (0, 0, 0, 3, 4, 3)]),
    ],
)
def test_the_sheet(policy, expected):
    game = game_of(MONOMIAL, [1.0, 1.0, 1.0])
    got = distribute(policy, given_to(policy, game), order=2)[0]
    close(got[[index(T) for T in SETS]], expected)
    close(got.sum(), 1.0)
    assert got[0] == got[7] == 0


@some
@given(polynomials())
def test_definitions_on_polynomials(case):
    network, x, b = case
    game, effects = game_of(network, x, b), network.effects(x, b)
    scale = max(1.0, *(abs(value) for value in effects.values()))
    for policy, k, augmented in itertools.product(POLICIES, (1, 2, 3), (False, True)):
        if policy == "integrated_hessian" and k != 2:
            continue
        expected = torch.zeros(1, 8, dtype=torch.float64)
        for size in range(1, k + 1):
            for T in map(frozenset, itertools.combinations(range(3), size)):  # noqa: N806
                shares = (share(policy, kappa, T, k, augmented) * v for kappa, v in effects.items())
                expected[0, index(T)] = sum(shares)
        got = distribute(policy, given_to(policy, game), order=k, augmented=augmented)
        close(got, expected, 1e-10 * scale)
        ends = game(torch.tensor([[False] * 3, [True] * 3]))
        close(got.sum(-1), ends[:, 1] - ends[:, 0], 1e-10 * scale)


@pytest.mark.parametrize("policy", POLICIES)
def test_networks_and_chunks(policy):
    """Batches, other chunks, cells of images: everything is shared out."""
    game = grid_game(cnn(nn.Softplus()), 2)
    small = grid_game(game.model, 2, chunk_size=3)
    ends = game(torch.tensor([[False] * 4, [True] * 4]))
    for augmented in (False, True):
        got = distribute(policy, given_to(policy, game), order=2, augmented=augmented)
        assert got.shape == (2, 16)
        close(got.sum(-1), ends[:, 1] - ends[:, 0])
        again = distribute(policy, given_to(policy, small), order=2, augmented=augmented)
        close(again, got, 1e-10)
    assert game.model.training


def test_shapiq():
    v = torch.randn(32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def game(coalitions):
        return v[[index(i for i in range(5) if row[i]) for row in coalitions]].numpy()

    peer = ExactComputer(game=game, n_players=5)
    J = it.dividends(v)  # noqa: N806
    moebius = peer("Moebius").dict_values
    for k in range(1, 6):
        stii = peer("STII", order=k).dict_values
        got = distribute("shapley_taylor", J, order=k)
        for size in range(1, k + 1):
            for T in itertools.combinations(range(5), size):  # noqa: N806
                close(got[index(T)], stii.get(T, 0.0))
                close(J[index(T)], moebius.get(T, 0.0))
    values = peer("SV", order=1).dict_values
    for policy in ("shapley_taylor", "recursive_shapley"):
        got = distribute(policy, J, order=1)
        close(got[[1 << i for i in range(5)]], [values[(i,)] for i in range(5)])


class TestRefusals:
    def test_distribute(self):
        J = torch.zeros(8)  # noqa: N806
        game = game_of(MONOMIAL, [1.0] * 3)
        for order in (0, 4, 1.5):
            with pytest.raises(InputError, match="order: got"):
                distribute("recursive_shapley", J, order=order)
        with pytest.raises(InputError, match="policy: got 'banzhaf'"):
            distribute("banzhaf", J, order=1)
        with pytest.raises(InputError, match=r"effects: got shape \(8,\), expected \(\..., 3, 8\)"):
            distribute("sum_of_powers", J, order=1)
        with pytest.raises(InputError, match="effects: got Tensor, expected a MaskedGame"):
            distribute("integrated_hessian", J, order=2)
        with pytest.raises(InputError, match="effects: got MaskedGame, expected a tensor"):
            distribute("shapley_taylor", game, order=2)
        with pytest.raises(InputError, match="order: got 3"):
            distribute("integrated_hessian", game, order=3)


def vote(weights, quota):
    """Class 0 where the weights of the ones reach the quota."""

    def network(x):
        total = x @ torch.tensor(weights, dtype=x.dtype) - quota + 0.5
        return torch.stack([total, 0 * total], 1)

    return network


class TestInfluence:
    def test_majority_of_three(self):
        game = game_of(vote([1.0, 1.0, 1.0], 2), [1.0] * 3)
        one = torch.ones(3)
        rows = {
            "minimal": [0 * one, 2 * one, 0 * one],
            "share": [0 * one, one, one],
            "pivotal": [0 * one, one, 0 * one],
        }
        for reading, expected in rows.items():
            assert torch.equal(influence_orders(game, reading)[0], torch.stack(expected))

    def test_a_dictator_and_a_dummy(self):
        game = game_of(vote([3.0, 1.0, 0.0], 3), [1.0] * 3)
        expected = tensor((1, 0, 0), (0, 0, 0), (0, 0, 0)).float()
        assert torch.equal(influence_orders(game)[0], expected)

    @pytest.mark.parametrize("reading", ["minimal", "share", "pivotal"])
    def test_by_brute_force(self, reading):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4)).double()
        x = torch.randn(3, 5, dtype=torch.float64) * 3
        game = it.MaskedGame(model, x, 0.0, it.UnitPlayers(), "all")
        got = influence_orders(game, reading)
        for s in range(3):

            def flips(T, s=s):  # noqa: N803
                masked = x[s].clone()
                masked[list(T)] = 0
                return model(masked).argmax() != model(x[s]).argmax()

            for k, i in itertools.product(range(1, 6), range(5)):
                sets = [set(T) for T in itertools.combinations(range(5), k) if i in T]
                if reading == "minimal":
                    expected = sum(
                        bool(flips(T))
                        and not any(
                            flips(part)
                            for size in range(k)
                            for part in itertools.combinations(T, size)
                        )
                        for T in sets
                    )
                elif reading == "share":
                    expected = sum(bool(flips(T)) for T in sets) / len(sets)
                else:
                    expected = sum(bool(flips(T) != flips(T - {i})) for T in sets) / len(sets)
                assert abs(float(got[s, k - 1, i]) - expected) < 1e-6

    def test_unknown_reading(self):
        with pytest.raises(InputError, match="reading: got 'order'"):
            influence_orders(game_of(MONOMIAL, [1.0] * 3), "order")
