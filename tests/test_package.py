import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import interaction_train.callbacks
import interaction_train.losses
from interaction_train.game.payoffs import PAYOFFS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy, so that no build folder appears in the checkout.
    source = folder / "source"
    unwanted = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, str(source), "-w", str(folder)], check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_holds_one_namespace_with_everything(wheel):
    names = set(wheel.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"interaction_train"}
    for folder in ("losses", "callbacks", "attacks"):
        expected = {f"interaction_train/{folder}/{p.name}" for p in (ROOT / folder).glob("*.py")}
        assert expected
        assert expected <= names
    configs = {f"interaction_train/configs/{p.name}" for p in (ROOT / "configs").glob("*.yaml")}
    assert "interaction_train/configs/digits.yaml" in configs
    assert configs <= names
    assert "interaction_train/models/pretrained/digits_cnn.safetensors" in names
    assert "interaction_train/py.typed" in names


def test_public_surface():
    assert interaction_train.losses.__all__ == sorted(interaction_train.losses.__all__)
    assert {"BandLoss", "InteractionLoss", "OrderLoss"} <= set(interaction_train.losses.__all__)
    assert {"ExactInteractions", "InteractionRegularizer"} <= set(
        interaction_train.callbacks.__all__
    )
    assert list(PAYOFFS) == ["logit", "log_prob", "log_odds", "margin", "all"]
