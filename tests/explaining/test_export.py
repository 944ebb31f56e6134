"""Explanations as tables, as JSON and as what shapiq's own plots draw."""

import itertools
import json
import sys

import matplotlib as mpl
import numpy as np
import pytest
import shapiq
import torch
from matplotlib import pyplot as plt
from shapiq.game_theory.exact import ExactComputer

from interaction_train.concepts.concepts import Concepts
from interaction_train.errors import InputError
from interaction_train.explaining.explain import explain

from .networks import sine

NAMES = ["age", "sex", "bmi", "map", "tc", "glu"]
X = torch.tensor(
    [[1.0, 0.5, -1.0, 2.0, 0.3, -0.4], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], dtype=torch.float64
)


def explained(**changes):
    options = {"players": "features", "baseline": 0.0, "names": NAMES, **changes}
    return explain(sine, X, 0, **options)


def logit(coalitions, sample=0):
    """The game of a sample, the log odds of class 0, written without masks."""
    z = sine(torch.as_tensor(coalitions) * X[sample])[:, 0]
    return z.numpy()


class TestTables:
    def test_to_frame(self):
        found = explained()
        frame = found.to_frame()
        assert list(frame.columns) == ["sample", "order", "players", "value", "stderr"]
        assert len(frame) == 2 * (6 + 15)
        for row in frame.itertuples():
            names = row.players.split(" & ")
            i, *j = map(NAMES.index, names)
            values = found.pairs[row.sample, i] if j else found.shapley[row.sample]
            assert len(names) == row.order
            assert row.value == float(values[j[0] if j else i])
        pairs = frame[(frame["order"] == 2) & (frame["sample"] == 1)].players
        assert set(pairs) == {" & ".join(pair) for pair in itertools.combinations(NAMES, 2)}

    def test_errors_are_told(self):
        found = explained(budget=60)
        assert not found.exact
        frame = found.to_frame()
        first = frame[frame["sample"] == 0]
        values, pairs = (first[first["order"] == k].stderr.tolist() for k in (1, 2))
        assert values == found.shapley_stderr[0].tolist()
        upper = torch.triu_indices(6, 6, 1)
        assert pairs == found.pairs_stderr[0, upper[0], upper[1]].tolist()
        assert max(values) > 0
        assert max(pairs) > 0

    def test_top(self):
        found = explained()
        pairs = found.top(3, sample=1)
        assert list(pairs.columns) == ["players", "value", "stderr"]
        frame = found.to_frame()
        every = frame[(frame["sample"] == 1) & (frame["order"] == 2)].value.abs()
        assert pairs.value.abs().tolist() == sorted(every, reverse=True)[:3]
        i, j = map(NAMES.index, pairs.players[0].split(" & "))
        assert pairs.value[0] == float(found.pairs[1, i, j])
        players = found.top(kind="players")
        assert sorted(players.players) == sorted(NAMES)
        assert players.value.abs().is_monotonic_decreasing

    def test_top_concepts(self):
        found = explained()
        and_, or_ = torch.zeros(2, 2, 64)
        and_[1, 0b00001], and_[1, 0b10010], or_[1, 0b01100] = 1.0, -3.0, 2.0
        nothing = torch.zeros(2)
        found._concepts["[]"] = Concepts(
            and_, or_, nothing, nothing, nothing, nothing, nothing.long(), nothing == 0
        )
        top = found.top(kind="concepts", sample=1)
        assert top.kind.tolist() == ["AND", "OR", "AND"]
        assert top.players.tolist() == ["sex & tc", "bmi & map", "age"]
        assert top.value.tolist() == [-3, 2, 1]

    def test_bad_input(self):
        for argument, changes in (
            ("k", {"k": 0}), ("kind", {"kind": "triples"}), ("sample", {"sample": 2}),
            ("settings", {"noise": 0.1}),
        ):  # fmt: skip
            with pytest.raises(InputError, match=f"{argument}: got"):
                explained().top(**changes)


