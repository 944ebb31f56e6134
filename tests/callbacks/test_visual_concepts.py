"""Maps and revisions in validate and test, against the functions that make them."""

import csv
import json
import math

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import interaction_train as it
from interaction_train.callbacks import RunReport, VisualConcepts
from interaction_train.errors import InputError
from interaction_train.game.payoffs import log_odds
from interaction_train.indices import interaction_map
from interaction_train.revising import revise_image
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import images, network, trainer
from tests.testing import run_cli

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ("visual_concepts.csv", "visual_concepts_maps.png", "visual_concepts_revisions.png")


def monitor(**changes) -> VisualConcepts:
    """2 × 2 cells, 2 samples, two revisions of two steps."""
    options = {"rows": 2, "cols": 2, "n_samples": 2, "strengthen": [2], "weaken": [0, 4]}
    options |= {"layer": "features.5", "steps": 2, "map_rows": 2, "map_cols": 3, "contexts": 6}
    return VisualConcepts(**{**options, **changes})


def measured(tmp_path, net, x, y, *callbacks, command="validate"):
    run = trainer(tmp_path, callbacks=list(callbacks), logger=CSVLogger(tmp_path, name="run"))
    data = DataLoader(TensorDataset(x, y), batch_size=4)
    getattr(run, command)(InteractionClassifier(net), data, verbose=False)
    return tmp_path / "run" / "version_0"


def told_of(row, sample, m1, players):
    found = int(row["sample"]), int(row["m1"]), row["players"]
    return found == (sample, m1, " ".join(players))


