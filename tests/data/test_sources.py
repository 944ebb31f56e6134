import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import datasets

from interaction_train.data import DigitsDataModule, ImageDataModule
from interaction_train.data.keyed import RandomCropFlip
from tests.data.files import epoch_of, raises, write_folder, write_npz
from tests.testing import run_cli

# --- .npz files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_npz_images_become_channels_first_floats(tmp_path, shape, dtype):
    arrays = write_npz(tmp_path / "a.npz", shape=shape)
    if dtype == "float64":
        floats = {name: arrays[name] / 255 for name in ("x_train", "x_test")}
        arrays = write_npz(tmp_path / "a.npz", shape=shape, **floats)
    module = ImageDataModule(tmp_path / "a.npz", batch_size=99)
    x, y = next(iter(module.test_dataloader()))
    expected = arrays["x_test"].reshape(20, 5, 6, -1).transpose(0, 3, 1, 2).astype(np.float32)
    if dtype == "uint8":
        assert module.parts["test"].source.tensors[0].dtype == torch.uint8
        expected = expected / np.float32(255)
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy(), expected)
    assert y.tolist() == arrays["y_test"].tolist()
    assert module.num_classes == 4


def test_npz_training_images_are_split_by_class(tmp_path):
    write_npz(tmp_path / "a.npz")
    module = ImageDataModule(tmp_path / "a.npz", val_fraction=0.2, train_fraction=0.5)
    module.setup()
    assert torch.bincount(module.parts["val"].labels).tolist() == [2] * 4
    assert torch.bincount(module.parts["train"].labels).tolist() == [4] * 4
    assert torch.bincount(module.parts["test"].labels).tolist() == [5] * 4


def test_image_size_resizes_and_crops_at_the_centre(tmp_path):
    x = np.zeros((20, 4, 8), np.uint8)
    x[:, :, 2:6] = 200  # the central square
    write_npz(tmp_path / "a.npz", shape=(4, 8), x_test=x)
    module = ImageDataModule(tmp_path / "a.npz", image_size=8, batch_size=20)
    out, _ = next(iter(module.test_dataloader()))
    assert out.shape == (20, 1, 8, 8)
    assert torch.equal(out[..., 1:-1], torch.full((20, 1, 8, 6), 200 / 255))
    x, _ = next(iter(module.train_dataloader()))
    assert x.shape[1:] == (1, 8, 8)