class TestJson:
    def test_exact(self, tmp_path):
        found = explained(classes=["yes", "no"])
        text = found.to_json(tmp_path / "found.json")
        content = json.loads(text)
        assert json.loads((tmp_path / "found.json").read_text()) == content
        assert content["names"] == NAMES
        assert content["labels"] == [0, 0]
        assert content["classes"] == ["yes", "no"]
        assert content["network"] == "sine"
        for name in ("values", "shapley", "pairs", "empty", "full"):
            assert content[name] == getattr(found, name).tolist()

    def test_sampled(self):
        content = json.loads(explained(budget=60).to_json())
        assert content["values"] is None
        assert content["exact"] is False
        assert 0 < content["evaluations"] <= 60


class TestShapiq:
    @pytest.mark.parametrize("index", ["SV", "SII", "k-SII", "Moebius"])
    @pytest.mark.parametrize("sample", [0, 1])
    def test_against_its_own_computer(self, index, sample):
        order = {"SV": 1, "Moebius": 6}.get(index, 2)
        computer = ExactComputer(lambda c: logit(c, sample), n_players=6)
        expected = computer(index, order)
        found = explained().to_shapiq(sample, index)
        assert (found.index, found.max_order, found.n_players) == (index, order, 6)
        assert not found.estimated
        for size in range(1, order + 1):
            for members in itertools.combinations(range(6), size):
                assert found[members] == pytest.approx(expected[members], abs=1e-9)
        assert found.baseline_value == pytest.approx(float(logit(np.zeros((1, 6)))[0]))

    def test_k_sii_and_dividends_sum_to_the_output(self):
        found = explained()
        for index in ("SV", "k-SII", "Moebius"):
            values = found.to_shapiq(0, index).dict_values
            total = sum(value for members, value in values.items() if members)
            assert total == pytest.approx(float(found.full[0] - found.empty[0]))

    @pytest.mark.parametrize("index", ["SII", "k-SII", "Moebius"])
    @pytest.mark.parametrize("plot", ["network", "si_graph", "force", "upset", "stacked_bar"])
    def test_its_plots(self, index, plot, tmp_path):
        values = explained().to_shapiq(0, index)
        options = {} if plot == "stacked_bar" else {"feature_names": NAMES}
        with mpl.rc_context({"backend": "agg"}):
            drawn = getattr(values, f"plot_{plot}")(show=False, **options)
            assert drawn is not None
            plt.gcf().savefig(tmp_path / "plot.png")
            assert (tmp_path / "plot.png").stat().st_size > 2000
            plt.close("all")

    def test_its_plots_of_attributions(self):
        values = explained().to_shapiq(0, "SV")
        with mpl.rc_context({"backend": "agg"}):
            assert values.plot_sentence(NAMES, show=False) is not None
            assert shapiq.bar_plot([values], feature_names=NAMES, show=False) is not None
            plt.close("all")

    def test_its_file_comes_back(self, tmp_path):
        values = explained().to_shapiq()
        values.save(tmp_path / "values.json")
        again = shapiq.InteractionValues.load(tmp_path / "values.json")
        assert again[(0, 1)] == values[(0, 1)]

    def test_sampled(self):
        found = explained(budget=60)
        values = found.to_shapiq()
        assert values.estimated
        assert values.estimation_budget == found.evaluations
        assert values[(1, 3)] == float(found.pairs[0, 1, 3])
        with pytest.raises(InputError, match="explanation: got one sampled of 6 players"):
            found.to_shapiq(index="Moebius")

    def test_bad_input(self, monkeypatch):
        with pytest.raises(InputError, match="index: got 'FSII'"):
            explained().to_shapiq(index="FSII")
        monkeypatch.setitem(sys.modules, "shapiq", None)
        with pytest.raises(InputError, match="pip install shapiq"):
            explained().to_shapiq()
