from pathlib import Path

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from safetensors.torch import save_file
from torch import nn

from interaction_train.errors import InputError
from interaction_train.models import DigitsNet, load_weights, pretrained, weights_tag
from interaction_train.training.module import InteractionClassifier


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DigitsNet(width=4)


def equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def entries(source: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.contiguous() for key, value in source.state_dict().items()}


def saved(folder: Path, kind: str, source: nn.Module) -> Path:
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file(entries(source), path)
    elif kind == "pt":
        torch.save(source.state_dict(), path)
    else:
        trainer = L.Trainer(
            logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=folder
        )
        trainer.strategy.connect(InteractionClassifier(source))
        trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pt", "ckpt"])
def test_files_of_all_kinds(kind, tmp_path):
    source, target = network(0), network(1)
    assert not equal(source, target)
    assert load_weights(target, saved(tmp_path, kind, source)) is target
    assert equal(source, target)


class Pair(L.LightningModule):
    """Calls its network in its own way, and may have another of the same kind."""

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        for name, one in networks.items():
            setattr(self, name, one)


def checkpoint(folder: Path, module: L.LightningModule) -> Path:
    torch.save({"state_dict": module.state_dict()}, folder / "pair.ckpt")
    return folder / "pair.ckpt"


def test_checkpoints_of_modules_of_one_s_own(tmp_path):
    source, target = network(0), network(1)
    load_weights(target, checkpoint(tmp_path, Pair(backbone=source, head=nn.Linear(3, 2))))
    assert equal(source, target)
    module = Pair(backbone=network(2))  # as a whole
    load_weights(module, checkpoint(tmp_path, Pair(backbone=source)))
    assert equal(source, module.backbone)
    target = network(1)
    load_weights(target, checkpoint(tmp_path, Pair(ema=network(2), model=source)))
    assert equal(source, target)
    with pytest.raises(InputError, match="which lacks"):  # which of the two is meant?
        load_weights(target, checkpoint(tmp_path, Pair(ema=network(2), net=network(3))))
    assert equal(source, target)


def test_wrapped_networks(tmp_path):
    source, target = network(0), network(1)
    load_weights(nn.DataParallel(target), saved(tmp_path, "safetensors", source))
    assert equal(source, target)


@pytest.mark.parametrize("name", ["digits_cnn", "digits_cnn.safetensors"])
def test_packaged_weights_from_yaml(name, tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "net")
    config = parser.parse_string(
        f"""
        net:
          class_path: interaction_train.models.pretrained
          init_args:
            model:
              class_path: interaction_train.models.DigitsNet
            weights: {name}
        """
    )
    built = parser.instantiate(config).net
    assert isinstance(built, DigitsNet)
    assert equal(built, pretrained(DigitsNet(), "digits_cnn"))
    assert not equal(built, DigitsNet())


def test_a_file_goes_before_a_packaged_name(tmp_path, monkeypatch):
    source, target = network(0), network(1)
    monkeypatch.chdir(tmp_path)
    save_file(entries(source), "digits_cnn.safetensors")
    assert equal(load_weights(target, "digits_cnn.safetensors"), source)


def test_bad_files_leave_the_network_alone(tmp_path):
    target, before = network(1), network(1)
    good = entries(network(0))
    cases = {
        "lacks": {k: v for k, v in good.items() if k != "classifier.4.bias"},
        "unknown": {**good, "surplus": torch.zeros(1)},
        "shape": {**good, "classifier.4.bias": torch.zeros(11)},
    }
    messages = {
        "lacks": "lacks classifier.4.bias",
        "unknown": "has the unknown surplus",
        "shape": r"classifier.4.bias of shape \(11,\), expected shape \(10,\)",
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(content, path)
        with pytest.raises(InputError, match=messages[name]):
            load_weights(target, path)
    for name in ("damaged.safetensors", "damaged.ckpt"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(InputError, match="a readable file"):
            load_weights(target, tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="with a list"):
        load_weights(target, tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"none\.ckpt', expected an existing file, or one of"):
        load_weights(target, "none.ckpt")
    assert equal(target, before)


def test_the_tag_tells_contents_apart():
    tag = weights_tag(network(0))
    assert len(tag) == 16
    assert tag == weights_tag(network(0)) == weights_tag(nn.DataParallel(network(0)))
    assert tag != weights_tag(network(1))
    changed = network(0)
    with torch.no_grad():
        changed.classifier[4].bias[0] += 1e-6
    assert tag != weights_tag(changed)
    assert weights_tag(nn.Linear(2, 3)) != weights_tag(nn.Linear(3, 2))
