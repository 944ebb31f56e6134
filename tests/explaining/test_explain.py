"""What explain() accepts, finds and leaves alone."""

import copy
import io
import itertools
import json
import math
import pickle

import numpy as np
import pytest
import torch
from rich.console import Console
from shapiq.game_theory.exact import ExactComputer
from sklearn.datasets import load_wine
from torch import nn

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.explaining import progress
from interaction_train.explaining.explain import explain
from interaction_train.game.segments import SegmentPlayers
from interaction_train.game.tabular import FeaturePlayers

from .networks import ImageNet, Reader, filled, images, sine

BASELINE = torch.tensor([0.4, 0.5, 0.6])[:, None, None].double()  # as a Normalize has it


def log_odds(logits, label):
    p = torch.softmax(logits.double(), -1)[label]
    return math.log(float(p)) - math.log1p(-float(p))


def computer(value, n):
    """shapiq's exact indices of a function of a bool row."""

    def game(coalitions):
        return np.array([value(row) for row in coalitions.tolist()])

    return ExactComputer(game, n_players=n)


def assert_same_as_shapiq(explanation, sample, value):
    exact = computer(value, explanation.n)
    values, pairs = exact("SV", 1), exact("SII", 2)
    for i in range(explanation.n):
        assert float(explanation.shapley[sample, i]) == pytest.approx(values[(i,)], abs=1e-9)
    for i, j in itertools.combinations(range(explanation.n), 2):
        assert float(explanation.pairs[sample, i, j]) == pytest.approx(pairs[(i, j)], abs=1e-9)
        assert float(explanation.pairs[sample, j, i]) == pytest.approx(pairs[(i, j)], abs=1e-9)
    assert float(explanation.full[sample]) == pytest.approx(value([True] * explanation.n))
    assert float(explanation.empty[sample]) == pytest.approx(value([False] * explanation.n))
    assert explanation.pairs[sample].abs().max() > 1e-3  # there is something to compare


