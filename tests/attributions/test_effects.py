"""Taylor effects by degree, the rules of Table IV, and scores."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from torch import nn
from torch.func import jvp

import interaction_train as it
from interaction_train.attributions import (
    Effects,
    allocation,
    attribute,
    box_overlap,
    degree_effects,
    infidelity,
    second_order_effects,
    table_iv,
)
from interaction_train.attributions.rules import RULES
from interaction_train.errors import InputError
from tests.attributions.polynomials import SHEET, Polynomial, close, game_of, index, tensor
from tests.attributions.test_methods import PATCHES, X, cnn, grid_game, polynomials, some

MODULE = Polynomial(  # σ(z1 + z2 + z3) with σ(t) = t + t³
    {
        **{tuple(int(i == j) for j in range(3)): 1.0 for i in range(3)},
        **{
            k: math.factorial(3) / math.prod(map(math.factorial, k))
            for k in itertools.product(range(4), repeat=3)
            if sum(k) == 3
        },
    }
)
Z = [2.0, 1.0, -1.0]

# Methods that take functions of any kind, and one baseline.
ANY_FUNCTION = ("gradient_input", "occlusion", "occlusion_patch", "integrated_gradients", "shapley")


def effects_of(network, x, b) -> Effects:
    found = network.effects(x, b)
    return Effects(torch.tensor(list(found)), tensor(list(found.values())))


@some
@given(polynomials())
def test_derivatives_of_polynomials(case):
    network, x, b = case
    effects, game = network.effects(x, b), game_of(network, x, b)
    scale = max(1.0, *(abs(value) for value in effects.values()))
    first, second = second_order_effects(game)
    unit = [tuple(int(i == j) for j in range(3)) for i in range(3)]
    close(first, tensor([effects.get(e, 0.0) for e in unit]), 1e-11 * scale)
    for i, j in itertools.product(range(3), repeat=2):
        pair = tuple(a + c for a, c in zip(unit[i], unit[j], strict=True))
        expected = effects.get(pair, 0.0) / (1 if i == j else 2)
        close(second[0, i, j], expected, 1e-11 * scale)
    by_degree, by_set = torch.zeros(1, 9).double(), torch.zeros(1, 9, 8).double()
    for kappa, value in effects.items():
        if any(kappa):
            by_degree[0, sum(kappa) - 1] += value
            by_set[0, sum(kappa) - 1, index(i for i in range(3) if kappa[i])] += value
    close(degree_effects(game, 9), by_degree, 1e-8 * scale)
    close(degree_effects(game, 9, by_set=True), by_set, 1e-8 * scale)
    flat = Effects.of_second_order(first, second)
    low = {k: v for k, v in effects.items() if 1 <= sum(k) <= 2}
    got = dict(zip(map(tuple, flat.degrees.tolist()), flat.values[0].tolist(), strict=True))
    assert {k: v for k, v in got.items() if abs(v) > 1e-9 * scale}.keys() <= low.keys()
    for kappa, value in low.items():
        assert abs(got[kappa] - value) < 1e-10 * scale


class TestNetworks:
    def test_second_order_by_differences_of_the_cells(self):
        game = grid_game(cnn(nn.Tanh()), 3)
        first, second = second_order_effects(game)
        cells, h = game.players.cells((4, 5)), 1e-4

        def g(t):
            scale = torch.as_tensor(t).double()[cells]
            x = game.absent + scale * (game.present - game.absent)
            inner = it.MaskedGame(game.model, x, 0.0, game.players, game.payoff, game.labels)
            return inner(torch.ones(1, 4, dtype=torch.bool))[:, 0]

        def at(**steps):
            return g([steps.get(f"c{k}", 0.0) for k in range(4)])

        for i in range(4):
            slope = (at(**{f"c{i}": h}) - at(**{f"c{i}": -h})) / (2 * h)
            close(first[:, i], slope, 1e-6)
        for i, j in itertools.combinations(range(4), 2):
            signs = itertools.product((1, -1), repeat=2)
            bend = sum(a * b * at(**{f"c{i}": a * h, f"c{j}": b * h}) for a, b in signs)
            close(2 * second[:, i, j], bend / (4 * h * h), 1e-5)
        close(second, second.transpose(1, 2))

    def test_chunks_and_traces(self):
        game = grid_game(cnn(nn.Tanh()), 3)
        small = grid_game(game.model, 3, chunk_size=2)
        for function in (second_order_effects, lambda g: (degree_effects(g, 3, nodes=40),)):
            for got, expected in zip(function(small), function(game), strict=True):
                close(got, expected, 1e-9)
        assert game.model.training
        assert all(p.grad is None for p in game.model.parameters())
        with torch.inference_mode():
            got = second_order_effects(grid_game(game.model, 3))
        close(got[1], second_order_effects(game)[1], 1e-12)

    def test_piecewise_linear(self):
        game = grid_game(cnn(nn.ReLU()), payoff="logit")
        first, second = second_order_effects(game)
        assert not second.any()
        assert first.abs().max() > 0.01
        linear = game_of(nn.Linear(3, 2).double().requires_grad_(False), X)
        assert not second_order_effects(linear)[1].any()

    @pytest.mark.parametrize("act", [nn.Sigmoid(), nn.GELU(), nn.Softplus()])
    def test_degrees_by_nested_forward_derivatives(self, act):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(3, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 2)).double()
        game = game_of(model, [0.8, -0.5, 0.3], [0.2, 0.1, -0.3])
        d = game.present - game.absent

        def nth(k):
            def h(t):
                return model(game.absent + t * d)[0, 0]

            for _ in range(k):
                h = (lambda f: lambda t: jvp(f, (t,), (torch.ones_like(t),))[1])(h)
            return float(h(torch.zeros((), dtype=torch.float64)).detach()) / math.factorial(k)

        close(degree_effects(game, 5)[0], [nth(k) for k in range(1, 6)], 1e-8)


class TestKinks:
    def game(self, *layers, payoff="logit"):
        model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *layers, nn.LazyLinear(3)).double()
        game = grid_game(model, 2, payoff=payoff)
        model.eval()(game.present)
        return game

    @pytest.mark.parametrize(
        ("layers", "name"),
        [
            ((nn.ReLU(inplace=True), nn.Flatten()), "relu"),
            ((nn.Tanh(), nn.MaxPool2d(2), nn.Flatten()), "max_pool2d"),
            ((nn.AdaptiveMaxPool2d(1), nn.Flatten()), "adaptive_max_pool2d"),
            ((nn.LeakyReLU(), nn.Flatten()), "leaky_relu"),
            ((nn.Hardtanh(), nn.Flatten()), "hardtanh"),
        ],
    )
    def test_the_message_says_which(self, layers, name):
        with pytest.raises(InputError, match=rf"game: got a network with .*{name}"):
            degree_effects(self.game(*layers), 2)

    def test_functions_in_forward_and_payoffs(self):
        game = game_of(lambda x: torch.relu(SHEET(x)), X)
        with pytest.raises(InputError, match="a network with relu"):
            degree_effects(game, 2)
        with pytest.raises(InputError, match="a network with amax"):
            degree_effects(self.game(nn.Tanh(), nn.Flatten(), payoff="margin"), 2)

    def test_smooth_networks_pass(self):
        layers = (nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout())
        assert degree_effects(self.game(*layers, payoff="log_odds"), 2).shape == (2, 2)

    @pytest.mark.parametrize("pole", [0.02, 0.1, 0.3, 0.6, 1.0, 2.0])
    def test_a_pole_close_by(self, pole):
        """1/(1 + (t/pole)²), whose terms are ±(1/pole)^k: refused, or right to a hundredth."""
        game = game_of(lambda x: torch.cat([1 / (1 + (x / pole) ** 2), 0 * x], 1), [1.0])
        if pole < 0.8:
            with pytest.raises(InputError, match=r"nodes: got 17, which leaves up to .* in doubt"):
                degree_effects(game, 4)
        if pole > 0.5:
            nodes = 17 if pole > 0.8 else 40
            expected = tensor((0, -(pole**-2), 0, pole**-4))
            close(degree_effects(game, 4, nodes=nodes), expected, 0.01)

    def test_rounding_is_no_doubt(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        x, y = torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([0])
        for scale in (0.0, 1e-4, 1.0):
            game = it.MaskedGame(model, scale * x, 0.0, it.UnitPlayers(), labels=y)
            assert degree_effects(game, 5).dtype == torch.float32

    def test_ranges(self):
        game = game_of(SHEET, X)
        for degrees in (0, 17, 1.5):
            with pytest.raises(InputError, match="degrees: got"):
                degree_effects(game, degrees)
        with pytest.raises(InputError, match="13"):
            degree_effects(game_of(nn.Tanh(), [0.0] * 13), 2, by_set=True)


class TestTableIV:
    @some
    @given(polynomials())
    def test_against_the_methods(self, case):
        network, x, b = case
        game, effects = game_of(network, x, b), effects_of(network, x, b)
        scale = max(1.0, float(effects.values.abs().max()))
        for method in ANY_FUNCTION:
            options = {"patches": PATCHES} if method == "occlusion_patch" else {}
            got = table_iv(method, effects, **options)
            close(got, attribute(game, method, **options), 1e-11 * scale)
            by_set = table_iv(method, effects, by_set=True, **options)
            close(by_set, allocation(game, method, **options), 1e-10 * scale)
            close(by_set.sum(-1), got, 1e-11 * scale)

    def test_means_over_baselines(self):
        absents = tensor([0.5, 1.0, 0.0], [0.0, -1.0, 2.0])
        effects = [effects_of(SHEET, X, b.tolist()) for b in absents]
        for method in ("prediction_difference", "expected_gradients"):
            expected = sum(table_iv(method, one) for one in effects) / 2
            close(attribute(game_of(SHEET, X), method, absents=absents), expected)

    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            ("deeplift_rescale", (10, 5, -5)),
            ("deeplift_reveal_cancel", (14, 7, -11)),
            ("deep_taylor", (20 / 3, 10 / 3, 0)),
            ("lrp_alpha_beta", (40 / 3, 20 / 3, -10)),
            ("deep_shap", (12, 7, -9)),
            ("gradient_input", (26, 13, -13)),
        ],
    )
    def test_of_one_module(self, method, expected):
        effects = effects_of(MODULE, Z, [0.0] * 3)
        close(table_iv(method, effects, z=tensor(Z)), tensor(expected))
        rows = table_iv(method, effects, z=tensor(Z), by_set=True)
        close(rows.sum(-1), tensor(expected))

    def test_as_printed(self):
        effects = effects_of(SHEET, X, [0.0] * 3)
        for method in ("gradient_input", "grad_cam", "lrp_epsilon"):
            close(table_iv(method, effects, printed=True), tensor((2, 0, 0)))

    def test_a_group_that_is_empty(self):
        effects = effects_of(MODULE, [2.0, 1.0, 1.0], [0.0] * 3)
        z = tensor((2, 1, 1))
        got = table_iv("lrp_alpha_beta", effects, z=z)
        close(got.sum(1), [2 * 68.0])  # α f
        close(table_iv("deeplift_reveal_cancel", effects, z=z).sum(1), [68.0])

    def test_refusals(self):
        effects = effects_of(SHEET, X, [0.0] * 3)
        for method in ("lime", lambda game: game.present):
            with pytest.raises(InputError, match=r"method: got .* one of 'gradient_input'"):
                table_iv(method, effects)
        with pytest.raises(InputError, match="z: got None"):
            table_iv("deep_taylor", effects)
        with pytest.raises(InputError, match="beta: got 1"):
            table_iv("lrp_alpha_beta", effects, z=torch.ones(1, 3), beta=1.0)
        with pytest.raises(InputError, match="patches: got None"):
            table_iv("occlusion_patch", effects)
        with pytest.raises(InputError, match=r"patches: .* a partition of the players 0 … 2"):
            table_iv("occlusion_patch", effects, patches=[[0, 1]])
        with pytest.raises(InputError, match=r"degrees: got torch.int64 \(2, 3\)"):
            Effects(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(1, 3))

    def test_fourteen(self):
        assert len(set(RULES)) == 14


class TestScores:
    @pytest.mark.parametrize(
        ("a", "expected"),
        [
            ((45.5, 7.5, 15), 960.679),
            ((17.5, 7.5, 7.5), 56.25),
            ((17.5, 17.5, 7.5), 199.107),
            ((13.375, 1.375, 2.75), 13.9911),
            ((12.5, 2.5, 2.5), 13.3929),
            ((13.75, 3.75, 3.75), 8.0357),
        ],
    )
    def test_infidelity_of_the_sheet(self, a, expected):
        close(infidelity(game_of(SHEET, X), tensor(a)), [expected], 5e-4)

    def test_infidelity_by_brute_force(self):
        game = grid_game(cnn(nn.ReLU()), 2)
        a = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
        expected = torch.zeros(2).double()
        for bits in itertools.product((False, True), repeat=4):
            kept = torch.tensor([[not bit for bit in bits]])
            change = game(torch.ones_like(kept)) - game(kept)
            if any(bits):
                claim = sum(a[:, i] for i in range(4) if bits[i])
                expected += (claim - change[:, 0]).square() / 15
        close(infidelity(game, a), expected)

    def test_overlap(self):
        a = tensor((3, -2, 1, 0), (0, 0, 0, 0))
        box = torch.tensor([[True, False, True, True], [False, True, True, False]])
        close(box_overlap(a, box).double(), [2 / 3, 0.5], 1e-6)
        close(box_overlap(a, box[0]).double(), [2 / 3, 2 / 3], 1e-6)

    def test_refusals(self):
        with pytest.raises(InputError, match="a: got shape"):
            infidelity(game_of(SHEET, X), torch.zeros(3))
        with pytest.raises(InputError, match="box: got an empty one"):
            box_overlap(torch.zeros(1, 3), torch.zeros(3, dtype=torch.bool))
        with pytest.raises(InputError, match=r"box: got torch\.bool"):
            box_overlap(torch.zeros(1, 3), torch.ones(4, dtype=torch.bool))
