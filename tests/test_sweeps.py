"""The sweeps: their parameters are ones that the command line takes, from the first to the last."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from interaction_train.cli.main import main
from tests.testing import run_cli

SWEEPS = sorted((Path(__file__).parent.parent / "sweeps").glob("*.yaml"))


def commands(sweep: dict[str, Any]) -> list[list[str]]:
    """What ``wandb agent`` runs, with the first value of each parameter and with the last."""
    found = []
    for place in (0, -1):
        values = {key: entry["values"][place] for key, entry in sweep["parameters"].items()}
        args = [f"--{key}={value}" for key, value in values.items()]
        found.append([*sweep["command"][1:-1], *args])
    return found


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_ends_are_accepted_and_one_run_works(path, tmp_path, capsys):
    sweep = yaml.safe_load(path.read_text())
    assert sweep["command"][0] == "${env}"
    assert sweep["command"][-1] == "${args}"
    for program, *args in commands(sweep):
        assert program == sweep["program"] == "interaction-train"
        with pytest.raises(SystemExit) as done:
            main([*args, "--print_config"])
        assert done.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out.split("# lightning")[-1].partition("\n")[2])
    assert printed["wandb"] == "online"

    _, *args = commands(sweep)[-1]
    run_cli(*args, "--trainer.fast_dev_run", "1", "--trainer.default_root_dir", str(tmp_path))
    assert "test accuracy" in capsys.readouterr().out
