import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchattacks
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks import AdversarialSet, read_adversarial_set
from interaction_train.attacks.sets.shards import (
    count,
    shard_path,
    write_batches,
    write_manifest,
)
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet

SIZE = 10


def pixels(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (SIZE, 1, 8, 8), generator=generator, dtype=torch.uint8)


def content(indices: list[int]) -> dict[str, torch.Tensor]:
    adversarial, clean = pixels(0), pixels(1)
    number = torch.arange(SIZE)
    return {
        "adversarial": adversarial[indices],
        "clean": clean[indices],
        "labels": (number % 3)[indices],
        "indices": torch.tensor(indices),
        "correct": (number < 8)[indices],
        "success": (number % 2 == 0)[indices],
    }


def folder_of(path: Path, *shards: list[int], finished: bool = True, samples: int = SIZE) -> Path:
    write_manifest(path, {"finished": finished, "counts": {"samples": samples}, "job": {}})
    for number, indices in enumerate(shards):
        write_batches(shard_path(path, number), [content(indices)])
    return path


def test_reads_in_order_and_each_image_once(tmp_path):
    # As two processes leave it, the second of which was given image 0 again.
    found = read_adversarial_set(folder_of(tmp_path, [0, 2, 4, 6, 8], [1, 3, 5], [7, 9, 0]))
    assert isinstance(found, AdversarialSet)
    assert found.indices.tolist() == list(range(SIZE))
    assert torch.equal(found.images, pixels(0).float() / 255)
    assert torch.equal(found.clean, pixels(1).float() / 255)
    assert found.labels.tolist() == [i % 3 for i in range(SIZE)]
    assert found.success.tolist() == [i % 2 == 0 for i in range(SIZE)]
    assert found.correct.tolist() == [i < 8 for i in range(SIZE)]
    assert found.targets is None
    assert found.manifest["finished"]
    x, y = next(iter(DataLoader(found, batch_size=4)))
    assert torch.equal(x, found.images[:4])
    assert torch.equal(y, found.labels[:4])


def test_counts_each_image_once(tmp_path):
    counts = count(folder_of(tmp_path, [0, 2, 4, 6, 8], [1, 3, 5], [7, 9, 0]))
    assert (counts["samples"], counts["correct"], counts["successes"]) == (10, 8, 4)
    distance = (pixels(0).double() - pixels(1).double()).abs().flatten(1).amax(1) / 255
    assert counts["mean_linf"] == pytest.approx(float(distance.mean()), abs=1e-12)
    assert counts["max_linf"] == pytest.approx(float(distance.max()), abs=1e-12)


def test_shards_with_and_without_byte_pixels(tmp_path):
    folder_of(tmp_path, [0, 1], samples=4)
    other = {**content([2, 3]), "clean": torch.full((2, 1, 8, 8), 3 / 16)}
    write_batches(shard_path(tmp_path, 1), [other])
    clean = read_adversarial_set(tmp_path).clean
    assert torch.equal(clean[:2], pixels(1)[:2].float() / 255)
    assert torch.equal(clean[2:], other["clean"])


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_hold_the_pixels(channels, tmp_path):
    images = pixels(0).expand(-1, channels, -1, -1).contiguous()
    batch = {"adversarial": images, "indices": torch.arange(SIZE) + 5}
    write_batches(shard_path(tmp_path, 0), [batch], png=True)
    read = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "png").iterdir())]
    assert sorted(p.name for p in (tmp_path / "png").iterdir())[0] == "000005.png"
    expected = images.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack(read).reshape(expected.shape), expected)


def test_incomplete_sets_are_refused(tmp_path):
    half = folder_of(tmp_path / "half", [0, 1], finished=False)
    with pytest.raises(InputError, match="not finished"):
        read_adversarial_set(half)
    assert read_adversarial_set(half, unfinished=True).indices.tolist() == [0, 1]
    with pytest.raises(InputError, match="with 2 images, expected 10"):
        read_adversarial_set(folder_of(tmp_path / "lost", [0, 1]))
    with pytest.raises(InputError, match="without a shard"):
        read_adversarial_set(folder_of(tmp_path / "none"))
    cut = folder_of(tmp_path / "cut", list(range(SIZE)))
    shard = shard_path(cut, 0)
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(InputError, match="a whole shard"):
        read_adversarial_set(cut)


def test_what_is_no_set_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a folder with manifest\.json"):
        read_adversarial_set(tmp_path)
    with pytest.raises(InputError, match=r"a folder with manifest\.json"):
        read_adversarial_set(tmp_path / "missing")
    manifest = tmp_path / "manifest.json"
    for text, message in (("{", "in JSON"), ("[]", "'list'"), ('{"format": "x"}', "'x'")):
        manifest.write_text(text)
        with pytest.raises(InputError, match=message):
            read_adversarial_set(tmp_path)
    for name, value in (("text.pt", b"text"), ("list.pt", None)):
        path = tmp_path / name
        path.write_bytes(value) if value else torch.save([1], path)
        with pytest.raises(InputError, match=r"Attack\.save"):
            read_adversarial_set(path)


@pytest.mark.parametrize("kind", ["float", "int"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_file_of_torchattacks(kind, clean, tmp_path):
    x, y = pixels(1).float() / 255, torch.arange(SIZE)
    attack = torchattacks.FGSM(DigitsNet(width=4).eval(), eps=0.1)
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    path = tmp_path / "saved.pt"
    attack.save(loader, str(path), verbose=False, save_clean_inputs=clean, save_type=kind)
    found = read_adversarial_set(path)
    expected = attack(x, y)
    if kind == "int":
        expected = (expected * 255).to(torch.uint8).float() / 255
    assert torch.equal(found.images, expected)
    assert found.labels.tolist() == y.tolist()
    assert found.indices.tolist() == list(range(SIZE))
    assert found.success is None
    assert found.manifest == {}
    if clean:
        assert float((found.clean - x).abs().max()) <= (0 if kind == "float" else 1 / 255)
    else:
        assert found.clean is None


def test_nothing_half_written_bears_the_name(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    folder_of(tmp_path, [0, 1], samples=2)
    before = json.loads((tmp_path / "manifest.json").read_text())
    monkeypatch.setattr("os.replace", fail)  # the moment before a file gets its name
    for write in (
        lambda: write_batches(shard_path(tmp_path, 1), [content([2])]),
        lambda: write_manifest(tmp_path, {"finished": False}),
        lambda: write_batches(shard_path(tmp_path, 1), [content([2])], png=True),
    ):
        with pytest.raises(KeyboardInterrupt):
            write()
    assert not shard_path(tmp_path, 1).exists()
    assert not list(tmp_path.glob("png/*.png"))
    assert json.loads((tmp_path / "manifest.json").read_text()) == before
    assert len(read_adversarial_set(tmp_path)) == 2
