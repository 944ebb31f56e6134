from pathlib import Path

import pytest
import torch
import yaml

from interaction_train.cli.main import main
from tests.explaining.pictures import write_digit
from tests.testing import NUMBER, colour_npz, run_cli, weights

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
OVERLAYS = [path for path in FILES if path.name.startswith("trainer_")]  # for another machine
TUNING = [path for path in FILES if path.name.startswith("tune_")]  # tests/cli/test_tune.py
EXPLAINING = [path for path in FILES if path.name.startswith("explain_")]
CONFIGS = [path for path in FILES if path not in OVERLAYS + TUNING + EXPLAINING]
FAST = ["--trainer.fast_dev_run", "1"]
JOBS = {
    "attack": (
        "predict",
        ["--trainer.limit_predict_batches", "1", "--model.attack.steps", "2"],
        "white-box success",
    ),
    "attributions": ("test", FAST, "What methods do with the effects of cells"),
    "baseline": ("fit", FAST, "LearnedBaseline of 30 numbers"),
    "base": ("fit", FAST, "test/loss"),
    "concepts": ("validate", FAST, "Concepts, 3 × 3 grid"),
    "recovery": ("validate", FAST, "Strongest interactions, "),
    "spectrum": ("validate", FAST, "J(m) on"),
    "table": ("fit", FAST, "test/loss"),
    "text": ("fit", FAST, "test/loss"),
    "universal": ("fit", FAST, "test/fooling_rate"),
    "visual": ("validate", FAST, "Visual concepts"),
    "transfer": ("test", [*FAST, "--model.steps", "1"], "Transfer at the last step"),
}
TRAINING = ("fit", FAST, "test accuracy")


def phrases(path):
    """A file in SST-2's format."""
    rows = [f"a {'fine' if k % 2 else 'dull'} film {k}\t{k % 2}\n" for k in range(80)]
    path.write_text("sentence\tlabel\n" + "".join(rows))
    return path


OWN = {
    "text.tsv": "source: text.tsv, text: sentence}}",
    "table.csv": "source: table.csv, label: class}}\n"
    "model: {init_args: {model: {init_args: {features: 4}}}}",
}


@pytest.mark.parametrize("file", OWN)
def test_a_file_of_one_s_own_takes_five_lines(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if file == "text.tsv":
        phrases(tmp_path / file)
    else:
        rows = [f"{k % 7},{'ab'[k % 2]},{k % 5},{['no', 'yes'][k % 2]}\n" for k in range(80)]
        (tmp_path / file).write_text("age,kind,size,class\n" + "".join(rows))
    base = f"base_{file.partition('.')[0]}.yaml"
    own = f"base: {base}\nname: mine\ndata: {{init_args: {{{OWN[file]}\n"
    assert own.count("\n") <= 5
    (tmp_path / "own.yaml").write_text(own)
    run_cli(
        "fit", "--config", "own.yaml", "--wandb", "disabled", "--data.batch_size", "16",
        "--trainer.max_epochs", "8",
    )  # fmt: skip
    assert "test/acc" in capsys.readouterr().out
    state = torch.load(tmp_path / "runs/mine/version_0/checkpoints/last.ckpt", weights_only=True)
    kind = "TextDataModule" if file == "text.tsv" else "TableDataModule"
    assert state[kind]["class_names"] == (["0", "1"] if file == "text.tsv" else ["no", "yes"])
    run_cli("test", "--config", "own.yaml", "--wandb", "disabled", "--ckpt_path", "last")
    assert float(NUMBER.findall(capsys.readouterr().out.partition("test/acc")[2])[0]) > 0.9


# Untrained networks may get none right.
@pytest.mark.filterwarnings("ignore:.*classifies none of", "ignore:.*no sample to measure")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(config, tmp_path, capsys):
    command, limits, shown = JOBS.get(config.name.split("_")[0], TRAINING)
    args = [command, "--config", str(config), *limits, "--wandb", "disabled"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--data.batch_size", "8"]
    if "cifar10" in config.name:
        args += ["--data.source", str(colour_npz(tmp_path / "data.npz", 180))]
    if "sst2" in config.name:
        for name, part in {"source": "train", "test": "dev"}.items():
            args += [f"--data.{name}", str(phrases(tmp_path / f"{part}.tsv"))]
    run_cli(*args)
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("config", EXPLAINING, ids=lambda path: path.stem)
def test_every_explanation_runs(config, tmp_path):
    args = ["explain", "--config", str(config), "--out", str(tmp_path), "--accelerator", "cpu"]
    if "torchvision" in config.name:  # whose weights are a download
        image = write_digit(tmp_path / "a.png")
        args += ["--model.weights", "null", "--image", str(image), "--baseline", "0.5"]
    main([*args, "--players", "grid:2x2"])
    graphs = list(tmp_path.glob("*/graph.json"))
    assert len(graphs) == (1 if "torchvision" in config.name else 3)


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


def test_the_last_checkpoint_is_the_newest(tmp_path):
    """Also after epochs that did not improve on the best."""
    run_cli(
        "fit", "--config", "base_digits.yaml", "--trainer.max_epochs", "8", "--model.optimizer.lr",
        "0.0", "--wandb", "disabled", "--trainer.default_root_dir", str(tmp_path),
        "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1",
    )  # fmt: skip
    folder = tmp_path / "base_digits" / "version_0" / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    steps = {p.stem: torch.load(p, weights_only=True)["global_step"] for p in folder.iterdir()}
    assert steps == {"best": 3, "last": 24}
    assert weights(folder / "last.ckpt")


def printed(config, capsys):
    with pytest.raises(SystemExit) as done:
        main(["fit", "--config", str(config), "--print_config"])
    assert done.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def test_a_config_of_one_s_own_has_a_base(tmp_path, capsys):
    (tmp_path / "shared.yaml").write_text("base: base_digits.yaml\ntrainer: {max_epochs: 3}\n")
    own = tmp_path / "own.yaml"
    own.write_text("base: shared.yaml\nname: own\ntrainer:\n  callbacks+: [RunReport]\n")
    config = printed(own, capsys)
    assert (config["name"], config["trainer"]["max_epochs"]) == ("own", 3)
    kinds = [callback["class_path"].split(".")[-1] for callback in config["trainer"]["callbacks"]]
    assert kinds == ["ModelCheckpoint", "ModelCheckpoint", "RunReport"]
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.05
