from pathlib import Path

import pytest

from tests.helpers import colour_npz, run_cli

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
FAST = ["--trainer.fast_dev_run", "1"]
JOBS = {
    "attack": (
        "predict",
        ["--trainer.limit_predict_batches", "1", "--model.attack.steps", "2"],
        "white-box success",
    ),
    "spectrum": ("validate", FAST, "J(m) on"),
    "transfer": ("test", FAST, "Transfer at the last step"),
}
TRAINING = ("fit", FAST, "test accuracy")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(config, tmp_path, capsys):
    command, limits, shown = JOBS.get(config.name.split("_")[0], TRAINING)
    args = [command, "--config", str(config), *limits, "--wandb", "disabled"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--data.batch_size", "8"]
    if "cifar10" in config.name:
        args += ["--data.source", str(colour_npz(tmp_path / "data.npz", 180))]
    run_cli(*args)
    assert shown in capsys.readouterr().out
