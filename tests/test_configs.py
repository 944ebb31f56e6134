from pathlib import Path

import pytest
import yaml

from interaction_train.cli.main import main
from tests.testing import colour_npz, run_cli

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
OVERLAYS = [path for path in FILES if path.name.startswith("trainer_")]  # for another machine
CONFIGS = [path for path in FILES if path not in OVERLAYS]
FAST = ["--trainer.fast_dev_run", "1"]
JOBS = {
    "attack": (
        "predict",
        ["--trainer.limit_predict_batches", "1", "--model.attack.steps", "2"],
        "white-box success",
    ),
    "spectrum": ("validate", FAST, "J(m) on"),
    "transfer": ("test", [*FAST, "--model.steps", "1"], "Transfer at the last step"),
}
TRAINING = ("fit", FAST, "test accuracy")


@pytest.mark.filterwarnings("ignore:.*classifies none of")  # untrained networks may get none right
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(config, tmp_path, capsys):
    command, limits, shown = JOBS.get(config.name.split("_")[0], TRAINING)
    args = [command, "--config", str(config), *limits, "--wandb", "disabled"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--data.batch_size", "8"]
    if "cifar10" in config.name:
        args += ["--data.source", str(colour_npz(tmp_path / "data.npz", 180))]
    run_cli(*args)
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_every_overlay_goes_on_top_of_a_config(overlay, capsys):
    with pytest.raises(SystemExit) as done:
        main(["fit", "--config", "digits.yaml", "--config", overlay.name, "--print_config"])
    assert done.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    wanted = yaml.safe_load(overlay.read_text())["trainer"]
    assert wanted.items() <= printed["trainer"].items()
    assert printed["name"] == "digits"
    assert printed["trainer"]["max_epochs"] == 30
    assert len(printed["trainer"]["callbacks"]) > 2
