from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch.nn import functional as F

from interaction_train.data import (
    Cutout,
    DigitsDataModule,
    ImageDataModule,
    TableDataModule,
    TextDataModule,
)
from interaction_train.data.keyed import RandomCropFlip
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet
from tests.data.files import epoch_of, raises, rows, write_npz

CUTOUT = Cutout(2, 0.1)


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


def test_digits_shift_by_one_pixel_and_never_flip():
    module = DigitsDataModule(augment=True)
    module.setup()
    assert module.parts["train"].augmentations == [RandomCropFlip(padding=1, flip=False)]
    module = DigitsDataModule()
    module.setup()
    assert module.parts["train"].augmentations == []


def test_digits_take_the_options_of_images():
    module = DigitsDataModule(batch_size=5, image_size=16, num_classes=12, augment=True, padding=2)
    x, _ = next(iter(module.train_dataloader()))
    assert x.shape == (5, 1, 16, 16)
    assert module.num_classes == 12
    assert module.parts["train"].augmentations == [RandomCropFlip(padding=2, flip=False)]


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


@pytest.mark.parametrize(
    "module", [DigitsDataModule, ImageDataModule, TableDataModule, TextDataModule]
)
@pytest.mark.parametrize("wrong", ["--batch_size=x", "--predict_split=all", "--val_fraction=few"])
def test_the_command_line_checks_types(module, wrong):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module)
    source = [] if module is DigitsDataModule else ["--source=wine"]
    with pytest.raises(ArgumentError, match=wrong[2:].partition("=")[0]):
        parser.parse_args([*source, wrong])