class TestImages:
    def test_against_shapiq(self):
        model, x = ImageNet(), images(2)
        found = explain(model, x, [1, 3], "grid:2x3")
        assert found.exact
        assert found.evaluations == 64
        assert found.values.shape == (2, 64)

        frozen = copy.deepcopy(model).eval()
        for sample, label in ((0, 1), (1, 3)):

            def value(present, sample=sample, label=label):
                masked = BASELINE.expand(3, 6, 6).clone()
                for k, here in enumerate(present):
                    r, c = slice(k // 3 * 3, k // 3 * 3 + 3), slice(k % 3 * 2, k % 3 * 2 + 2)
                    if here:
                        masked[:, r, c] = x[sample, :, r, c]
                with torch.no_grad():
                    return log_odds(frozen(masked[None])[0], label)

            assert_same_as_shapiq(found, sample, value)

    def test_attributes(self):
        x = images(2)
        found = explain(ImageNet(), x, players="grid:2x2", classes=list("abcd"), network="mine")
        assert torch.equal(found.x, x)
        assert found.names == ("r0c0", "r0c1", "r1c0", "r1c1")
        assert torch.equal(found.labels, ImageNet().eval()(x).argmax(1))
        assert found.title(0) == f"mine, {'abcd'[found.labels[0]]}, log odds"
        assert found.cells(1).tolist() == it.GridPlayers(2, 2).cells((6, 6)).tolist()
        assert (len(found), found.n, found.payoff) == (2, 4, "log_odds")
        text = "Explanation(mine, log_odds, 2 samples, 4 players, exact from 16 evaluations each)"
        assert repr(found) == text
        for name in ("shapley", "pairs"):
            assert float(getattr(found, f"{name}_stderr").abs().max()) == 0
            assert getattr(found, name).dtype == torch.float64
        torch.testing.assert_close(found.shapley.sum(1), found.full - found.empty)

    def test_one_image_is_a_batch_of_one(self):
        x = images(3)
        whole = explain(ImageNet(), x, [0, 1, 2], "grid:2x2")
        alone = explain(ImageNet(), x[1], 1, "grid:2x2")
        assert alone.x.shape == (1, 3, 6, 6)
        torch.testing.assert_close(alone.values[0], whole.values[1])
        torch.testing.assert_close(alone.pairs[0], whole.pairs[1])

    def test_segments_of_each_image(self):
        maps = torch.zeros(2, 6, 6, dtype=torch.int64)
        maps[0, :, 3:], maps[1, 2:, :2], maps[1, 4:, 2:] = 8, 5, 6
        found = explain(ImageNet(), images(2), 2, SegmentPlayers(maps), chunk_size=3)
        single = explain(ImageNet(), images(2)[1], 2, SegmentPlayers(maps[1]))
        torch.testing.assert_close(found.values[1], single.values[0])
        # The first image has two segments; its third player is a dummy.
        assert float(found.shapley[0, 2].abs()) < 1e-12
        assert float(found.pairs[0, 2].abs().max()) < 1e-12
        assert found.cells(0).unique().tolist() == [0, 1]
        assert found.cells(1).unique().tolist() == [0, 1, 2]
        assert found.cells(-1).shape == (6, 6)

    @pytest.mark.parametrize("baseline", [0.25, [0.1, 0.2, 0.3], np.full((6, 6), 0.5)])
    def test_baselines(self, baseline):
        x = images(2)
        found = explain(ImageNet(), x, 0, "grid:2x2", baseline=baseline, payoff="logit")
        absent = torch.as_tensor(baseline, dtype=torch.float64)
        absent = absent[:, None, None] if absent.dim() == 1 else absent
        expected = ImageNet().eval()(absent.expand(1, 3, 6, 6))[0, 0]
        torch.testing.assert_close(found.empty, expected.detach().expand(2))
        torch.testing.assert_close(found.full, ImageNet().eval()(x)[:, 0].detach())

    def test_the_model_is_left_alone(self):
        model = ImageNet(torch.float32)
        model[4].eval()
        modes = [m.training for m in model.modules()]
        state = copy.deepcopy(model.state_dict())
        before = torch.get_rng_state()
        explain(model, images(2, torch.float32), players="grid:2x2")
        explain(model, images(2, torch.float32), players="grid:3x3", budget=400).order(3)
        assert [m.training for m in model.modules()] == modes
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("budget", [2**9, 400])
def test_inputs_go_where_the_network_is(budget):
    """From the CPU to the GPU, and what is found comes back."""
    maps = torch.arange(36).view(6, 6) % 9
    options = {"budget": budget, "baseline": [0.4, 0.5, 0.6]}
    here = explain(ImageNet(), images(2), [0, 1], SegmentPlayers(maps), **options)
    model = ImageNet().cuda()
    there = explain(model, images(2), [0, 1], SegmentPlayers(maps), **options)
    for name in ("x", "labels", "shapley", "shapley_stderr", "pairs", "pairs_stderr", "full"):
        torch.testing.assert_close(getattr(there, name), getattr(here, name))
    torch.testing.assert_close(there.order(2), here.order(2))
    assert there.cells(0).device.type == "cpu"
    assert {p.device.type for p in model.parameters()} == {"cuda"}


class TestTokens:
    ids = torch.tensor([[3, 7, 7, 1, 12], [19, 2, 4, 4, 8]])

    def test_against_shapiq(self):
        model = Reader()
        found = explain(model, self.ids, [0, 2], "tokens", baseline=0)
        assert found.names == ("token 0", "token 1", "token 2", "token 3", "token 4")
        assert found.network == "Reader"
        named = explain(it.logits_of(model, "logits"), self.ids, [0, 2], "tokens", baseline=0)
        assert named.network == "Reader"
        torch.testing.assert_close(named.values, found.values)
        assert found.cells() is None
        for sample, label in ((0, 0), (1, 2)):

            def value(present, sample=sample, label=label):
                ids = [int(t) * here for t, here in zip(self.ids[sample], present, strict=True)]
                with torch.no_grad():
                    return log_odds(model(torch.tensor([ids])).logits[0], label)

            assert_same_as_shapiq(found, sample, value)

    def test_one_sequence_and_words(self):
        words = ["an", "apple", ",", "a", "pear"]
        found = explain(Reader(), self.ids[0], 0, "tokens", baseline=0, names=words)
        whole = explain(Reader(), self.ids, 0, "tokens", baseline=0)
        torch.testing.assert_close(found.values[0], whole.values[0])
        assert found.names == tuple(words)

    def test_embeddings(self):
        model = Reader()
        embedded = model.embedding(self.ids).detach()
        mask = model.embedding(torch.tensor(0)).detach()
        found = explain(model, embedded, 1, "tokens", baseline=mask)
        whole = explain(model, self.ids, 1, "tokens", baseline=0)
        torch.testing.assert_close(found.values, whole.values)
        alone = explain(model, embedded[1], 1, "tokens", baseline=mask)
        torch.testing.assert_close(alone.values[0], whole.values[1])

    def test_a_padding_token_is_a_dummy(self):
        ids = torch.tensor([5, 0, 9, 11])
        found = explain(Reader(), ids, 1, "tokens", baseline=0)
        assert float(found.shapley[0, 1]) == pytest.approx(0, abs=1e-12)
        assert float(found.pairs[0, 1].abs().max()) < 1e-12
        assert float(found.pairs[0, 0, 2].abs()) > 1e-3


class TestFeatures:
    data = load_wine()
    x = torch.tensor((data.data - data.data.mean(0)) / data.data.std(0), dtype=torch.float32)

    def model(self):
        """An MLP that has learnt the data a little, in a fixed way."""
        model = filled(nn.Sequential(nn.Linear(13, 12), nn.Tanh(), nn.Linear(12, 3)), scale=0.3)
        y = torch.tensor(self.data.target)
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(self.x), y).backward()
            optimizer.step()
        return model

    def test_against_shapiq(self):
        model, names = self.model(), self.data.feature_names
        groups = {"colour": [9, 10, 11], "acid": [1], "rest": [0, 2, 3, 4, 5, 6, 7, 8, 12]}
        players = FeaturePlayers(groups, names)
        mean = self.x.mean(0)
        found = explain(model.double(), self.x[[0, 100]].double(), [0, 1], players, baseline=mean)
        assert found.names == ("colour", "acid", "rest")

        def value(present):
            row = mean.double().clone()
            for columns, here in zip(groups.values(), present, strict=True):
                if here:
                    row[columns] = self.x[100, columns].double()
            with torch.no_grad():
                return log_odds(model(row[None])[0], 1)

        assert_same_as_shapiq(found, 1, value)

    def test_all_columns_of_one_row(self):
        found = explain(
            self.model(), self.x[3], players="features", baseline=self.x.mean(0).numpy()
        )
        assert found.evaluations == 2**13
        assert found.names[:2] == ("x0", "x1")
        assert int(found.labels) == self.data.target[3]
        assert float(found.shapley.sum()) == pytest.approx(float(found.full - found.empty))

    def test_regression(self):
        """One output, read by the user's own payoff."""

        def height(values, labels):
            return values[..., 0]

        model = nn.Linear(3, 1)
        found = explain(model, torch.ones(3), players="features", baseline=0.0, payoff=height)
        torch.testing.assert_close(found.shapley[0].float(), model.weight[0].detach())
        assert found.payoff == "height"


