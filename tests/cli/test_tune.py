"""``tune-attack`` on the command line, and what other commands make of its winner."""

import sys

import pytest
import yaml

from interaction_train.cli.main import main
from tests.testing import run_cli


def tune(folder, *args):
    main(["tune-attack", "--config", "tune_digits.yaml", "--accelerator", "cpu", "--trials", "3",
          "--images", "24", "--confirm", "24", "--folder", str(folder), *args])  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_a_winner_is_found_and_used(tmp_path, capsys, monkeypatch):
    tune(tmp_path / "tuned")
    out = capsys.readouterr().out
    assert "3/3" in out
    assert "winner" in out
    winner = tmp_path / "tuned" / "winner.yaml"
    settings = yaml.safe_load(winner.read_text())["init_args"]
    assert settings["eps"] == 0.15
    run_cli("predict", "--config", "attack_ir_digits.yaml", "--model.attack", str(winner),
            "--wandb", "disabled", "--trainer.default_root_dir", str(tmp_path),
            "--trainer.limit_predict_batches", "1")  # fmt: skip
    assert "white-box success" in capsys.readouterr().out
    (tmp_path / "own.yaml").write_text(
        "base: transfer_digits.yaml\nmodel:\n  init_args:\n    leave_out: null\n"
        "    attacks: {W: tuned/winner.yaml}\n"
    )
    monkeypatch.chdir(tmp_path)
    run_cli("test", "--config", "own.yaml", "--wandb", "disabled",
            "--trainer.limit_test_batches", "1", "--data.batch_size", "8")  # fmt: skip
    assert "│ cnn    │ W " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--passes", "none"], "passes"),
        (["--space.Momentun", "{}"], "space"),
        (["--space", "{Momentum: {dekay: 1}}"], "dekay"),
        (["--networks", "{a: {class_path: DigitsNett}}"], "DigitsNett"),
        (["--nothing", "1"], "nothing"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_bad_input_is_one_line(args, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        tune(tmp_path, *args)
    assert done.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("interaction")]
    assert said in line


def test_without_optuna(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit) as done:
        tune(tmp_path)
    assert done.value.code == 2
    assert "pip install 'interaction-train[tune]'" in capsys.readouterr().err