BAD_NPZ = {
    "missing keys": (
        {"y_train": None, "x_test": None},
        "source",
        ["x_train, y_test", "y_train, x_test"],
    ),
    "channels first": (
        {"x_train": np.zeros((40, 3, 6, 6), np.uint8)},
        "x_train",
        ["(40, 3, 6, 6)", "channels-last"],
    ),
    "flat": ({"x_test": np.zeros((20, 36), np.uint8)}, "x_test", ["(20, 36)", "(N, H, W)"]),
    "empty": ({"x_test": np.zeros((0, 6, 6, 3), np.uint8)}, "x_test", ["(0, 6, 6, 3)"]),
    "lengths": ({"y_train": np.zeros(39, int)}, "y_train", ["(39,)", "(40,)"]),
    "label axes": ({"y_test": np.zeros((20, 1), int)}, "y_test", ["(20, 1)", "(20,)"]),
    "float labels": ({"y_train": np.arange(40) / 4}, "y_train", ["float64", "integers"]),
    "negative": ({"y_train": np.arange(40) % 4 - 1}, "y_train", ["the label -1", "from 0"]),
    "above 1": ({"x_train": np.full((40, 6, 6), 2.0)}, "x_train", ["2.0", "[0, 1]"]),
    "NaN": ({"x_train": np.full((40, 6, 6), np.nan)}, "x_train", ["nan", "[0, 1]"]),
    "int pixels": ({"x_test": np.zeros((20, 6, 6), int)}, "x_test", ["int64", "uint8"]),
    "sizes": (
        {"x_test": np.zeros((20, 7, 6, 3), np.uint8)},
        "x_test",
        ["(3, 7, 6)", "(3, 6, 6)"],
    ),
    "channels": ({"x_test": np.zeros((20, 6, 6), np.uint8)}, "x_test", ["(1, 6, 6)", "(3, 6, 6)"]),
    "objects": ({"x_test": np.array([None, {}])}, "source", ["readable .npz"]),
    "one of a class": (
        {"y_train": np.array([0] * 39 + [2])},
        "val_fraction",
        ["0.1 of 40 samples in 2 classes", "the smallest class, 2, has 1"],
    ),
    "more classes than places": (
        {"y_train": np.arange(40) % 10},
        "val_fraction",
        ["0.1 of 40 samples in 10 classes"],
    ),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_files(tmp_path, case):
    changes, argument, parts = BAD_NPZ[case]
    write_npz(tmp_path / "a.npz", **changes)
    with raises(argument, *parts):
        ImageDataModule(tmp_path / "a.npz").setup()


def test_a_damaged_npz_file(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    path.write_bytes(path.read_bytes()[:1000])
    with raises("source", str(path), "readable .npz"):
        ImageDataModule(path).setup()
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)
    with raises("source", str(path), "readable .npz"):
        ImageDataModule(path).setup()


def test_labels_must_lie_below_num_classes(tmp_path):
    write_npz(tmp_path / "a.npz", classes=4)
    with raises("num_classes", "3", "at least 4", "a label is 3"):
        ImageDataModule(tmp_path / "a.npz", num_classes=3).setup()
    module = ImageDataModule(tmp_path / "a.npz", num_classes=7)
    module.setup()
    assert module.num_classes == 7


def test_a_subset_that_is_too_small_to_stratify(tmp_path):
    write_npz(tmp_path / "a.npz")
    with raises("train_fraction", "0.05 of 36 samples in 4 classes"):
        ImageDataModule(tmp_path / "a.npz", train_fraction=0.05).setup()


def test_real_cifar_and_mnist():
    folder = os.environ.get("INTERACTION_TRAIN_DATA")
    if not folder:
        pytest.skip("INTERACTION_TRAIN_DATA is not set")
    module = ImageDataModule(Path(folder) / "cifar10_5k.npz", train_fraction=0.1)
    x, _ = next(iter(module.train_dataloader()))
    assert x.shape == (128, 3, 32, 32)
    assert {name: len(part) for name, part in module.parts.items()} == {
        "train": 360,
        "val": 400,
        "test": 1000,
    }
    assert module.num_classes == 10
    # Mean and deviation of CIFAR-10 show that the channels are where they belong.
    pixels = torch.cat([x for x, _ in module.test_dataloader()])
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.02)
    module = ImageDataModule(Path(folder) / "mnist.npz", image_size=32, batch_size=8)
    x, _ = next(iter(module.val_dataloader()))
    assert x.shape == (8, 1, 32, 32)
    assert len(module.parts["val"]) == 6000


# --- torchvision data sets, in their own file formats ---------------------------------------------


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + sizes + array.tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_torchvision_mnist(tmp_path, name):
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    rng, written = np.random.default_rng(0), {}
    for part, n in (("train", 40), ("t10k", 20)):
        written[part] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", written[part])
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(n) % 4).astype(np.uint8))
    module = ImageDataModule(name, root=tmp_path, batch_size=64)
    assert module.num_classes == 10
    module.prepare_data()  # everything is there, so nothing is asked for
    x, y = next(iter(module.test_dataloader()))
    assert np.array_equal((x[:, 0] * 255).round().numpy(), written["t10k"])
    assert y.tolist() == [i % 4 for i in range(20)]
    assert module.parts["train"].augmentations == [RandomCropFlip(4, flip=name != "MNIST")]
    assert module.num_classes == 10


@pytest.mark.parametrize(("name", "classes"), [("CIFAR10", 10), ("CIFAR100", 100)])
def test_torchvision_cifar(tmp_path, monkeypatch, name, classes):
    dataset = getattr(datasets, name)
    for files in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, files, [[file, None] for file, _ in getattr(dataset, files)])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": None})
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    rng, key = np.random.default_rng(0), "labels" if classes == 10 else "fine_labels"
    written = {}
    for file, _ in dataset.train_list + dataset.test_list:
        written[file] = rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
        entry = {"data": written[file].reshape(40, -1), key: [i % 4 for i in range(40)]}
        (folder / file).write_bytes(pickle.dumps(entry))
    names = {dataset.meta["key"]: [str(i) for i in range(classes)]}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(names))
    module = ImageDataModule(name, root=tmp_path)
    x, y = next(iter(module.test_dataloader()))
    assert np.array_equal((x * 255).round().numpy(), written[dataset.test_list[0][0]])
    assert y.tolist() == [i % 4 for i in range(40)]
    assert module.num_classes == classes
    assert module.parts["train"].augmentations == [RandomCropFlip(4, flip=True)]


