import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from interaction_train.data import Cutout, DigitsDataModule, ImageDataModule, KeyedSampler
from interaction_train.data.keyed import as_is
from interaction_train.data.transforms import RandomCropFlip
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet
from interaction_train.sampling.random import Draws

CUTOUT = Cutout(2, 0.1)


def raises(argument, *parts):
    """InputError about the argument, whose message is one line and names every part."""
    anywhere = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(InputError, match=rf"^{argument}: got {anywhere}.*\Z")


def epoch_of(module, epoch, loader=None):
    """All of an epoch's training batches, concatenated."""
    loader = loader or module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def rows(x):
    return {row.numpy().tobytes() for row in x}


def write_npz(path, count=40, classes=4, shape=(6, 6, 3), **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", count), ("test", count // 2)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % classes
    arrays.update(changes)
    arrays = {name: value for name, value in arrays.items() if value is not None}
    np.savez(path, **arrays)
    return arrays


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_the_real_ones_in_unit_range():
    module = DigitsDataModule(batch_size=50)
    module.setup()
    x, y = next(iter(module.test_dataloader()))
    assert x.shape == (50, 1, 8, 8)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    digits = load_digits()
    first = module.parts["test"].indices[:50].numpy()
    assert np.array_equal(x[:, 0].numpy() * 16, digits.images[first])
    assert np.array_equal(y.numpy(), digits.target[first])
    assert module.num_classes == 10


def test_digits_splits_are_disjoint_and_complete():
    module = DigitsDataModule(val_fraction=0.25, test_fraction=0.2)
    module.setup()
    sizes = {name: len(part) for name, part in module.parts.items()}
    assert sizes == {"train": 1078, "val": 360, "test": 359}
    together = torch.cat([part.indices for part in module.parts.values()])
    assert torch.equal(together.sort().values, torch.arange(1797))


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_splits_keep_the_class_proportions(name):
    module = DigitsDataModule(train_fraction=0.3)
    module.setup()
    labels = module.parts[name].labels
    expected = torch.bincount(torch.from_numpy(load_digits().target)) * len(labels) / 1797
    assert (torch.bincount(labels, minlength=10) - expected).abs().max() <= 1.5


def test_splits_do_not_depend_on_seed_and_the_subset_leaves_validation_alone():
    parts = []
    for arguments in ({}, {"seed": 5}, {"train_fraction": 0.1}):
        module = DigitsDataModule(**arguments)
        module.setup()
        parts.append({name: part.indices.tolist() for name, part in module.parts.items()})
    assert parts[0] == parts[1]
    assert parts[2]["val"] == parts[0]["val"]
    assert parts[2]["test"] == parts[0]["test"]
    assert set(parts[2]["train"]) < set(parts[0]["train"])
    assert len(parts[2]["train"]) == round(0.1 * len(parts[0]["train"]))


def test_validation_and_test_loaders_are_in_order_and_unchanged_by_augmentation():
    module = DigitsDataModule(augment=True)
    for loader, name in ((module.val_dataloader(), "val"), (module.test_dataloader(), "test")):
        indices = module.parts[name].indices
        x = torch.cat([x for x, _ in loader])
        assert np.array_equal(x[:, 0].numpy() * 16, load_digits().images[indices.numpy()])
        assert torch.equal(indices, indices.sort().values)


# --- order and augmentation -----------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_prediction_goes_over_one_split_in_order_without_augmentation(split):
    data = DigitsDataModule(batch_size=100, augment=True, predict_split=split)
    batches = list(data.predict_dataloader())
    part = data.parts[split]
    x = torch.from_numpy(load_digits().images[part.indices.numpy()]).float() / 16
    assert torch.equal(torch.cat([x for x, _ in batches]), x.unsqueeze(1))
    assert torch.equal(torch.cat([y for _, y in batches]), part.labels)


def test_prediction_goes_over_the_test_split_by_default():
    assert DigitsDataModule().predict_split == "test"
    with pytest.raises(InputError, match="predict_split: got 'all'"):
        DigitsDataModule(predict_split="all")


def test_order_is_a_shuffle_keyed_by_seed_and_epoch():
    data = range(1000)

    def order(seed, epoch):
        sampler = KeyedSampler(data, seed)
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {e for e, _ in keys} == {epoch}
        return [index for _, index in keys]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o) == list(data) for o in orders)
    assert len({tuple(o) for o in orders}) == 4
    assert order(1, 1) == orders[3]


