from pathlib import Path

import pytest

from tests.helpers import colour_npz, run_cli

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(config, tmp_path, capsys):
    spectrum = config.name.startswith("spectrum_")
    command = "validate" if spectrum else "fit"
    args = [command, "--config", str(config), "--trainer.fast_dev_run", "1"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--data.batch_size", "8"]
    if "cifar10" in config.name:
        args += ["--data.source", str(colour_npz(tmp_path / "data.npz", 180))]
    run_cli(*args)
    assert ("J(m) on" if spectrum else "test accuracy") in capsys.readouterr().out