def test_torchvision_svhn(tmp_path, monkeypatch):
    monkeypatch.setattr(
        datasets.SVHN,
        "split_list",
        {name: [url, file, None] for name, (url, file, _) in datasets.SVHN.split_list.items()},
    )
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 40), dtype=np.uint8)
    labels = np.arange(40)[:, None] % 4 + 7  # 10 stands for the digit 0
    for part in ("train", "test"):
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": images, "y": labels})
    module = ImageDataModule("SVHN", root=tmp_path)
    x, y = next(iter(module.test_dataloader()))
    assert np.array_equal((x * 255).round().numpy(), images.transpose(3, 2, 0, 1))
    assert y.tolist() == [(i % 4 + 7) % 10 for i in range(40)]
    assert module.parts["train"].augmentations == [RandomCropFlip(4, flip=False)]


def test_a_torchvision_set_that_is_not_there(tmp_path):
    module = ImageDataModule("MNIST", root=tmp_path / "nowhere")
    with raises("source", "MNIST", "nowhere"):
        module.setup()
    with raises("source", "MNIST", "nowhere"):
        module.prepare_data()


# --- folders --------------------------------------------------------------------------------------


def test_folder_images_are_decoded_as_written(tmp_path):
    written = write_folder(tmp_path)
    module = ImageDataModule(tmp_path, val_fraction=0.2, batch_size=99)
    x, y = next(iter(module.test_dataloader()))
    assert x.shape == (20, 3, 6, 7)
    assert y.tolist() == [0] * 10 + [1] * 10
    expected = np.stack([written["test", name, i] for name in ("cat", "dog") for i in range(10)])
    assert np.array_equal((x * 255).round().numpy(), expected.transpose(0, 3, 1, 2))
    assert {name: len(part) for name, part in module.parts.items()} == {
        "train": 16,
        "val": 4,
        "test": 20,
    }
    assert module.num_classes == 2
    assert module.parts["train"].augmentations == [RandomCropFlip(4, flip=True)]
    assert torch.equal(
        epoch_of(module, 1)[0], epoch_of(ImageDataModule(tmp_path, "data", 99, 0.2), 1)[0]
    )


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_folder_images_of_any_mode_become_rgb(tmp_path, mode):
    write_folder(tmp_path)
    file = tmp_path / "test" / "cat" / "000.png"
    Image.open(file).convert(mode).save(file)
    x, _ = next(iter(ImageDataModule(tmp_path).test_dataloader()))
    assert np.array_equal(
        (x[0] * 255).round().numpy().transpose(1, 2, 0), np.array(Image.open(file).convert("RGB"))
    )


def test_folder_of_validation_images(tmp_path):
    write_folder(tmp_path / "two", splits=("train", "val"))
    module = ImageDataModule(tmp_path / "two")
    module.setup()
    assert [len(module.parts[name]) for name in ("train", "val", "test")] == [18, 2, 20]
    write_folder(tmp_path / "three", splits=("train", "val", "test"))
    module = ImageDataModule(tmp_path / "three")
    module.setup()
    assert [len(module.parts[name]) for name in ("train", "val", "test")] == [20, 20, 20]
    files = {name: part.source.samples[0][0] for name, part in module.parts.items()}
    assert all(f"three/{name}/cat" in file for name, file in files.items())


def test_folder_images_of_different_sizes_need_image_size(tmp_path):
    write_folder(tmp_path)
    Image.new("RGB", (9, 20), (255, 0, 51)).save(tmp_path / "test" / "dog" / "009.png")
    with raises("image_size", "None", "(7, 6)", "(9, 20)", "009.png"):
        ImageDataModule(tmp_path).setup()
    module = ImageDataModule(tmp_path, image_size=8)
    x, _ = next(iter(module.test_dataloader()))
    assert x.shape == (20, 3, 8, 8)
    assert torch.equal(x[-1], torch.tensor([1.0, 0.0, 0.2])[:, None, None].expand(3, 8, 8))


def test_bad_folders(tmp_path):
    write_folder(tmp_path / "a", splits=("train",))
    with raises("source", str(tmp_path / "a"), "val"):
        ImageDataModule(tmp_path / "a").setup()
    (tmp_path / "a" / "test").mkdir()
    with raises("source", str(tmp_path / "a"), "class"):
        ImageDataModule(tmp_path / "a").setup()
    write_folder(tmp_path / "a", splits=("test",), classes=("cat", "mouse"))
    with raises("source", "cat, mouse", "cat, dog"):
        ImageDataModule(tmp_path / "a").setup()


# --- damaged and odd data: one line that names the file or the argument ---------------------------