def test_two_ranks_cover_an_epoch_once_when_it_divides():
    data = range(10)
    ranks = [KeyedSampler(data, seed=3, num_replicas=2, rank=rank) for rank in (0, 1)]
    for epoch in (0, 1):
        for sampler in ranks:
            sampler.set_epoch(epoch)
        keys = [list(sampler) for sampler in ranks]
        assert sorted(keys[0] + keys[1]) == [(epoch, index) for index in data]
        single = KeyedSampler(data, seed=3)
        single.set_epoch(epoch)
        assert [key for pair in zip(*keys, strict=True) for key in pair] == list(single)


def test_loaders_take_seed_and_rank():
    modules = [DigitsDataModule(seed=seed, batch_size=2000) for seed in (0, 1)]
    x, other = (epoch_of(module, 0)[0] for module in modules)
    assert rows(x) == rows(other)
    assert not torch.equal(x, other)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    ranks = []
    for rank in (0, 1):
        module = DigitsDataModule(batch_size=2000)
        module.trainer = SimpleNamespace(
            world_size=2, global_rank=rank, strategy=strategy, training=False
        )
        ranks.append(epoch_of(module, 0)[0])
    assert torch.equal(torch.stack(ranks, 1).flatten(0, 1), x)


def test_two_ranks_repeat_samples_only_to_equal_length():
    ranks = [list(KeyedSampler(range(7), num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert [len(keys) for keys in ranks] == [4, 4]
    assert {index for _, index in ranks[0] + ranks[1]} == set(range(7))


def test_one_process_sees_every_sample_once():
    module = DigitsDataModule(batch_size=100)
    x, _ = epoch_of(module, 0)
    assert len(x) == len(module.parts["train"]) == 1294
    assert rows(x) == rows(module.parts["train"].__getitems__(list(range(1294)))[0])


@pytest.mark.parametrize("transform", [None, v2.RandomErasing(p=0.5)])
def test_batches_do_not_depend_on_workers_history_or_the_global_generator(tmp_path, transform):
    write_npz(tmp_path / "a.npz")
    arguments = {"source": tmp_path / "a.npz", "batch_size": 16, "transform": transform}
    plain, workers = ImageDataModule(**arguments), ImageDataModule(**arguments, num_workers=2)
    loader = workers.train_dataloader()
    assert loader.persistent_workers
    seen = []
    for epoch in range(3):
        # A fresh module for each epoch, as after a resume, against one that went through all.
        torch.manual_seed(epoch)
        before = torch.get_rng_state()
        expected = epoch_of(plain, epoch)
        assert torch.equal(torch.get_rng_state(), before)
        found = epoch_of(workers, epoch, loader)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        seen.append(expected[0])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("transform", [None, v2.RandomErasing(p=0.5)])
def test_augmentation_depends_on_seed_epoch_and_sample_alone(tmp_path, transform):
    write_npz(tmp_path / "a.npz")
    parts = []
    for seed in (0, 1):
        module = ImageDataModule(tmp_path / "a.npz", seed=seed, transform=transform)
        module.setup()
        parts.append(module.parts["train"])
    n = len(parts[0])
    x, y = parts[0].__getitems__([(4, i) for i in range(n)])
    alone = [parts[0][4, i] for i in reversed(range(n))][::-1]
    assert torch.equal(x, torch.stack([a for a, _ in alone]))
    assert y.tolist() == [int(b) for _, b in alone]
    assert not torch.equal(x, parts[0].__getitems__([(5, i) for i in range(n)])[0])
    assert not torch.equal(x, parts[1].__getitems__([(4, i) for i in range(n)])[0])
    assert not torch.equal(x, parts[0].__getitems__(list(range(n)))[0])  # by plain index: as it is


def test_a_transform_does_not_reseed_accelerators(tmp_path, monkeypatch):
    def refuse(seed):
        raise AssertionError("the accelerator was reseeded")

    write_npz(tmp_path / "a.npz")
    module = ImageDataModule(tmp_path / "a.npz", transform=v2.RandomErasing(p=0.5))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)  # what torch.manual_seed calls
    assert len(epoch_of(module, 0)[0]) == 36


def test_a_transform_leaves_the_global_generator_alone_on_an_exception(tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError(f"drew {torch.rand(())}")

    write_npz(tmp_path / "a.npz")
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="drew"):
        epoch_of(ImageDataModule(tmp_path / "a.npz", transform=Broken()), 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_draws_every_window_of_the_padded_image_alike(dtype, flip):
    image = torch.arange(1, 1 + 2 * 3 * 5).reshape(2, 3, 5).to(dtype)
    count, padding = 3600, 1
    out = RandomCropFlip(padding, flip)(
        image.expand(count, -1, -1, -1), Draws(torch.arange(count), seed=1)
    )
    assert out.shape == (count, 2, 3, 5)
    assert out.dtype == dtype
    padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    windows = [padded[:, r : r + 3, c : c + 5] for r in range(3) for c in range(3)]
    if flip:
        windows += [window[..., ::-1] for window in windows]
    counts = [int((out.numpy() == window).all((1, 2, 3)).sum()) for window in windows]
    assert sum(counts) == count
    expected = count / len(windows)
    assert max(abs(c - expected) for c in counts) < 5 * expected**0.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [3, 4])
def test_cutout_covers_one_square_centred_anywhere(dtype, size):
    x = torch.ones(20000, 2, 5, 7).to(dtype)
    cut = Cutout(size, 0.4).keyed(x, Draws(torch.arange(20000), seed=3))
    covered = cut != x
    fill = 102 if dtype == torch.uint8 else torch.tensor(0.4).item()
    assert set(cut.unique().tolist()) == {1, fill}
    assert (covered[:, 0] == covered[:, 1]).all()
    # Brute force: how often each pixel lies within the square around a uniform centre.
    expected = torch.zeros(5, 7)
    for row in range(5):
        for column in range(7):
            top, left = row - size // 2, column - size // 2
            expected[max(top, 0) : top + size, max(left, 0) : left + size] += 1 / 35
    assert (covered[:, 0].float().mean(0) - expected).abs().max() < 0.015
    assert (covered[:, 0].sum((1, 2)) <= size**2).all()
    assert (covered[:, 0].sum((1, 2)) == size**2).any()


def test_cutout_of_digits_changes_from_epoch_to_epoch():
    module = DigitsDataModule(cutout=Cutout(3))
    module.setup()
    part = module.parts["train"]
    keys = range(50)
    plain, _ = part.__getitems__(keys)
    first, again, second = (
        part.__getitems__([(epoch, key) for key in keys])[0] for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert ((first != plain).flatten(1).sum(1) <= 9).all()
    assert (first != plain).any()


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": 2, "fill": 1.5}])
def test_bad_cutouts(arguments):
    with pytest.raises(InputError):
        Cutout(**arguments)


def test_digits_shift_by_one_pixel_and_never_flip():
    module = DigitsDataModule(augment=True)
    module.setup()
    assert module.parts["train"].augmentations == [RandomCropFlip(padding=1, flip=False)]
    module = DigitsDataModule()
    module.setup()
    assert module.parts["train"].augmentations == []


@pytest.mark.parametrize("augment", [False, True])
def test_modules_and_datasets_survive_pickling(augment):
    module = DigitsDataModule(augment=augment, seed=2)
    x, y = epoch_of(module, 1)
    again = epoch_of(pickle.loads(pickle.dumps(module)), 1)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    assert pickle.loads(pickle.dumps(module.train_dataloader().collate_fn)) is as_is


@pytest.mark.slow  # seven seconds of imports in the new process
def test_spawned_workers_give_the_same_batches():
    module = DigitsDataModule(augment=True, batch_size=500)
    expected = epoch_of(module, 1)
    part = module.parts["train"]
    loader = DataLoader(
        part,
        batch_size=500,
        sampler=KeyedSampler(part),
        num_workers=1,
        collate_fn=as_is,
        multiprocessing_context="spawn",
    )
    found = epoch_of(module, 1, loader)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


# --- with a Trainer -------------------------------------------------------------------------------


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = DigitsNet()
        self.correct, self.epochs = [], []

    def training_step(self, batch, index):
        self.epochs.append(self.trainer.train_dataloader.sampler.epoch)
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, index):
        pass

    def test_step(self, batch, index):
        self.correct.append((self.model(batch[0]).argmax(1) == batch[1]).float())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def fit(folder, epochs, when, resume=None):
    # Sanity checking and validation may differ between a run and its resumption.
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        callbacks=[
            ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=when)
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0 if resume else 1,
    )
    module, data = Classifier(), DigitsDataModule(augment=True)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return trainer, module, data


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
@pytest.mark.parametrize("when", [True, None])  # before or after validation
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, when):
    trainer, straight, data = fit(tmp_path / "a", 3, when)
    assert sorted(set(straight.epochs)) == [0, 1, 2]
    trainer.test(straight, data, verbose=False)
    assert torch.cat(straight.correct).shape == (359,)
    assert torch.cat(straight.correct).mean() > 0.8
    for epoch in (0, 1):
        _, resumed, _ = fit(tmp_path / "b", 3, when, resume=tmp_path / f"a/epoch={epoch}.ckpt")
        assert sorted(set(resumed.epochs)) == list(range(epoch + 1, 3))
        for name, weight in straight.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), name
    checkpoint = torch.load(tmp_path / "a" / "epoch=2.ckpt", weights_only=True)
    assert "datamodule_hyper_parameters" not in checkpoint


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:You requested to overfit:UserWarning")
def test_overfitting_on_fixed_batches_takes_images_as_they_are(tmp_path):
    seen = []

    class Keep(Classifier):
        def training_step(self, batch, index):
            seen.append(batch[0])
            return F.cross_entropy(self.model(batch[0]), batch[1])

    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        overfit_batches=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Keep()
    data = DigitsDataModule(augment=True)
    trainer.fit(module, data)
    assert len(seen) == 2
    assert torch.equal(seen[0], data.parts["train"].__getitems__(list(range(64)))[0])
    assert torch.equal(seen[0], seen[1])


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


