"""Images explained by the job: what it reads, writes and says, against ``it.explain`` itself."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet18_Weights, get_model

import interaction_train as it
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.explaining.job import explain_samples
from interaction_train.explaining.pictures import Fitting, channels_of, read_labels, read_picture
from interaction_train.explaining.preset import find_preset
from interaction_train.models import DigitsNet, load_weights
from tests.explaining.pictures import FIGURES, OF_CONCEPTS, TABLES, digit, drawn, write_digit

GRID = "grid:2x2"


def network() -> nn.Module:
    return load_weights(DigitsNet(), "digits_cnn")


def job(image, out, **settings):
    options = {"model": network(), "players": GRID, "out": out, "accelerator": "cpu", **settings}
    return explain_samples(image=None if image is None else str(image), **options)


def resnet(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_model("resnet18", weights=None)


def test_files_hold_what_explain_says(tmp_path, capsys):
    path = write_digit(tmp_path / "nine.png", 9)
    (found,) = job(path, tmp_path / "out", count=5, noise=0.1)
    x = torch.from_numpy(digit(9)).float()[None, None] / 255
    direct = it.explain(network(), x, players=GRID)
    folder = tmp_path / "out" / "nine"
    assert json.loads((folder / "explanation.json").read_text()) == json.loads(direct.to_json())
    assert torch.equal(found.x, x)
    players = pd.read_csv(folder / "players.csv")
    assert players["players"].tolist() == ["r0c0", "r0c1", "r1c0", "r1c1"]
    assert players["value"].tolist() == pytest.approx(direct.shapley[0].tolist())
    pairs = pd.read_csv(folder / "pairs.csv").set_index("players")["value"]
    assert pairs["r0c1 & r1c0"] == pytest.approx(float(direct.pairs[0, 1, 2]))
    assert len(pairs) == 6

    concepts = pd.read_csv(folder / "concepts.csv")
    kept = direct.concepts(noise=0.1)
    strengths = torch.cat([kept.and_[0], kept.or_[0]]).abs()
    assert concepts["value"].abs().tolist() == pytest.approx(
        strengths[strengths > 0].sort(descending=True).values.tolist()
    )
    chosen = it.select_concepts(kept, direct.values.double(), count=5)[0]
    in_graph = concepts["value_in_graph"].dropna()
    assert in_graph.tolist() == pytest.approx(chosen.value[0].tolist())
    graph = json.loads((folder / "graph.json").read_text())
    assert graph["r2"] == pytest.approx(float(chosen.r2[0]))
    assert sum(node["kind"] == "concept" for node in graph["nodes"]) == 5
    assert (folder / "graph.dot").read_text().startswith("digraph")

    told = capsys.readouterr().out
    probability = network()(x).softmax(-1)[0, direct.labels[0]].item()
    assert f"predicted class {int(direct.labels[0])} ({100 * probability:.1f} %)" in told
    best = max((n for n in graph["nodes"] if n["kind"] == "concept"), key=lambda n: abs(n["value"]))
    word = " OR " if best["is_or"] else " AND "
    assert word.join(direct.names[i] for i in best["players"]) in told
    assert f"R² = {graph['r2']:.3f}" in told
    assert str(folder) in told


def test_every_figure_is_written_as_png_and_svg(tmp_path):
    job(write_digit(tmp_path / "a.png"), tmp_path)
    folder = tmp_path / "a"
    figures = [folder / f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
    assert [path.name for path in figures if not drawn(path)] == []
    others = {path.name for path in folder.iterdir()} - {path.name for path in figures}
    assert others == {*TABLES, *OF_CONCEPTS}


def test_a_sample_of_coalitions(tmp_path, capsys):
    path = write_digit(tmp_path / "a.png")
    job(path, tmp_path, players="grid:3x3")
    assert (tmp_path / "a" / "concepts.csv").exists()
    (found,) = job(path, tmp_path, players="grid:3x3", budget=400, seed=4, overwrite=True)
    x = torch.from_numpy(digit()).float()[None, None] / 255
    direct = it.explain(network(), x, players="grid:3x3", budget=400, seed=4)
    assert not found.exact
    there = {path.name for path in (tmp_path / "a").iterdir()}
    figures = {f"{n}.{k}" for n in FIGURES[:-1] for k in ("png", "svg")}
    assert there == {*TABLES, *figures, "concepts.csv"}
    pairs = pd.read_csv(tmp_path / "a" / "pairs.csv")
    rows, columns = torch.triu_indices(9, 9, 1)
    for column, expected in (("value", direct.pairs), ("stderr", direct.pairs_stderr)):
        assert pairs[column].tolist() == pytest.approx(expected[0, rows, columns].tolist())
    recovered = direct.strongest()
    concepts = pd.read_csv(tmp_path / "a" / "concepts.csv")
    expected = recovered.interactions(names=direct.names)
    assert concepts["value"].tolist() == pytest.approx([one.value for one in expected])
    assert concepts["players"].tolist() == [" & ".join(one.players) for one in expected]
    told = " ".join(capsys.readouterr().out.split())
    assert f"Found among all sets of players: {recovered.quality()}." in told


def test_a_budget_too_small_for_orders_leaves_the_spectrum_out(tmp_path, capsys):
    job(write_digit(tmp_path / "a.png"), tmp_path, players="grid:3x3", budget=130)
    told = capsys.readouterr().out
    assert "No spectrum: budget: got 130, expected at least 202 evaluations" in told
    assert not (tmp_path / "a" / "spectrum.png").exists()
    assert drawn(tmp_path / "a" / "network.svg")


def test_samples_of_a_data_module(tmp_path):
    found = job(None, tmp_path, data=DigitsDataModule(batch_size=2), samples=3)
    data = DigitsDataModule()
    expected = next(iter(data.test_dataloader()))[0][:3]
    assert torch.equal(torch.cat([one.x for one in found]), expected)
    assert all((tmp_path / f"sample{k}" / "heatmap.png").exists() for k in range(3))


def test_several_images_and_a_class_by_name(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join(f"digit {k}" for k in range(10)) + "\n\n")
    paths = [str(write_digit(tmp_path / f"{k}.png", k)) for k in range(2)]
    found = explain_samples(
        network(), paths, classes=str(tmp_path / "names.txt"), label="digit 7", players=GRID,
        out=tmp_path, network="Net", accelerator="cpu",
    )  # fmt: skip
    assert [int(one.labels) for one in found] == [7, 7]
    assert found[1].title() == "Net, digit 7, log odds"
    assert "explained digit 7" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1"])
def test_pictures_of_every_mode_become_what_the_network_takes(mode, tmp_path):
    path = write_digit(tmp_path / "a.png", mode=mode)
    grey = torch.from_numpy(digit()).float() / 255
    if mode == "1":  # PIL dithers
        grey = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32))
    one, three = (Fitting(channels).image(read_picture(path)) for channels in (1, 3))
    assert torch.equal(one, grey[None])
    assert torch.equal(three, grey.expand(3, -1, -1))
    assert len(Fitting().image(read_picture(path))) == (1 if mode in ("L", "LA", "1") else 3)


def test_exif_turns_the_picture(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture has to be turned to the right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    expected = torch.from_numpy(np.rot90(pixels, -1).copy()).float() / 255
    assert torch.equal(Fitting().image(read_picture(tmp_path / "a.png"))[0], expected)


def test_a_preset_prepares_pictures_as_torchvision_does(project_data):
    with np.load(project_data / "imagenet100_224.npz") as data:
        picture = Image.fromarray(data["x"][3]).resize((400, 300))
    weights = ResNet18_Weights.IMAGENET1K_V1
    preset = find_preset(str(weights))
    x = replace(preset.fitting, channels=3).image(picture)
    assert torch.equal(it.Normalize(preset.mean, preset.std)(x), weights.transforms()(picture))
    assert preset.classes[:2] == ["tench", "goldfish"]


def test_a_network_of_torchvision_on_photographs(project_data, tmp_path):
    with np.load(project_data / "imagenet100_224.npz") as data:
        Image.fromarray(data["x"][3]).save(tmp_path / "bird.jpg", quality=95)
    model, name = resnet(), str(ResNet18_Weights.IMAGENET1K_V1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (found,) = job(tmp_path / "bird.jpg", tmp_path, model=model, preset=name)
    preset = find_preset(name)
    direct = it.explain(
        nn.Sequential(it.Normalize(preset.mean, preset.std), resnet()), found.x, players=GRID
    )
    assert found.x.shape == (1, 3, 224, 224)
    assert torch.equal(found.values, direct.values)
    assert found.classes[int(found.labels)] in found.title()
    assert found.network == "ResNet"
    assert all(drawn(tmp_path / "bird" / f"{name}.svg") for name in FIGURES)
    after = model.state_dict()
    assert before.keys() == after.keys()  # the caller's network has got no layer
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_normalization_and_size_of_one_s_own(tmp_path):
    Image.fromarray(digit(5)).resize((16, 20)).save(tmp_path / "a.png")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    how = {"mean": [0.3], "std": [0.4]}
    (found,) = job(tmp_path / "a.png", tmp_path, model=plain, normalization=how, size=8)
    direct = it.explain(lambda x: plain((x - 0.3) / 0.4), found.x, players=GRID, baseline=[0.3])
    assert found.x.shape == (1, 1, 8, 8)
    assert found.shapley == pytest.approx(direct.shapley, abs=1e-5)


@pytest.mark.parametrize("kind", ["grey", "colour", "npy"])
def test_a_label_map_moves_with_the_picture(kind, tmp_path):
    """A picture of 20 x 12, resized by half and cropped to 6 x 6, and its map alike."""
    Image.fromarray(digit(5)).resize((20, 12)).save(tmp_path / "a.png")
    left = np.arange(20) < 8
    labels = np.broadcast_to(np.where(left, 3, 200), (12, 20)).astype(np.uint8)
    file = tmp_path / f"map.{'npy' if kind == 'npy' else 'png'}"
    if kind == "npy":
        np.save(file, labels)
    else:
        colours = np.stack([labels, labels // 2, 255 - labels], -1)
        Image.fromarray(labels if kind == "grey" else colours).save(file)
    net = nn.Sequential(it.Normalize([0.3], [1.0]), nn.Flatten(), nn.Linear(36, 3))
    (found,) = job(tmp_path / "a.png", tmp_path, model=net, players=str(file), size=6)
    # Columns 4 … 15 are left of the picture, columns 2 … 7 of the input's 10.
    assert found.cells().tolist() == [[0, 0, 1, 1, 1, 1]] * 6
    expected = ("segment 3", "segment 200") if kind != "colour" else ("segment 0", "segment 1")
    assert found.names == expected


def test_a_map_of_the_input_s_size(tmp_path):
    write_digit(tmp_path / "a.png", 5)
    labels = np.tile(np.arange(4), (4, 1))
    np.save(tmp_path / "map.npy", labels)
    net = nn.Sequential(it.Normalize([0.3], [1.0]), nn.Flatten(), nn.Linear(16, 3))
    settings = {"model": net, "players": str(tmp_path / "map.npy")}
    (found,) = job(tmp_path / "a.png", tmp_path, size=4, **settings)
    assert found.cells().tolist() == labels.tolist()
    assert read_labels(tmp_path / "map.npy").dtype == torch.int64
    with pytest.raises(InputError, match="players: got a map of 4 x 4, expected 8 x 8 or 5 x 5"):
        job(tmp_path / "a.png", tmp_path, size=5, **settings)


def test_channels_of_networks():
    assert channels_of(resnet()) == 3
    assert channels_of(DigitsNet()) == 1
    assert channels_of(nn.Linear(3, 2)) is None
    with pytest.raises(InputError, match="a network of 12 channels"):
        channels_of(nn.Conv2d(12, 3, 1))


def test_results_stay_until_they_may_be_replaced(tmp_path):
    path = write_digit(tmp_path / "a.png")
    job(path, tmp_path)
    first = (tmp_path / "a" / "explanation.json").read_text()
    with pytest.raises(InputError, match=r"out: got .*with results"):
        job(path, tmp_path, label=3)
    assert (tmp_path / "a" / "explanation.json").read_text() == first
    (tmp_path / "a" / "notes.txt").write_text("mine")
    job(path, tmp_path, label=3, overwrite=True)
    assert (tmp_path / "a" / "explanation.json").read_text() != first
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "count"),
        ({"noise": 1.0}, "noise"),
        ({"samples": 0}, "samples"),
        ({"players": "grid:1x1"}, "players"),
        ({"players": "features"}, "players"),
        ({"players": "grid:9x9"}, "players"),
        ({"payoff": "odds"}, "payoff"),
        ({"label": 10}, "label: got 10, expected a class from 0 to 9"),
        ({"label": "cat"}, "label"),
        ({"classes": ["a"]}, "classes: got 1 names, expected 10"),
        ({"normalization": {"mean": [0.1], "std": [1.0]}}, "normalization"),
        ({"channels": 2}, "channels"),
        ({"baseline": 127.0}, "baseline: got 127.0, expected pixel values in [0, 1]"),
        ({"baseline": [-0.1]}, "baseline: got [-0.1], expected pixel values in [0, 1]"),
        ({"size": 0}, "size"),
        ({"preset": "ResNet18_Weights.V7"}, "preset"),
        ({"channels": 3}, "channels: got 3, expected 1, as the network takes"),
        ({"size": 12}, "image: got 'a' of shape (1, 12, 12), expected what the network takes"),
        ({"data": DigitsDataModule()}, "image: got image and data"),
    ],
)
def test_arguments_that_do_not_fit(settings, said, tmp_path):
    path = write_digit(tmp_path / "a.png")
    with pytest.raises(InputError) as refused:
        job(path, tmp_path, **settings)
    assert str(refused.value).startswith(said)
    assert not list((tmp_path / "a").glob("*"))


def test_data_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="samples: got 400, expected at most 359"):
        job(None, tmp_path, data=DigitsDataModule(), samples=400)
    with pytest.raises(InputError, match="size: got 8, expected none with data"):
        job(None, tmp_path, data=DigitsDataModule(), size=8)


def test_an_image_that_is_its_own_absence(tmp_path, capsys):
    Image.fromarray(np.full((8, 8), 51, dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"noise: got .* what its absence is"):
        job(tmp_path / "a.png", tmp_path, baseline=0.2)
    (found,) = job(tmp_path / "a.png", tmp_path, baseline=0.2, noise=0.0)
    assert found.shapley.tolist() == [[0.0] * 4]
    said = capsys.readouterr().out
    assert "No concepts: all 2^4 coalitions have one value." in said
    assert "nan" not in said