def damage(kind, path):
    good = path.read_bytes()
    if kind == "deep":
        Image.fromarray(np.full((6, 7), 40000, np.uint16)).save(path)
    else:
        made = {"truncated": good[: len(good) // 2], "empty": b"", "text": b"no image"}
        flipped = bytes([*good[:60], good[60] ^ 255, *good[61:]])
        path.write_bytes({**made, "flipped": flipped}[kind])


@pytest.mark.parametrize(("workers", "image_size"), [(0, None), (0, 5), (1, 5)])
@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "flipped", "deep"])
def test_a_damaged_image_is_named(tmp_path, kind, workers, image_size):
    write_folder(tmp_path)
    damage(kind, tmp_path / "test" / "dog" / "003.png")
    with raises("source", str(tmp_path / "test" / "dog" / "003.png"), "a readable image"):
        list(
            ImageDataModule(tmp_path, image_size=image_size, num_workers=workers).test_dataloader()
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_disappears_is_named(tmp_path, workers):
    write_folder(tmp_path)
    module = ImageDataModule(tmp_path, num_workers=workers)
    module.setup()
    (tmp_path / "train" / "cat" / "003.png").unlink()
    with raises("source", "003.png", "a readable image", "No such file"):
        list(module.train_dataloader())


def test_the_command_line_says_a_damaged_image_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images")
    damage("truncated", tmp_path / "images" / "train" / "cat" / "003.png")
    data = ["--data", "ImageDataModule", "--data.source", "images", "--data.num_workers", "1"]
    network = ["--model.model", "CIFARAlexNet"]
    quiet = ["--wandb", "disabled", "--trainer.max_epochs", "1", "--data.image_size", "32"]
    with pytest.raises(SystemExit) as stop:
        run_cli("fit", "--model", "InteractionClassifier", *network, *data, *quiet)
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "images/train/cat/003.png" in lines[0]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04K\x01.", np.random.default_rng(0).bytes(999), "flipped"],
    ids=["empty", "pickle", "random", "flipped"],
)
def test_files_that_are_no_npz(tmp_path, content):
    path = tmp_path / "a.npz"
    write_npz(path)
    if content == "flipped":
        content = bytearray(path.read_bytes())
        content[2000] ^= 255
    path.write_bytes(content)
    with raises("source", str(path), "readable .npz"):
        ImageDataModule(path).setup()


def test_arrays_that_are_not_needed_are_not_read(tmp_path):
    write_npz(tmp_path / "a.npz", names=np.array(["a", None], dtype=object))
    ImageDataModule(tmp_path / "a.npz").setup()


@pytest.mark.parametrize("dtype", ["int32", "uint8", ">i2"])
def test_labels_of_any_integer_type_are_the_same_labels(tmp_path, dtype):
    arrays = write_npz(tmp_path / "a.npz")
    write_npz(tmp_path / "b.npz", y_train=arrays["y_train"].astype(dtype))
    modules = [ImageDataModule(tmp_path / name) for name in ("a.npz", "b.npz")]
    labels = [epoch_of(module, 0)[1] for module in modules]
    assert labels[1].dtype == torch.int64
    assert torch.equal(*labels)


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (np.eye(4)[np.arange(40) % 4], ["(40, 4)", "one-hot", "argmax"]),
        (np.arange(40) % 2 == 0, ["bool", "integers"]),
        (np.arange(40).astype(str), ["integers"]),
        (np.arange(40).astype(np.uint64) + 2**63, ["labels from 0"]),
        (np.array(3), ["()", "(40,)"]),
    ],
    ids=["one-hot", "bool", "text", "uint64", "scalar"],
)
def test_labels_that_are_no_class_numbers(tmp_path, labels, parts):
    write_npz(tmp_path / "a.npz", y_train=labels)
    with raises("y_train", *parts):
        ImageDataModule(tmp_path / "a.npz").setup()


def test_resized_floats_stay_within_the_unit_range(tmp_path):
    write_npz(tmp_path / "a.npz", x_train=np.ones((40, 6, 6, 3)))
    x, _ = next(iter(ImageDataModule(tmp_path / "a.npz", image_size=11).train_dataloader()))
    assert x.max() == 1


def test_damaged_files_of_torchvision(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"nothing like it")
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"")
    with raises("source", "MNIST", str(tmp_path)):
        ImageDataModule("MNIST", root=tmp_path).setup()


@pytest.mark.parametrize("source", ["", "a" * 5000, "a\0b"])
def test_names_that_cannot_be_paths(source):
    with raises("source", "digits"):
        ImageDataModule(source)


def test_digits_by_name():
    x, y = epoch_of(ImageDataModule("digits", augment=False, image_size=16), 0)
    small, labels = epoch_of(DigitsDataModule(), 0)
    assert torch.equal(y, labels)
    enlarged = F.interpolate(small, size=(16, 16), mode="bilinear", antialias=True)
    assert torch.allclose(x, enlarged, atol=1e-6)
