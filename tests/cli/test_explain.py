"""``explain`` on the command line: a stranger's network and pictures, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import interaction_train as it
from interaction_train.cli.main import main
from interaction_train.explaining.preset import find_preset
from interaction_train.models import DigitsNet, load_weights
from interaction_train.training.module import InteractionClassifier
from tests.explaining.pictures import FIGURES, digit, drawn, write_digit
from tests.models.test_weights import saved

MODEL = "{class_path: interaction_train.models.pretrained, init_args: {model: DigitsNet, weights: digits_cnn}}"  # noqa: E501
OWN = """
import torch
from torch import nn


class TwoRooms(nn.Module):
    def __init__(self, hidden: int = 8):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, hidden, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(36 * hidden, 10)

    def forward(self, x):
        return {"logits": self.head(self.body(x))}


class Broken(TwoRooms):
    def forward(self, x):
        return self.nothing(x)


def unannotated():
    return TwoRooms()


def half(width: int = 4) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(36 * width, 10))
"""


def run(*args: object) -> None:
    main(["explain", "--accelerator", "cpu", *map(str, args)])


def on_digit(folder: Path, *args: object) -> None:
    image = write_digit(folder / "one.png", 1)
    run("--model", MODEL, "--image", image, "--players", "grid:2x2", "--out", folder, *args)


def values(folder: Path) -> torch.Tensor:
    return torch.tensor(json.loads((folder / "explanation.json").read_text())["values"])


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""
    (tmp_path / "rooms.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("rooms", None)


def test_a_digit_as_png(tmp_path, capsys):
    on_digit(tmp_path)
    x = torch.from_numpy(digit(1)).float()[None, None] / 255
    direct = it.explain(load_weights(DigitsNet(), "digits_cnn"), x, players="grid:2x2")
    assert torch.equal(values(tmp_path / "one"), direct.values)
    assert "one: predicted class 1" in capsys.readouterr().out


def test_one_yaml_explains_a_network_of_torchvision(project_data, tmp_path, capsys):
    with np.load(project_data / "imagenet100_224.npz") as data:
        Image.fromarray(data["x"][3]).save(tmp_path / "bird.png")
    torch.manual_seed(0)
    run("--config", "explain_torchvision.yaml", "--model.weights", "null", "--preset",
        "ResNet18_Weights.IMAGENET1K_V1", "--players", "grid:2x2", "--out", tmp_path,
        "--image", tmp_path / "bird.png")  # fmt: skip
    found = json.loads((tmp_path / "bird" / "explanation.json").read_text())
    preset = find_preset("ResNet18_Weights.IMAGENET1K_V1")
    assert found["classes"] == preset.classes
    assert f"predicted {preset.classes[found['labels'][0]]}" in capsys.readouterr().out
    for name in FIGURES:
        assert drawn(tmp_path / "bird" / f"{name}.png"), name


def test_weights_of_torchvision_bring_their_preset(tmp_path, monkeypatch):
    """The weights are not downloaded here: torchvision is told a state of its own network."""
    from torchvision.models import ResNet18_Weights, get_model

    monkeypatch.setattr(
        ResNet18_Weights, "get_state_dict", lambda *_, **__: get_model("resnet18").state_dict()
    )
    Image.fromarray(digit(3)).convert("RGB").resize((60, 40)).save(tmp_path / "a.png")
    run("--model", "torchvision.models.resnet18", "--model.weights", "IMAGENET1K_V1", "--image",
        tmp_path / "a.png", "--out", tmp_path, "--players", "grid:1x2",
        "--label", "tench")  # fmt: skip
    found = json.loads((tmp_path / "a" / "explanation.json").read_text())
    assert found["classes"][0] == "tench"
    assert found["labels"] == [0]


@pytest.mark.parametrize("kind", ["safetensors", "pt", "ckpt"])
def test_checkpoints_of_all_kinds(kind, tmp_path):
    torch.manual_seed(5)
    source = DigitsNet()
    on_digit(tmp_path, "--model", "DigitsNet", "--ckpt_path", saved(tmp_path, kind, source))
    x = torch.from_numpy(digit(1)).float()[None, None] / 255
    assert torch.equal(values(tmp_path / "one"), it.explain(source, x, players="grid:2x2").values)


def test_a_lightning_module_with_its_checkpoint(tmp_path):
    source = load_weights(DigitsNet(), "digits_cnn")
    on_digit(tmp_path, "--model", "InteractionClassifier", "--model.model", "DigitsNet",
             "--ckpt_path", saved(tmp_path, "ckpt", source))  # fmt: skip
    x = torch.from_numpy(digit(1)).float()[None, None] / 255
    direct = it.explain(InteractionClassifier(source), x, players="grid:2x2", baseline=0.3053)
    assert values(tmp_path / "one") == pytest.approx(direct.values, abs=1e-4)


def test_a_network_of_the_user_s_own(own_module, tmp_path, monkeypatch):
    write_digit(tmp_path / "a.png", 4)
    (tmp_path / "own.yaml").write_text(
        "model: {class_path: rooms.half, init_args: {width: 3}}\nimage: a.png\n"
        "normalization: {mean: [0.2], std: [0.5]}\nplayers: grid:2x2\nout: .\n"
    )
    run("--config", "own.yaml")
    from rooms import half

    x = torch.from_numpy(digit(4)).float()[None, None] / 255
    network = nn.Sequential(it.Normalize([0.2], [0.5]), half(3))
    assert torch.equal(values(tmp_path / "a"), it.explain(network, x, players="grid:2x2").values)
    run("--model", "rooms.TwoRooms", "--image", "a.png", "--baseline", "[0.1,0.2,0.3]",
        "--players", "grid:2x2", "--out", "colour")  # fmt: skip
    assert (tmp_path / "colour" / "a" / "graph.json").exists()


def test_the_user_s_own_mistakes_keep_their_traceback(own_module, tmp_path):
    write_digit(tmp_path / "a.png")
    with pytest.raises(AttributeError, match="nothing"):
        run("--model", "rooms.Broken", "--image", "a.png", "--baseline", "0")


def test_a_function_has_to_say_that_it_returns_a_module(own_module, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        run("--model", "rooms.unannotated", "--image", "a.png", "--baseline", "0")
    assert done.value.code == 2
    said = "model: got 'rooms.unannotated', expected a subclass of Module, or a function annotated"
    assert said in capsys.readouterr().err


def test_the_help_names_both_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "tune-attack, explain" in capsys.readouterr().out


def test_the_help_is_about_the_arguments(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    said = capsys.readouterr().out
    assert "--model MODEL" in said
    assert len(said.splitlines()) < 200


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--image none.png", "image: got 'none.png', expected an existing image file"),
        ("--image text.png", "image: got 'text.png', expected a readable image"),
        ("--image cut.png", "image: got 'cut.png', expected a readable image"),
        ("--image deep.png", "image: got 'deep.png' of mode I;16"),
        ("--image wide.png", "image: got 'wide' of shape (1, 8, 16), expected what the network"),
        ("--image wide.png --size 12", "image: got 'wide' of shape (1, 12, 12)"),
        ("--image [one.png,one.jpg]", "image: got ['one', 'one'], expected files of different"),
        ("--channels 3", "channels: got 3, expected 1"),
        (
            "--classes names.txt --label Nein",
            "label: got 'Nein', expected one of the classes, such as nine",
        ),
        ("--classes few.txt", "classes: got 2 names, expected 10"),
        ("--classes none.txt", "classes: got 'none.txt'"),
        ("--players map.npy", "players: got a map of 5 x 8, expected 8 x 8"),
        ("--players float.npy", "players: got 'float.npy' of float64"),
        ("--players none.npy", "players: got 'none.npy'"),
        ("--players grid:3", "players: got 'grid:3'"),
        ("--out text.png", "out: got 'text.png/one', expected a folder that can be written"),
        ("--out done", "out: got 'done/one' with results"),
        ("--model {class_path: DigitsNett}", "model: got 'DigitsNett'"),
        ("--model torchvision.models.resnet1", "'torchvision.models' has no attribute 'resnet1'"),
        ("--ckpt_path none.ckpt", "ckpt_path: got 'none.ckpt'"),
        ("--ckpt_path other.pt", "ckpt_path: got other.pt, which"),
        ("--budget many", "budget"),
        ("--nothing 1", "nothing"),
        ("--accelerator abacus", "abacus"),
        ("--config none.yaml", "--config: got 'none.yaml'"),
        ("--normalization {mean: [0.1]}", "normalization"),
        ("--data DigitsDataModule", "image: got image and data"),
    ],
)
def test_bad_input_is_one_line(args, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_digit(tmp_path / "one.jpg")
    Image.fromarray(np.tile(digit(), (1, 2))).save("wide.png")
    Image.fromarray(digit().astype(np.uint16)).save("deep.png")
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(write_digit(tmp_path / "one.png").read_bytes()[:60])
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    Path("names.txt").write_text("\n".join(words))
    Path("few.txt").write_text("a\nb")
    np.save("map.npy", np.zeros((5, 8), dtype=int))
    np.save("float.npy", np.zeros((8, 8)))
    Path("done/one").mkdir(parents=True)
    Path("done/one/players.csv").write_text("")
    torch.save({"layer": torch.zeros(3)}, "other.pt")
    option, _, value = args.partition(" ")
    more = value.split(" --")
    rest = [word for part in more[1:] for word in f"--{part}".split(" ", 1)]
    with pytest.raises(SystemExit) as done:
        on_digit(tmp_path, option, more[0], *rest)
    assert done.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("interaction")]
    assert said in line


def test_a_download_that_fails_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(SystemExit) as done:
        run("--config", "explain_torchvision.yaml", "--image", write_digit(tmp_path / "a.png"))
    assert done.value.code == 2
    assert "error: weights or data could not be downloaded" in capsys.readouterr().err
