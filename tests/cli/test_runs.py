"""``explain`` on the configurations of runs: their network, their data, their checkpoints."""

import json

import pytest
import yaml

from interaction_train.cli.main import main
from tests.testing import run_cli

SMALL = """
base: base_text.yaml
name: mine
trainer: {max_epochs: 1, enable_progress_bar: false, accelerator: cpu}
model: {init_args: {model: {init_args: {vocabulary_size: 128, width: 16}}}}
data: {init_args: {sentences: 60, max_vocabulary: 128}}
"""
TEXT = ("--text", "the plot is not good", "--accelerator", "cpu")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SMALL)
    run_cli("fit", "--config", "mine.yaml", "--wandb", "disabled")
    return tmp_path / "runs" / "mine" / "version_0"


def explained(folder, *args):
    main(["explain", *map(str, args), *TEXT, "--out", str(folder)])
    return json.loads((folder / "sentence0" / "explanation.json").read_text())


def test_its_network_and_its_checkpoint(run, tmp_path, capsys):
    best = run / "checkpoints" / "best.ckpt"
    network = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["model"]
    data = {"source": "grammar", "sentences": 60, "max_vocabulary": 128}
    own = {"model": network, "data": {"class_path": "TextDataModule", "init_args": data}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    direct = explained(tmp_path / "a", "--config", "own.yaml", "--ckpt_path", best)
    for k, config in enumerate(("mine.yaml", run / "config.yaml")):
        told = explained(tmp_path / str(k), "--config", config, "--ckpt_path", "best")
        assert told == direct
    assert "predicted class" in capsys.readouterr().out  # the grammar's classes are numbers


def test_a_config_on_top_of_a_training_one(run, tmp_path):
    (tmp_path / "two.yaml").write_text("base: mine.yaml\nckpt_path: last\nlabel: 1\n")
    told = explained(tmp_path / "out", "--config", "two.yaml")
    assert told["classes"] == ["0", "1"]
    assert told["labels"] == [1]


def test_weights_that_are_not_trained_are_told(run, tmp_path, capsys):
    explained(tmp_path / "out", "--config", "mine.yaml")
    assert "no ckpt_path, such as 'best' of runs/mine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "args", "match"),
    [
        ("base: base_text.yaml\nname: none", ["--ckpt_path", "best"], "a run in runs/none that"),
        ("trainer: {}\nmodel: {class_path: my.Module}", [], "module has no argument 'model'"),
    ],
)
def test_bad_input(content, args, match, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(SystemExit):
        main(["explain", "--config", "a.yaml", *args, *TEXT])
    assert match in capsys.readouterr().err
