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
from interaction_train.tracking.report import write_report
from interaction_train.tracking.report.material import Run
from interaction_train.training.module import InteractionClassifier
from tests.testing import (
    run_cli,
    wandb_config,
    wandb_history,
    wandb_summaries,
    weights,
)

ROOT = Path(__file__).parents[2]
# Short runs: the loss starts in the third epoch, and the monitor measures every fifth one.
pytestmark = pytest.mark.filterwarnings("ignore:.*never start", "ignore:.*measures once")


def command(folder: Path) -> list[str]:
    """The main job, without its test and W&B."""
    return [
        "fit", "--config", "digits.yaml", "--trainer.default_root_dir", str(folder),
        "--test_after_fit", "false", "--wandb", "disabled",
    ]  # fmt: skip


def fit(folder: Path, *args: str) -> Path:
    """Train the main job in this process; returns the folder of the run."""
    before = set(folder.glob("digits/version_*"))
    run_cli(*command(folder), *args)
    return (set(folder.glob("digits/version_*")) - before).pop()


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def wandb_files(folder: Path) -> list[Path]:
    """W&B's offline files, oldest first."""
    return sorted(folder.glob("digits/wandb/offline-run-*/run-*.wandb"))


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
        assert f"{result['test/loss']:.4f}" in shown
        assert f"{result['mean_abs']['value']:.4f} ± {result['mean_abs']['stderr']:.4f}" in shown
    for curve in ("J", "J_before"):
        assert len(summary[curve]["value"]) == 15
        assert sum(summary[curve]["value"]) == pytest.approx(15, rel=1e-6)
    assert "digits_plain" in shown
    assert shown.splitlines()[-1] == f"Report: {run / 'report.html'}"
    assert shown.count("Report: ") == 1  # of training and test together

    checkpoint = run / "checkpoints" / "best.ckpt"
    module = InteractionClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    assert module.losses["interaction"].term.layer == "classifier.2"
    torch.testing.assert_close(module.state_dict(), weights(checkpoint))

    (stored,) = (tmp_path / "digits" / "wandb").glob("offline-run-*/run-*.wandb")
    logged = {key for record in wandb_history(stored) for key in record}
    assert {"train/loss", "train/loss/interaction", "val/acc", "test/acc"} <= logged
    assert "test/interaction/mean_abs" in logged


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What the report draws. (Spectra may differ in the last digits, as their chunks are timed.)"""
    series = Run(run).series
    return {
        key: list(zip(line.steps, line.values, strict=True))
        for key, line in series.items()
        if "interaction/" not in key
    }


def test_resumed_run_has_the_next_folder_and_its_report_the_whole_run(tmp_path):
    """Same weights and curves as without the stop; nothing twice, nothing lost."""
    augment = ("--data.augment", "true")
    whole = fit(tmp_path / "whole", "--trainer.max_epochs", "4", *augment)
    half = fit(tmp_path, "--trainer.max_epochs", "2", *augment)
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    last = half / "checkpoints" / "last.ckpt"
    rest = fit(tmp_path, "--trainer.max_epochs", "4", "--ckpt_path", str(last), *augment)
    assert rest.name == "version_1"
    end = "checkpoints/last.ckpt"
    torch.testing.assert_close(weights(rest / end), weights(whole / end), rtol=0, atol=0)
    assert curves(rest) == curves(whole)
    assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file()} == before
    origin = json.loads((rest / "starts.json").read_text())[0]["resumed_from"]
    assert origin == {"folder": str(half), "step": 42}


def test_resuming_from_an_older_checkpoint_takes_the_curves_up_to_it(tmp_path):
    run = fit(tmp_path, "--trainer.max_epochs", "1")
    older = run / "checkpoints" / "older.ckpt"
    older.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    last = run / "checkpoints" / "last.ckpt"
    (run / "checkpoints" / "torn.ckpt").write_bytes(last.read_bytes()[:1000])  # blocks nothing
    rest = fit(tmp_path, "--trainer.max_epochs", "2", "--ckpt_path", str(last))
    branch = fit(tmp_path, "--trainer.max_epochs", "2", "--ckpt_path", str(older))
    assert [rest.name, branch.name] == ["version_1", "version_2"]
    assert curves(branch)["train/loss"] == curves(rest)["train/loss"]


def test_last_finds_the_newest_run_and_starts_anew_where_there_is_none(tmp_path):
    first = fit(tmp_path, "--trainer.max_epochs", "1", "--ckpt_path", "last")
    second = fit(tmp_path, "--trainer.max_epochs", "2", "--ckpt_path", "last")
    assert (first.name, second.name) == ("version_0", "version_1")
    assert {row["epoch"] for row in metrics(second) if row["epoch"]} == {"1"}


@pytest.mark.parametrize("name", ["best", "last"])
def test_validate_measures_the_checkpoint_that_fit_left(name, tmp_path, capsys):
    """By its name and by its path alike, and nothing where there is none."""
    short = ("--trainer.max_epochs", "1", "--model.optimizer.lr", "0.2")
    checkpoints = fit(tmp_path, *short) / "checkpoints"
    capsys.readouterr()

    def accuracy(path, command):
        run_cli(
            command, "--config", "base_digits.yaml", "--name", "digits", "--wandb", "disabled",
            "--trainer.default_root_dir", str(tmp_path), "--ckpt_path", str(path),
        )  # fmt: skip
        out = capsys.readouterr().out
        return next(line for line in out.splitlines() if "/acc" in line)

    for command in ("validate", "test"):
        by_path = accuracy(checkpoints / f"{name}.ckpt", command)
        assert accuracy(name, command) == by_path
    with pytest.raises(SystemExit) as stopped:
        run_cli(
            "validate", "--config", "base_digits.yaml", "--name", "none", "--ckpt_path", name,
            "--trainer.default_root_dir", str(tmp_path),
        )  # fmt: skip
    assert stopped.value.code == 2
    assert f"ckpt_path: got '{name}', expected" in capsys.readouterr().err


def killed(folder: Path, epoch: int, batch: int, *args: str) -> Path:
    """A run killed as a scheduler would, in a process of its own; returns its folder."""
    program = [sys.executable, "-m", "interaction_train", *command(folder), *args]
    program += ["--trainer.callbacks+", "tests.testing.KillAt"]
    program += ["--trainer.callbacks.epoch", str(epoch), "--trainer.callbacks.batch", str(batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums depend on it
    environment.pop("WANDB_SERVICE", None)  # else its run lives on in this process's service
    result = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    (run,) = folder.glob("digits/version_*")
    return run


def test_killed_in_mid_epoch_no_curve_has_a_point_twice(tmp_path):
    """In the report; and the offline W&B runs have one id."""
    offline = ("--trainer.max_epochs", "3", "--wandb", "offline")
    whole = fit(tmp_path / "whole", *offline)
    run = killed(tmp_path, 2, 15, *offline)
    assert {row["epoch"] for row in metrics(run) if row["train/loss"]} == {"0", "1", "2"}
    with (run / "history.jsonl").open("a") as file:
        file.write('{"step": 61, "train/lo')  # a torn line
    assert "unfinished, epoch 3 of 3" in write_report(run).read_text()
    last = run / "checkpoints" / "last.ckpt"
    rest = fit(tmp_path, *offline, "--ckpt_path", str(last))
    assert curves(rest) == curves(whole)
    for steps in (line.steps for key, line in Run(rest).series.items() if "train/" in key):
        assert len(steps) == len(set(steps))

    first, second = wandb_files(tmp_path)
    assert first.name == second.name  # the id
    wandb_history(second)  # it came to its end

    report = (rest / "report.html").read_text()
    assert "3 epochs, 63 steps · started 2 times, resumed at step 42" in report
    assert "unfinished" not in report


def test_wandb_run_knows_configuration_and_versions(tmp_path):
    weight = "--model.losses.interaction.weight"
    fit(tmp_path, "--trainer.max_epochs", "1", "--wandb", "offline", weight, "2")
    (stored,) = wandb_files(tmp_path)
    config = wandb_config(stored)
    assert config["config"]["model"]["init_args"]["losses"]["interaction"]["weight"] == 2.0
    assert config["versions"]["interaction-train"] == __version__
    assert config["versions"]["torch"] == torch.__version__
    summaries = wandb_summaries(stored)
    assert summaries["val/acc"] == {"max", "last"}
    assert summaries["val/loss"] == {"min", "last"}


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
