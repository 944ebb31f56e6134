"""Monitors of games whose players are no cells: columns of a table, words."""

import json

import pytest
import torch

import interaction_train as it
from interaction_train.callbacks import ExactInteractions, SpectrumMonitor
from interaction_train.data import TableDataModule, TextDataModule
from interaction_train.errors import InputError
from interaction_train.indices.exact import order_strengths
from interaction_train.models import TableMLP, TextTransformer
from tests.metrics.watch import trainer

pytestmark = pytest.mark.filterwarnings("ignore")
RATIOS = [0.0, 0.5, 1.0]


def validated(tmp_path, model, data, *callbacks, job="validate"):
    data.setup()
    module = it.InteractionClassifier(model, data.num_classes)
    getattr(trainer(tmp_path, callbacks=list(callbacks)), job)(module, datamodule=data)


def wine():
    data = TableDataModule("wine")
    data.setup()
    mean, std = data.feature_mean.tolist(), data.feature_std.tolist()
    torch.manual_seed(0)
    return data, TableMLP(13, 3, mean=mean, std=std)


def test_spectrum_of_columns_is_the_metric_s(tmp_path, capsys):
    data, model = wine()
    settings = {"ratios": RATIOS, "contexts": 4, "pairs": it.AllPairs(), "only_correct": False}
    monitor = SpectrumMonitor(players=it.FeaturePlayers(), n_samples=6, **settings)
    validated(tmp_path, model, data, monitor)
    told = json.loads((tmp_path / "results_0" / "spectrum.json").read_text())
    assert (told["players"], told["orders"]) == (13, [0, 6, 11])
    part = data.parts["val"]
    places = torch.tensor([i * len(part) // 6 for i in range(6)])
    metric = it.InteractionSpectrum(it.FeaturePlayers(), "log_odds", **settings)
    metric.update(model.eval(), part.inputs(places, None), part.labels[places])
    assert told["J_plug_in"] == pytest.approx(metric.compute()["J_plug_in"].tolist())
    assert "FeaturePlayers(every column)" in capsys.readouterr().out


def test_exact_interactions_of_columns(tmp_path, capsys):
    data, model = wine()
    groups = {"a": list(range(5)), "b": [5, 6], "c": [7, 8, 9], "d": [10, 11, 12]}
    players = it.FeaturePlayers(groups)
    exact = ExactInteractions(players=players, n_samples=4)
    validated(tmp_path, model, data, exact, job="test")
    told = json.loads((tmp_path / "results_0" / "summary.json").read_text())
    part = data.parts["test"]
    places = torch.tensor([i * len(part) // 4 for i in range(4)])
    x, y = part.inputs(places, None), part.labels[places]
    mean = it.input_baseline(model, None, x)
    values = it.exact_values(it.MaskedGame(model, x, mean, players, "log_odds", y))
    strengths = order_strengths(it.multi_order_interactions(values))
    assert told["J"]["value"] == pytest.approx((strengths / strengths.mean()).tolist(), rel=1e-4)
    assert "mean |I|, 4 players" in capsys.readouterr().out


def test_spectrum_of_words(tmp_path):
    rows = [
        f"{a} {b} {c}\t{int(c == 'bad')}" for a in "xyzuvw" for b in "pqr" for c in ("bad", "ok")
    ]
    (tmp_path / "short.tsv").write_text("\n".join(["text\tlabel", *rows]))
    data = TextDataModule(tmp_path / "short.tsv", pad_multiple=1)
    torch.manual_seed(0)
    monitor = SpectrumMonitor(
        players=it.TokenPlayers(), n_samples=2, ratios=[0.0, 1.0], contexts=4, only_correct=False
    )
    validated(tmp_path, TextTransformer(64, width=16), data, monitor)
    told = json.loads((tmp_path / "results_0" / "spectrum.json").read_text())
    assert (told["players"], told["orders"]) == (3, [0, 1])
    assert sum(told["J_plug_in"]) == pytest.approx(2)


def test_the_reference_grid_is_a_grid_s():
    with pytest.raises(InputError, match="ratios: got None"):
        SpectrumMonitor(players=it.FeaturePlayers(), ratios=None)
