import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from interaction_train import __version__
from interaction_train.module import InteractionClassifier
from tests.helpers import run_cli, wandb_history, weights

ROOT = Path(__file__).parent.parent


def fit(folder: Path, *args: str) -> Path:
    """Train the main job in this process; returns the folder of the run."""
    before = set(folder.glob("digits/version_*"))
    run_cli(
        "fit", "--config", "digits.yaml", "--trainer.default_root_dir", str(folder),
        "--test_after_fit", "false", "--wandb", "disabled", *args,
    )  # fmt: skip
    return (set(folder.glob("digits/version_*")) - before).pop()


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(run: Path) -> list[tuple[int, float]]:
    return [
        (int(row["step"]), float(row["train/loss"])) for row in metrics(run) if row["train/loss"]
    ]


def test_main_job_leaves_everything_in_its_folder(tmp_path, capsys):
    for config in ("digits_plain.yaml", "digits.yaml"):
        run_cli(
            "fit", "--config", config, "--trainer.default_root_dir", str(tmp_path),
            "--trainer.max_epochs", "3",
        )  # fmt: skip
    run = tmp_path / "digits" / "version_0"
    names = {"metrics.csv", "config.yaml", "interactions.png", "summary.json"}
    assert names <= {path.name for path in run.iterdir()}
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    summary = json.loads((run / "summary.json").read_text())
    plain = json.loads((tmp_path / "digits_plain" / "version_0" / "summary.json").read_text())
    shown = capsys.readouterr().out
    for result in (summary, plain):
        assert f"{result['test/acc']:.4f}" in shown
        assert f"{result['mean_abs']['value']:.4f} ± {result['mean_abs']['stderr']:.4f}" in shown
    for curve in ("J", "J_before"):
        assert len(summary[curve]["value"]) == 15
        assert sum(summary[curve]["value"]) == pytest.approx(15, rel=1e-6)
    assert "digits_plain/version_0" in shown

    checkpoint = run / "checkpoints" / "best.ckpt"
    module = InteractionClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    assert module.losses["interaction"].term.layer == "features.2"
    torch.testing.assert_close(module.state_dict(), weights(checkpoint))

    (stored,) = (tmp_path / "digits" / "wandb").glob("offline-run-*/run-*.wandb")
    logged = {key for record in wandb_history(stored) for key in record}
    assert {"train/loss", "train/loss/interaction", "val/acc", "test/acc"} <= logged
    assert "test/interaction/mean_abs" in logged


def test_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(tmp_path):
    augment = ("--data.augment", "true")
    whole = fit(tmp_path, "--trainer.max_epochs", "4", *augment)
    half = fit(tmp_path, "--trainer.max_epochs", "2", *augment)
    last = half / "checkpoints" / "last.ckpt"
    resumed = fit(tmp_path, "--trainer.max_epochs", "4", "--ckpt_path", str(last), *augment)
    end = "checkpoints/last.ckpt"
    torch.testing.assert_close(weights(resumed / end), weights(whole / end), rtol=0, atol=0)
    assert losses(resumed) == losses(whole)
    assert metrics(half)[-1]["epoch"] == "1"  # the first half's own log stays as it was


def test_killed_in_mid_epoch_nothing_is_logged_twice(tmp_path):
    whole = fit(tmp_path, "--trainer.max_epochs", "3")
    command = [sys.executable, "-m", "interaction_train", "fit", "--config", "digits.yaml"]
    command += ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs", "3"]
    command += ["--test_after_fit", "false", "--wandb", "disabled"]
    command += ["--trainer.callbacks+", "tests.helpers.KillAt"]
    command += ["--trainer.callbacks.epoch", "2", "--trainer.callbacks.batch", "15"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums depend on it
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    killed = tmp_path / "digits" / "version_1"
    assert {row["epoch"] for row in metrics(killed) if row["train/loss"]} == {"0", "1", "2"}
    last = killed / "checkpoints" / "last.ckpt"
    resumed = fit(tmp_path, "--trainer.max_epochs", "3", "--ckpt_path", str(last))
    assert losses(resumed) == losses(whole)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "InteractionClasifier"], "such as InteractionClassifier"),
        (["--model.model", "DigitNet"], "'DigitNet', expected the name or path of a class"),
        (["--model.losses.interaction.weight", "-1"], "weight: got -1.0, expected a number"),
        (["--model.losses.interaction.weight", "abc"], "float"),
        (
            ["--model.losses.interaction.term.init_args.layer", "feature.2"],
            "layer: got 'feature.2', expected a submodule of the network, such as features.2",
        ),
        (["--model.losses.interaction.term.init_args.layr", "x"], "'layr' is not accepted"),
        (["--model.losses.interaction.term.group_fraction", "0.6"], "group_fraction: got 0.6"),
        (["--model.num_classes", "5"], "num_classes: got 5, expected at least 10"),
        (["--data", "ImageDataModule", "--data.source", "none.npz"], "source: got 'none.npz'"),
        (["--data.batch_size", "0"], "batch_size: got 0, expected at least 1"),
        (["--ckpt_path", "none.ckpt"], "ckpt_path: got 'none.ckpt'"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_bad_input_gives_one_line(args, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_cli(
            "fit", "--config", "digits.yaml", "--trainer.default_root_dir", str(tmp_path),
            "--wandb", "disabled", *args,
        )  # fmt: skip
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert lines[0].startswith("interaction-train: error: ")
    assert message in lines[0]


def test_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("a defect")

    monkeypatch.setattr(InteractionClassifier, "training_step", fail)
    with pytest.raises(ValueError, match="a defect"):
        fit(tmp_path)


def test_installed_command_finds_the_user_s_own_classes(tmp_path):
    command = Path(sys.executable).with_name("interaction-train")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.split()[-1] == __version__
    (tmp_path / "my_nets.py").write_text(
        "from interaction_train.models import DigitsNet\n\n\nclass MyNet(DigitsNet):\n    pass\n"
    )
    args = [command, "fit", "--config", "digits_plain.yaml", "--trainer.fast_dev_run", "1"]
    args += ["--model.model", "my_nets.MyNet"]
    environment = {**os.environ, "COLUMNS": "120"}
    result = subprocess.run(
        args, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
    )
    assert "test accuracy" in result.stdout