def test_functions_are_networks_too():
    found = explain(sine, torch.ones(2, 3), 0, "features", baseline=0.0, payoff="logit")
    assert found.network == "sine"
    assert float(found.full[0]) == pytest.approx(math.sin(0.2 + 0.65 + 1.1) + 1, abs=1e-6)


def test_other_players_take_batches():
    with pytest.raises(InputError, match="x: got shape"):
        explain(sine, torch.ones(3), 0, it.UnitPlayers(), baseline=0.0)
    found = explain(sine, torch.ones(2, 3), 0, it.UnitPlayers(), baseline=0.0)
    assert found.names == ("unit 0", "unit 1", "unit 2")


def test_names_of_classes_and_players_come_in_any_form():
    shown = dict(enumerate(["cat", "dog", "eel", "fox"]))
    for classes in (shown, list(shown.values()), np.array(list(shown.values()))):
        names = (name for name in "abcd")
        found = explain(ImageNet(), images(1), 2, "grid:2x2", names=names, classes=classes)
        assert found.names == tuple("abcd")
        assert "eel" in found.title()
        assert json.loads(found.to_json())["classes"] == ["cat", "dog", "eel", "fox"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("argument", "changes"),
        [
            ("budget", {"budget": 2000.5}),
            ("chunk_size", {"chunk_size": 1.5}),
            ("classes", {"classes": {1: "cat", 2: "dog", 3: "eel", 4: "fox"}}),
            ("classes", {"classes": "abcd"}),
            ("names", {"names": 4}),
            ("payoff", {"payoff": ["logit"]}),
            ("players", {"players": "grid:4"}),
            ("players", {"players": "grid:0x3"}),
            ("players", {"players": "superpixels"}),
            ("players", {"players": 4}),
            ("players", {"players": "grid:9x9"}),
            ("players", {"players": "grid:1x1"}),
            ("x", {"x": np.zeros((3, 6, 6))}),
            ("x", {"x": torch.zeros(6, 6)}),
            ("x", {"x": torch.zeros(0, 3, 6, 6)}),
            ("x", {"x": torch.zeros(3, 6, 6, dtype=torch.uint8)}),
            ("y", {"y": 4}),
            ("y", {"y": -1}),
            ("y", {"y": [0, 1, 2]}),
            ("y", {"y": "cat"}),
            ("y", {"y": 1.0}),
            ("y", {"y": True}),
            ("baseline", {"baseline": [0.1, 0.2]}),
            ("baseline", {"baseline": torch.zeros(2, 6)}),
            ("baseline", {"baseline": "mean"}),
            ("baseline", {"baseline": math.nan}),
            ("baseline", {"players": "features", "x": torch.ones(4)}),
            ("baseline", {"players": "tokens", "x": torch.ones(4, dtype=torch.int64)}),
            (
                "baseline",
                {"players": "tokens", "x": torch.ones(4, dtype=torch.int64), "baseline": 0.5},
            ),
            ("payoff", {"payoff": "all"}),
            (
                "baseline",
                {"x": torch.zeros(3, 6, 6, dtype=torch.uint8), "baseline": [0, 1, 300]},
            ),
            ("baseline", {"baseline": 1j}),
            ("payoff", {"payoff": "odds"}),
            ("payoff", {"payoff": lambda logits, labels: logits[:, 0]}),
            ("payoff", {"payoff": lambda logits, labels: logits.sum()}),
            ("payoff", {"payoff": lambda logits, labels: logits[..., 0] > 0}),
            ("payoff", {"payoff": lambda logits, labels: logits.argmax(-1)}),
            ("payoff", {"payoff": lambda logits, labels: 1.0}),
            ("payoff", {"payoff": lambda logits, labels: logits}),
            ("names", {"names": ["a", "b"]}),
            ("names", {"names": "abcd"}),
            ("classes", {"classes": ["a", "b"]}),
            ("budget", {"budget": 0}),
            ("budget", {"players": "grid:6x6", "budget": 1000}),
            ("chunk_size", {"chunk_size": 0}),
            ("chunk_size", {"chunk_size": -1}),
            ("model", {"model": None, "baseline": 0.5}),
            ("model", {"model": nn.Identity(), "baseline": 0.5}),
        ],
    )
    def test_is_named(self, argument, changes):
        given = {"model": ImageNet(), "x": images(2), "players": "grid:2x2", **changes}
        with pytest.raises(InputError) as refused:
            explain(**given)
        assert refused.value.argument == argument

    def test_one_sample(self):
        """Numbers of samples and orders are whole ones, also where a tensor or NumPy has them."""
        found = explain(ImageNet(), images(3), None, "grid:2x2")
        for two in (2, np.int64(2), torch.tensor(2)):
            assert found.top(1, sample=two).equals(found.top(1, sample=2))
            assert torch.equal(found.order(two), found.order(2))
        with pytest.raises(InputError, match=r"sample: got 1\.5"):
            found.top(1, sample=1.5)
        with pytest.raises(InputError, match=r"m: got 1\.5"):
            found.order(1.5)

    def test_probabilities(self):
        model = nn.Sequential(ImageNet(), nn.Softmax(1))
        with pytest.raises(InputError, match="look like probabilities"):
            explain(model, images(1), 0, "grid:2x2")
        assert explain(model, images(1), 0, "grid:2x2", payoff="logit").full <= 1

    def test_the_least_budget_is_told(self):
        """Of few players, all coalitions cost less than samples do."""
        x = torch.rand(5, generator=torch.Generator().manual_seed(0))
        with pytest.raises(InputError, match="expected at least 32 evaluations"):
            explain(sine, x, 0, "features", baseline=0.0, budget=31)
        assert explain(sine, x, 0, "features", baseline=0.0, budget=32).exact
        x = torch.rand(10, generator=torch.Generator().manual_seed(0))
        with pytest.raises(InputError, match="expected at least 132 evaluations"):
            explain(sine, x, 0, "features", baseline=0.0, budget=131)
        assert not explain(sine, x, 0, "features", baseline=0.0, budget=132).exact

    def test_no_normalize(self):
        with pytest.raises(InputError, match="baseline: got None"):
            explain(nn.Sequential(*[*ImageNet()][1:]), images(1), 0, "grid:2x2")

    @pytest.mark.parametrize("sample", [2, -3])
    def test_samples(self, sample):
        found = explain(ImageNet(), images(2), 0, "grid:2x2")
        for method in (found.title, found.cells, found.to_shapiq):
            with pytest.raises(InputError, match="sample: got"):
                method(sample)