@pytest.mark.parametrize(("command", "change"), [("validate", "colour"), ("test", "pixels")])
def test_files_logs_and_report_tell_what_the_functions_say(command, change, tmp_path, capsys):
    net, (x, y) = network(), images(4)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    callbacks = monitor(change=change), RunReport()
    folder = measured(tmp_path, net, x, y, *callbacks, command=command)
    result = json.loads((folder / "visual_concepts.json").read_text())
    assert (result["samples"], result["places"], result["steps"]) == (2, [0, 2], 2)
    assert result["labels"] == y[[0, 2]].tolist()
    x, y = x[[0, 2]], y[[0, 2]]
    absent = it.input_baseline(net, None, x)
    game = it.MaskedGame(net, x, absent, it.GridPlayers(2, 3), "log_odds", y)
    assert result["maps"]["orders"] == [0, 2, 4]
    assert result["maps"]["exact"] == [True, True, True]
    split = "val" if command == "validate" else "test"
    with (folder / "metrics.csv").open() as file:
        logged = {k: float(v) for row in csv.DictReader(file) for k, v in row.items() if v}
    for place, order in enumerate((0, 2, 4)):
        expected = interaction_map(game, order, 6)
        found = torch.tensor(result["maps"]["plug_in"])[:, place].double()
        assert torch.allclose(found, expected, atol=1e-5)
        key = f"{split}/visual_concepts/map/{order}"
        assert logged[key] == pytest.approx(float(expected.mean()), rel=1e-3)
    names = it.GridPlayers(2, 2).names((1, 8, 8))
    with (folder / "visual_concepts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    for m1, told in zip((0, 4), result["revisions"], strict=True):
        revision = revise_image(
            net, "features.5", x, it.GridPlayers(2, 2), 2, m1, steps=2, change=change
        )
        assert (told["m1"], told["m2"]) == (m1, 2)
        begin, sums = f"{split}/visual_concepts/{m1}_2", revision.history[:, [0, -1]].sum(0)
        first, last = sums.tolist()
        assert logged[f"{begin}/strengthened"] == pytest.approx(last[0] / first[0], rel=1e-3)
        weakened = logged[f"{begin}/weakened"]
        assert math.isnan(weakened) if m1 == 0 else weakened == pytest.approx(last[1] / first[1])
        odds = [log_odds(z, y) for z in (revision.logits, revision.revised_logits)]
        gain = float((odds[1] - odds[0]).mean())
        assert logged[f"{begin}/log_odds"] == pytest.approx(gain, rel=1e-3, abs=1e-5)
        for b, image in enumerate(told["images"]):
            assert image["sample"] == result["places"][b]
            assert image["log_odds"] == pytest.approx([float(o[b]) for o in odds], rel=1e-4)
            for k, one in enumerate(image["sets"]):
                members = [name in one["players"] for name in names]
                assert members == revision.strengthened[b, k].tolist()
                index = sum(1 << i for i, member in enumerate(members) if member)
                assert one["before"] == pytest.approx(float(revision.strengths[b, index]), rel=1e-3)
                after = float(revision.revised_strengths[b, index])
                assert one["after"] == pytest.approx(after, rel=1e-3)
                (row,) = (row for row in rows if told_of(row, image["sample"], m1, one["players"]))
                assert float(row["after"]) == pytest.approx(after, rel=1e-3)
    assert "Visual concepts, 2 × 2 grid at features.5" in capsys.readouterr().out
    assert set(NAMES) <= {path.name for path in folder.iterdir()}
    report = (folder / "report.html").read_text()
    for words in ("Visual concepts maps", "Visual concepts revisions"):
        assert words in report
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_data_that_are_normalised_and_no_pictures(tmp_path):
    """The same as pixels into a network that normalises; the layer keeps its name."""
    statistics = {"mean": (0.3, 0.4), "std": (0.2, 0.3)}
    with torch.random.fork_rng():
        net = it.models.DigitsNet(in_channels=2, width=4, **statistics)
    x = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    y, options = torch.arange(4), {"n_samples": 1, "weaken": [4], "change": "pixels"}
    folders = [measured(tmp_path / "a", net, x, y, monitor(**options))]
    moved, net.normalize = net.normalize(x), nn.Identity()
    watching = monitor(**options, normalization=statistics)
    folders.append(measured(tmp_path / "b", net, moved, y, watching))
    results = [json.loads((f / "visual_concepts.json").read_text()) for f in folders]
    assert not any(list(folder.glob("*.png")) for folder in folders)
    assert math.isnan(results[0]["revisions"][0]["strengthened"]["stderr"])
    one, other = (result["revisions"][0]["images"][0] for result in results)
    assert other["strengthened"] == pytest.approx(one["strengthened"], rel=1e-3)
    assert [s["players"] for s in other["sets"]] == [s["players"] for s in one["sets"]]


def test_from_the_command_line(tmp_path, capsys):
    run_cli(
        "validate", "--config", "visual_concepts_digits.yaml", "--wandb", "disabled",
        "--trainer.default_root_dir", str(tmp_path), "--trainer.callbacks.init_args.n_samples",
        "1", "--trainer.callbacks.init_args.steps", "3",
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert "Visual concepts, 3 × 3 grid at features.5, by colour" in shown
    folder = tmp_path / "visual_concepts_digits" / "version_0"
    names = {path.name for path in folder.iterdir()}
    assert {*NAMES, "visual_concepts.json"} <= names
    with Image.open(folder / "visual_concepts_revisions.png") as image:
        assert image.size[0] > 2 * image.size[1]  # five columns, one row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "n_samples: got 0"),
        ({"steps": 0}, "steps: got 0"),
        ({"weight": -0.1}, "weight: got -0.1"),
        ({"contexts": 1}, "contexts: got 1"),
        ({"strengthen": []}, "strengthen: got none"),
        ({"weaken": [4, 10]}, "weaken: got 10 besides 2"),
        ({"weaken": [4, 4]}, "strengthen: got .* each number once"),
        ({"strengthen": [12]}, "strengthen: got 12"),
        ({"rows": 4, "cols": 5}, "rows: got 4 x 5 cells, expected at most 16"),
        ({"change": "hue"}, "change: got 'hue'"),
        ({"payoff": "all"}, "payoff: got 'all'"),
        ({"map_rows": 1, "map_cols": 1}, "map_rows: got 1 x 1 cells"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        monitor(**options)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (network(), "layer: got 'fature.5', expected .*features.5"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "layer: got 'fature.5'"),
    ],
)
def test_a_wrong_layer_is_refused_before_training(net, message, tmp_path):
    run = trainer(tmp_path, max_epochs=1, callbacks=[monitor(layer="fature.5")])
    data = DataLoader(TensorDataset(*images(6)), batch_size=3)
    with pytest.raises(InputError, match=message):
        run.fit(InteractionClassifier(net), data, data)


def test_a_missing_baseline_is_refused_before_training(tmp_path):
    run = trainer(tmp_path, max_epochs=1, callbacks=[monitor(layer="1")])
    data = DataLoader(TensorDataset(*images(6)), batch_size=3)
    with pytest.raises(InputError, match="baseline: got None for VisualConcepts"):
        run.fit(InteractionClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), data, data)