@pytest.mark.parametrize(
    ("shape", "arguments", "expected"),
    [
        ((6, 6), {}, [RandomCropFlip(4, False)]),
        ((6, 6, 3), {}, [RandomCropFlip(4, True)]),
        ((6, 6), {"flip": True}, [RandomCropFlip(4, True)]),
        ((6, 6, 3), {"flip": False, "padding": 2}, [RandomCropFlip(2, False)]),
        ((6, 6, 3), {"augment": False, "flip": True}, []),
        ((6, 6), {"cutout": CUTOUT}, [RandomCropFlip(4, False), CUTOUT.keyed]),
        ((6, 6), {"augment": False, "cutout": CUTOUT}, [CUTOUT.keyed]),
    ],
)
def test_which_augmentation(tmp_path, shape, arguments, expected):
    write_npz(tmp_path / "a.npz", shape=shape)
    module = ImageDataModule(tmp_path / "a.npz", **arguments)
    module.setup()
    assert module.parts["train"].augmentations == expected


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


def write_folder(path, splits=("train", "test"), classes=("cat", "dog"), count=10, size=(7, 6)):
    rng, written = np.random.default_rng(len(splits)), {}
    for split in splits:
        for name in classes:
            (path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / split / name / f"{i:03}.png")
                written[split, name, i] = pixels
    return written


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


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"num_workers": -1}, "at least 0"),
        ({"val_fraction": 0.0}, "strictly between 0 and 1"),
        ({"val_fraction": 1.0}, "strictly between 0 and 1"),
        ({"val_fraction": float("nan")}, "strictly between 0 and 1"),
        ({"test_fraction": 1.0}, "strictly between 0 and 1"),
        ({"train_fraction": 0.0}, "above 0 and up to 1"),
        ({"train_fraction": 1.5}, "above 0 and up to 1"),
        ({"seed": -1}, "from 0 to"),
        ({"seed": 2**32}, "from 0 to"),
    ],
)
def test_digits_arguments_out_of_range(arguments, expected):
    ((name, value),) = arguments.items()
    with raises(name, str(value), expected):
        DigitsDataModule(**arguments)


def test_digits_splits_too_small():
    with raises("test_fraction", "0.004 of 1797 samples in 10 classes"):
        DigitsDataModule(test_fraction=0.004).setup()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"val_fraction": -0.1}, "strictly between 0 and 1"),
        ({"train_fraction": 0}, "above 0 and up to 1"),
        ({"padding": -1}, "at least 0"),
        ({"image_size": 0}, "at least 1"),
        ({"num_classes": 0}, "at least 1"),
    ],
)
def test_image_arguments_out_of_range(arguments, expected):
    ((name, value),) = arguments.items()
    with raises(name, str(value), expected):
        ImageDataModule("CIFAR10", **arguments)


@pytest.mark.parametrize("source", ["cifar10", "missing.npz", "no/such/folder", "README.md"])
def test_unknown_sources_are_told_what_there_is(tmp_path, source):
    (tmp_path / "README.md").write_text("no data")
    source = str(tmp_path / source) if source == "README.md" else source
    with raises(
        "source", repr(source), "MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN", "folder", ".npz"
    ):
        ImageDataModule(source)