class TestProgress:
    @pytest.fixture
    def terminal(self, monkeypatch):
        stream = io.StringIO()

        def console(**_):
            return Console(file=stream, force_terminal=True, width=80)

        monkeypatch.setattr(progress, "Console", console)
        return stream

    def test_short_work_shows_nothing(self, terminal, capfd):
        explain(ImageNet(), images(1), players="grid:2x2")
        assert terminal.getvalue() == ""
        assert capfd.readouterr() == ("", "")

    def test_long_work_shows_a_bar(self, terminal, monkeypatch):
        monkeypatch.setattr(progress, "_PATIENCE", 0.0)
        explain(ImageNet(), images(1), players="grid:2x2")
        assert "all coalitions" in terminal.getvalue()
        assert "100%" in terminal.getvalue()

    def test_off_and_on(self, terminal, monkeypatch):
        explain(ImageNet(), images(1), players="grid:3x3", budget=400, progress=True)
        assert "values, pairs" in terminal.getvalue()
        assert "100%" in terminal.getvalue()
        shown = terminal.getvalue()
        monkeypatch.setattr(progress, "_PATIENCE", 0.0)
        explain(ImageNet(), images(1), players="grid:3x3", budget=400, progress=False).order(3)
        assert terminal.getvalue() == shown

    def test_every_row_is_counted(self):
        """While the work goes on, not at its end."""
        seen = []
        game = it.MaskedGame(ImageNet(), images(3), 0.3, it.GridPlayers(2, 2), "all",
                             chunk_size=5, progress=seen.append)  # fmt: skip
        it.exact_values(game)
        assert sum(seen) == 3 * 16
        assert max(seen) <= 5

    def test_beside_another_bar(self, terminal, monkeypatch):
        monkeypatch.setattr(progress, "_PATIENCE", 0.0)
        console = Console(file=io.StringIO(), force_terminal=True)
        with console.status("training"):
            explain(ImageNet(), images(1), players="grid:2x2")


def test_pickles_without_the_network():
    exact = explain(ImageNet(), images(1), players="grid:2x2")
    again = pickle.loads(pickle.dumps(exact))
    assert torch.equal(again.order(1), exact.order(1))
    sampled = explain(ImageNet(), images(1), players="grid:3x3", budget=400)
    again = pickle.loads(pickle.dumps(sampled))
    assert torch.equal(again.pairs, sampled.pairs)
    with pytest.raises(InputError, match="pickle"):
        again.order(3)
