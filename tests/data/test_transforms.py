import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from interaction_train.data import Cutout, DigitsDataModule, ImageDataModule
from interaction_train.data.keyed import RandomCropFlip
from interaction_train.errors import InputError
from interaction_train.sampling.random import Draws
from tests.data.files import epoch_of, raises, write_npz


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


class Sizes(nn.Module):
    def forward(self, x):
        return x[:, : int(torch.randint(3, 6, ()))]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("transform", "parts"),
    [
        (
            v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)]),
            ["-2.5", "2.5", "[0, 1]"],
        ),
        (v2.ToDtype(torch.float32), ["255", "[0, 1]"]),
        (v2.ToDtype(torch.int32), ["int32", "[0, 1]"]),
        (v2.ToPILImage(), ["Image", "tensors"]),
        (Sizes(), ["(3, 4, 6)", "one shape"]),
    ],
    ids=["normalised", "unscaled", "integers", "PIL", "sizes"],
)
def test_transforms_whose_images_cannot_be_used(tmp_path, transform, parts, workers):
    x = np.tile(np.array([0, 255], np.uint8), (40, 6, 3))[..., None].repeat(3, -1)
    write_npz(tmp_path / "a.npz", x_train=x)
    module = ImageDataModule(tmp_path / "a.npz", transform=transform, num_workers=workers)
    with raises("transform", *parts):
        list(module.train_dataloader())


def test_float64_transforms_come_out_as_float32(tmp_path):
    arrays = write_npz(tmp_path / "a.npz")
    to_double = v2.ToDtype(torch.float64, scale=True)
    module = ImageDataModule(tmp_path / "a.npz", transform=to_double)
    x, _ = epoch_of(module, 0)
    assert x.dtype == torch.float32
    module = ImageDataModule(tmp_path / "a.npz", augment=False)
    assert torch.allclose(x, epoch_of(module, 0)[0])
    assert len(arrays["x_train"]) == 40


def test_cutout_works_in_any_v2_pipeline():
    x = torch.zeros(3, 8, 9)
    torch.manual_seed(0)
    out, label = v2.Compose([v2.RandomHorizontalFlip(), Cutout(3, 0.25)])(x, 4)
    assert label == 4
    assert 1 <= int((out[0] == 0.25).sum()) <= 9
    assert "size=3, fill=0.25" in repr(Cutout(3, 0.25))
