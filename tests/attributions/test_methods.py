"""The methods that need gradients or values alone, against closed forms, and by the rules."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import interaction_train as it
from interaction_train.attributions.allocation import allocation
from interaction_train.attributions.attribute import METHODS, attribute
from interaction_train.errors import InputError
from tests.attributions.polynomials import ANTISYMMETRIC, SHEET, Polynomial, close, game_of, tensor

PATCHES = [[0, 1], [2]]
X = [2.0, 3.0, 0.5]
some = settings(max_examples=25, deadline=None, derandomize=True)

number = st.floats(-1.5, 1.5, allow_nan=False, width=32)


@st.composite
def polynomials(draw, n=3):
    powers = st.tuples(*[st.integers(0, 3)] * n)
    terms = draw(st.dictionaries(powers, number, min_size=1, max_size=6))
    points = st.lists(number, min_size=n, max_size=n)
    return Polynomial(terms), draw(points), draw(points)


class TestTheSheet:
    @pytest.mark.parametrize(
        ("method", "options", "expected"),
        [
            ("gradient_input", {}, (45.5, 7.5, 15)),
            ("occlusion", {}, (17.5, 7.5, 7.5)),
            ("occlusion_patch", {"patches": PATCHES}, (17.5, 17.5, 7.5)),
            ("integrated_gradients", {}, (13.375, 1.375, 2.75)),
            ("integrated_gradients", {"steps": 3}, (13.375, 1.375, 2.75)),  # degree 5 is exact
            ("shapley", {}, (12.5, 2.5, 2.5)),
        ],
    )
    def test_baseline_0(self, method, options, expected):
        close(attribute(game_of(SHEET, X), method, **options), tensor(expected))

    @pytest.mark.parametrize(
        ("method", "expected"), [("shapley", (17, 6.5, -10)), ("occlusion", (14, 5, -22.5))]
    )
    def test_baseline_1(self, method, expected):
        close(attribute(game_of(SHEET, X, 1.0), method), tensor(expected))

    def test_effects_that_cancel_within_a_set(self):
        game = game_of(ANTISYMMETRIC, [1.0, 1.0])
        close(it.dividends(it.exact_values(game)), torch.zeros(1, 4))
        close(attribute(game, "integrated_gradients"), tensor((1 / 3, -1 / 3)))
        close(attribute(game, "shapley"), torch.zeros(1, 2))


RULES = {
    "gradient_input": lambda kappa, i: kappa[i],
    "occlusion": lambda kappa, i: kappa[i] > 0,
    "occlusion_patch": lambda kappa, i: (kappa[0] + kappa[1] if i < 2 else kappa[2]) > 0,
    "integrated_gradients": lambda kappa, i: kappa[i] / max(1, sum(kappa)),
    "shapley": lambda kappa, i: (kappa[i] > 0) / max(1, sum(k > 0 for k in kappa)),
}


@some
@given(polynomials())
def test_rules_on_taylor_effects(case):
    network, x, b = case
    effects, game = network.effects(x, b), game_of(network, x, b)
    scale = max(1.0, *(abs(value) for value in effects.values()))
    for method, weight in RULES.items():
        options = {"patches": PATCHES} if method == "occlusion_patch" else {}
        expected = [sum(weight(k, i) * v for k, v in effects.items()) for i in range(3)]
        close(attribute(game, method, **options), tensor(expected), 1e-11 * scale)


@some
@given(polynomials(), st.lists(st.lists(number, min_size=3, max_size=3), min_size=1, max_size=4))
def test_means_over_baselines(case, absents):
    network, x, b = case
    game = game_of(network, x, b)
    for method, single in (
        ("prediction_difference", "occlusion"),
        ("expected_gradients", "integrated_gradients"),
    ):
        each = [attribute(game_of(network, x, absent), single) for absent in absents]
        got = attribute(game, method, absents=tensor(*absents))
        close(got, sum(each) / len(each), 1e-9)


def cnn(act: nn.Module) -> nn.Sequential:
    """A convolutional network with BatchNorm, dropout, and an activation that works in place."""
    torch.manual_seed(3)
    model = nn.Sequential(
        act,
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        act,
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 20, 3),
    ).double()
    model[2].running_mean.normal_()
    return model.train()


def grid_game(model, batch=5, **options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 2, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(batch) % 3
    absent = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    return it.MaskedGame(
        model, x, absent, it.GridPlayers(2, 2), options.pop("payoff", "log_odds"), labels, **options
    )


def options_of(method, game):
    generator = torch.Generator().manual_seed(1)
    absents = torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    wanted = {
        "occlusion_patch": {"patches": [[0, 3], [1, 2]]},
        "prediction_difference": {"absents": absents},
        "expected_gradients": {"absents": absents},
    }
    return wanted.get(method, {})


OWN = (*RULES, "prediction_difference", "expected_gradients")


class TestNetworks:
    def test_gradients_summed_over_the_cells(self):
        """Against one backward pass per sample and pixel loops."""
        game = grid_game(cnn(nn.ReLU()))
        model = copy.deepcopy(game.model).eval()
        cells = game.players.cells((4, 5)).tolist()
        got = attribute(game, "gradient_input")
        for s, x in enumerate(game.present):
            leaf = x[None].clone().requires_grad_()
            p = model(leaf.clone())[0].softmax(-1)[s % 3]
            (p.log() - (1 - p).log()).backward()
            expected = [0.0] * 4
            for c, h, w in itertools.product(range(2), range(4), range(5)):
                d = float(x[c, h, w] - game.absent[s, c, h, w])
                expected[cells[h][w]] += d * float(leaf.grad[0, c, h, w])
            close(got[s], expected)

    def test_integrated_gradients_of_a_smooth_network_are_complete(self):
        game = grid_game(cnn(nn.Softplus()))
        ends = torch.tensor([[False] * 4, [True] * 4])
        change = game(ends).diff(dim=1)[:, 0]
        close(attribute(game, "integrated_gradients").sum(1), change)

    @pytest.mark.parametrize("method", OWN)
    @pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
    def test_neither_chunks_nor_the_batch_change_values(self, method, chunk):
        game = grid_game(cnn(nn.Softplus()))
        whole = attribute(game, method, **options_of(method, game))
        small = grid_game(game.model, chunk_size=chunk)
        close(attribute(small, method, **options_of(method, game)), whole, 1e-12)
        alone = it.MaskedGame(
            game.model, game.present[3:4], game.absent[3:4], game.players, "log_odds",
            game.labels[3:4],
        )  # fmt: skip
        close(attribute(alone, method, **options_of(method, game)), whole[3:4], 1e-12)

    @pytest.mark.parametrize("method", OWN)
    def test_leaves_no_trace(self, method):
        model = cnn(nn.ReLU(inplace=True))
        model[1].weight.requires_grad_(False)
        game = grid_game(model)
        state, seed = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        pixels = game.present.clone()
        found = attribute(game, method, **options_of(method, game))
        assert not found.requires_grad
        assert model.training
        assert model[4].training
        assert not model[1].weight.requires_grad
        assert model[1].bias.requires_grad
        assert all(p.grad is None for p in model.parameters())
        assert torch.equal(torch.get_rng_state(), seed)
        assert torch.equal(game.present, pixels)
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name

    @pytest.mark.parametrize("method", OWN)
    @pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
    def test_where_gradients_are_off(self, method, mode):
        model = cnn(nn.Softplus())
        expected = attribute(grid_game(model), method, **options_of(method, None))
        with mode():
            got = attribute(grid_game(model), method, **options_of(method, None))
        assert torch.equal(got, expected)

    @pytest.mark.parametrize("method", OWN)
    def test_dtypes(self, method):
        model = cnn(nn.Softplus()).float()
        game = grid_game(model)
        game = it.MaskedGame(
            model, game.present.float(), game.absent.float(), game.players, "logit", game.labels
        )
        assert attribute(game, method, **options_of(method, game)).dtype == torch.float32

    @pytest.mark.parametrize("method", OWN)
    def test_segments_of_each_sample(self, method):
        """Players that differ from sample to sample."""
        model, batch = cnn(nn.Softplus()), 3
        maps = torch.randint(0, 3, (batch, 4, 5), generator=torch.Generator().manual_seed(5))
        game = grid_game(model, batch)
        options = {**options_of(method, game)}
        if method == "occlusion_patch":
            options = {"patches": PATCHES}
        every = it.MaskedGame(
            model, game.present, game.absent, it.SegmentPlayers(maps), "logit", game.labels
        )
        got = attribute(every, method, **options)
        for s in range(batch):
            one = it.MaskedGame(
                model, game.present[s : s + 1], game.absent[s : s + 1],
                it.SegmentPlayers(maps[s]), "logit", game.labels[s : s + 1],
            )  # fmt: skip
            close(got[s : s + 1], attribute(one, method, **options), 1e-12)

    def test_hidden_layers(self):
        model = cnn(nn.Softplus()).eval()
        x = grid_game(model).present
        features = model[:3](x).detach()
        suffix = it.LayerSuffix(model, "2", x)
        labels = torch.arange(5) % 3
        game = it.MaskedGame(suffix, features, 0.0, it.UnitPlayers("channel"), "logit", labels)
        leaf = features.clone().requires_grad_()
        model[3:](leaf).gather(1, labels[:, None]).sum().backward()
        close(attribute(game, "gradient_input"), (leaf.grad * features).sum((2, 3)).detach())

    def test_progress(self):
        rows = []
        game = grid_game(cnn(nn.Softplus()), progress=rows.append, chunk_size=7)
        attribute(game, "integrated_gradients", steps=10)
        assert sum(rows) == 50 + 10  # and both ends of the way of each sample
        assert max(rows) <= 7


class TestRefusals:
    game = game_of(SHEET, X)

    def test_unknown_method(self):
        with pytest.raises(InputError, match="method: got 'gradients', expected one of 'gradient"):
            attribute(self.game, "gradients")

    def test_unknown_and_missing_options(self):
        with pytest.raises(
            InputError, match="options: got step, expected options out of steps, check"
        ):
            attribute(self.game, "integrated_gradients", step=3)
        with pytest.raises(InputError, match="options: got steps, expected no options for occl"):
            attribute(self.game, "occlusion", steps=3)
        with pytest.raises(InputError, match="options: got no absents"):
            attribute(self.game, "expected_gradients")

    @pytest.mark.parametrize(
        "patches",
        [
            *([[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []], [[0, 1, 3]]),
            *([[0, 1.5, 2]], [0, 1, 2]),
        ],
    )
    def test_no_partition(self, patches):
        with pytest.raises(InputError, match=r"patches: .*partition of the players 0 … 2"):
            attribute(self.game, "occlusion_patch", patches=patches)

    @pytest.mark.parametrize(
        "absents", [torch.zeros(0, 3), torch.zeros(2, 4), torch.zeros(()), 0.0]
    )
    @pytest.mark.parametrize("method", ["expected_gradients", "prediction_difference"])
    def test_baselines_that_do_not_fit(self, absents, method):
        with pytest.raises(InputError, match="absents: got"):
            attribute(self.game, method, absents=absents)

    def test_steps(self):
        with pytest.raises(InputError, match="steps: got 0"):
            attribute(self.game, "integrated_gradients", steps=0)

    @pytest.mark.parametrize("method", OWN)
    def test_payoffs_of_several_numbers(self, method):
        game = grid_game(cnn(nn.ReLU()), payoff="all")
        with pytest.raises(InputError, match=r"payoff: got .* expected one number"):
            attribute(game, method, **options_of(method, game))

    def test_no_gradient(self):
        game = game_of(lambda x: SHEET(x.detach()), X)
        with pytest.raises(InputError, match="no gradient with respect to its input"):
            attribute(game, "gradient_input")

    @pytest.mark.parametrize("method", ["gradient_input", "integrated_gradients", "deep_taylor"])
    def test_ids_have_no_gradient(self, method):
        network = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2))
        ids, label = torch.tensor([[3, 4]]), torch.tensor([0])
        game = it.MaskedGame(network, ids, 0, it.UnitPlayers(), labels=label)
        with pytest.raises(InputError, match=r"game: .*torch.int64, .* ids have no gradient"):
            attribute(game, method)

    def test_a_function_of_another_shape(self):
        def wrong(game):
            return torch.zeros(1, 4)

        with pytest.raises(InputError, match=r"method: got \(1, 4\) from wrong"):
            attribute(self.game, wrong)

    def test_too_many_players(self):
        with pytest.raises(InputError, match="21 players"):
            attribute(game_of(SHEET, [0.0] * 21), "shapley")


def test_a_function_of_the_users_own():
    def ends(game, *, factor=1):
        return factor * (game.present - game.absent)

    game = game_of(SHEET, X)
    game.present.requires_grad_()
    found = attribute(game, ends, factor=2)
    close(found, tensor((4, 6, 1)))
    assert not found.requires_grad


def test_methods_are_named_after_their_functions():
    assert all(function.__name__ == name for name, function in METHODS.items())


def test_quadrature_of_a_kink():
    """|x − ⅓|, whose gradient is −1 on a third of the way: the error falls with the nodes."""
    game = game_of(lambda x: torch.cat([(x - 1 / 3).abs(), 0 * x], 1), [1.0])
    for steps in (10, 100, 1000):
        found = attribute(game, "integrated_gradients", steps=steps, check=False)
        assert abs(float(found) - 1 / 3) < 2 / steps


class TestMissedSums:
    """|x − ⅓| has a change of ⅓ over [0, 1]; its gradient is −1 at a third of the nodes."""

    game = game_of(lambda x: torch.cat([(x - 1 / 3).abs(), 0 * x], 1), [1.0])

    @pytest.mark.parametrize("method", ["integrated_gradients", "expected_gradients"])
    def test_few_steps_are_told_once(self, method):
        options = {"absents": torch.zeros(3, 1)} if method == "expected_gradients" else {}
        with pytest.warns(UserWarning, match="miss up to") as told:
            (found,) = attribute(self.game, method, steps=7, **options)
        share = abs(float(found) - 1 / 3) / float(found)
        assert share > 0.02
        assert len(told) == 1
        name = method.replace("_", " ")
        assert str(told[0].message).startswith(f"{name} miss up to {share:.1%} of Σ|a|")
        assert "steps=7" in str(told[0].message)

    def test_the_worst_sample_is_one_that_misses(self):
        """A jump has no gradient; what others have is neither a share nor rounding of it."""
        jump = game_of(lambda x: torch.cat([x.ceil(), 0 * x], 1), [1.0])
        with pytest.warns(UserWarning, match=r"miss up to inf% of"):
            attribute(jump, "integrated_gradients")

        def network(x):  # one sample with 1e9, one of rounding alone, and one with a jump of 1
            z = x[:, 0] * 1e9 + x[:, 1] * 0 + (x[:, 2] > 0.5) + x[:, 2]
            return torch.stack([z, 0 * z], 1)

        game = it.MaskedGame(
            network, torch.eye(3), 0.0, it.UnitPlayers(), labels=torch.zeros(3, dtype=torch.int64)
        )
        with pytest.warns(UserWarning, match=r"miss up to 100\.0% of"):
            attribute(game, "integrated_gradients")

    def test_many_are_not(self):
        (found,) = attribute(self.game, "integrated_gradients", steps=100)
        assert 1e-6 < abs(float(found) - 1 / 3) < 0.02 / 3


class Watched(nn.Module):
    """Counts the rows that go through a network."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.inner, self.rows = inner, []

    def forward(self, x):
        self.rows.append(len(x))
        return self.inner(x)


class TestMemory:
    """However many nodes, baselines or coalitions there are, a pass has no more rows."""

    @pytest.mark.parametrize("steps", [10, 2000])
    def test_nodes(self, steps):
        model = Watched(nn.Linear(64, 2).double())
        game = game_of(model, torch.ones(2, 64, dtype=torch.float64))
        attribute(game, "integrated_gradients", steps=steps)
        assert sum(model.rows) == 2 * steps + 2 * 2
        assert max(model.rows) <= 1024

    def test_baselines(self):
        model = Watched(nn.Linear(64, 2).double())
        game = game_of(model, torch.ones(2, 64, dtype=torch.float64))
        attribute(game, "expected_gradients", absents=torch.zeros(700, 64), steps=5)
        assert sum(model.rows) == 2 * (5 + 2) * 700
        assert max(model.rows) <= 1024

    def test_coalitions(self):
        model = Watched(cnn(nn.ReLU()))
        allocation(grid_game(model), "integrated_gradients", steps=100)
        assert sum(model.rows) == 5 * 16 * 100
        assert max(model.rows) <= 2**15 // 40
