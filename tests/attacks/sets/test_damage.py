"""Damaged files of a crafted set: one line names the file; the rest is kept and gone on with."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from interaction_train.attacks import read_adversarial_set
from interaction_train.errors import InputError
from tests.attacks.jobs import crafter, ir_attack, loader, predict
from tests.testing import run_cli


@pytest.fixture
def crafted(tmp_path):
    predict(tmp_path, crafter(), loader())
    return tmp_path


def without(name):
    def change(path):
        save_file({k: v for k, v in load_file(path).items() if k != name}, path)

    return change


def longer(path):
    shard = load_file(path)
    save_file({**shard, "labels": torch.cat([shard["labels"], shard["labels"]])}, path)


def smaller(path):
    save_file({**load_file(path), "clean": torch.zeros(4, 1, 6, 6, dtype=torch.uint8)}, path)


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "no labels": without("labels"),
    "no success": without("success"),
    "two lengths": longer,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_is_named_and_crafted_anew(kind, crafted):
    path = crafted / "set" / "shard_00002.safetensors"
    whole = {p.name: p.read_bytes() for p in (crafted / "set").glob("shard*")}
    DAMAGE[kind](path)
    for read in (
        lambda: read_adversarial_set(crafted / "set"),
        lambda: predict(crafted, crafter(), loader()),
    ):
        with pytest.raises(InputError, match=r"shard_00002\.safetensors.*delete the file") as error:
            read()
        assert "\n" not in str(error.value)
    path.unlink()  # as the message says
    manifest = json.loads((crafted / "set" / "manifest.json").read_text())
    (crafted / "set" / "manifest.json").write_text(json.dumps({**manifest, "finished": False}))
    predict(crafted, crafter(), loader())
    assert {p.name: p.read_bytes() for p in (crafted / "set").glob("shard*")} == whole
    assert len(read_adversarial_set(crafted / "set")) == 21


def test_a_lost_shard_of_a_finished_set_comes_back(crafted):
    before = read_adversarial_set(crafted / "set")
    (crafted / "set" / "shard_00001.safetensors").unlink()
    with pytest.raises(InputError, match="with 17 images, expected 21"):
        read_adversarial_set(crafted / "set")
    predict(crafted, crafter(), loader())
    after = read_adversarial_set(crafted / "set")
    assert torch.equal(after.images, before.images)
    assert after.manifest["counts"] == before.manifest["counts"]


def test_shards_that_do_not_go_together(crafted):
    path = crafted / "set" / "shard_00003.safetensors"
    smaller(path)
    with pytest.raises(InputError, match=r"shard_00003\.safetensors.*unlike the first"):
        read_adversarial_set(crafted / "set")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("job"), "without one of its entries"),
        (lambda m: m.pop("finished"), "without one of its entries"),
        (lambda m: m.update(counts=None), "without one of its entries"),
        (lambda m: m.update(counts={"samples": "many"}), "without one of its entries"),
        (lambda m: m.update(counts=[1]), "without one of its entries"),
        (lambda m: m.update(format="else"), "of the format 'else'"),
    ],
)
def test_a_damaged_manifest_is_named(change, message, crafted):
    path = crafted / "set" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    for read in (
        lambda: read_adversarial_set(crafted / "set"),
        lambda: predict(crafted, crafter(), loader()),
    ):
        with pytest.raises(InputError, match=rf"manifest\.json.*{message}"):
            read()
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InputError, match=r"manifest\.json'.*in JSON"):
        read_adversarial_set(crafted / "set")
    assert len(list((crafted / "set").glob("shard*"))) == 6


def test_a_job_that_crafted_nothing_leaves_no_folder_to_clear(tmp_path):
    def broken(model):
        attack = ir_attack(model)
        attack.set_mode_targeted_by_label(quiet=True)
        return attack

    with pytest.raises(InputError, match="the label itself"):
        predict(tmp_path, crafter(broken), loader())
    predict(tmp_path, crafter(), loader())
    assert len(read_adversarial_set(tmp_path / "set")) == 21


def test_targets_from_the_command_line(tmp_path):
    run_cli(
        "predict", "--config", "attack_ir_digits.yaml", "--wandb", "disabled",
        "--trainer.default_root_dir", str(tmp_path), "--trainer.limit_predict_batches", "1",
        "--model.attack.steps", "1", "--model.targets", "[3, 7]",
    )  # fmt: skip
    folder = tmp_path / "attack_ir_digits" / "adversarial"
    found = read_adversarial_set(folder, unfinished=True)
    assert set(found.targets.tolist()) == {3, 7}
    assert bool((found.targets != found.labels).all())
    versions = found.manifest["versions"]
    assert {"interaction-train", "torch", "torchattacks", "python"} <= versions.keys()
    with pytest.raises(SystemExit):
        run_cli("predict", "--config", "attack_ir_digits.yaml", "--model.targets", "likely")
