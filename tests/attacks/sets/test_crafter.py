import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torchattacks
from lightning.pytorch.callbacks import TQDMProgressBar
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks import IRAttack, read_adversarial_set
from interaction_train.attacks.norms import round_to_bytes
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet, pretrained
from interaction_train.training.module import InteractionClassifier
from tests.attacks.jobs import crafter, images, ir_attack, loader, predict
from tests.testing import run_cli

ROOT = Path(__file__).parents[3]
QUICK = ["--model.attack.steps", "5", "--model.attack.alpha", "0.05"]
FOLDER = Path("attack_ir_digits", "adversarial")


def command(folder: Path, *args: str) -> list[str]:
    return [
        "predict", "--config", "attack_ir_digits.yaml", "--wandb", "disabled",
        "--trainer.default_root_dir", str(folder), *args,
    ]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which says how long it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_the_packaged_job(tmp_path, capsys):
    run_cli(*command(tmp_path, *QUICK))
    found = read_adversarial_set(tmp_path / FOLDER)
    ((x, y),) = DigitsDataModule(batch_size=1000).predict_dataloader()
    network = pretrained(DigitsNet(), "digits_cnn").eval()
    assert torch.equal(found.clean, x)
    assert torch.equal(found.labels, y)
    assert found.indices.tolist() == list(range(len(x)))

    manifest = found.manifest
    assert manifest["job"]["attack"]["class"].endswith("IRAttack")
    assert manifest["job"]["attack"]["objective"]["reduction"]["draws"] == 8
    eps = manifest["job"]["eps"]
    delta = (found.images.double() - x.double()).abs()
    assert 0.9 * eps < float(delta.amax()) <= eps + 1e-7

    with torch.no_grad():
        correct = network(x).argmax(1) == y
        fooled = network(found.images).argmax(1) != y
    assert torch.equal(found.correct, correct)
    assert torch.equal(found.success, fooled)
    successes = Proportion(int((correct & fooled).sum()), int(correct.sum()))
    assert manifest["counts"]["samples"] == len(x)
    assert manifest["counts"]["correct"] == successes.total
    assert manifest["counts"]["successes"] == successes.successes
    shown = capsys.readouterr().out
    low, high = successes.interval
    assert f"{successes.rate:.4f} (95 % interval {low:.4f} to {high:.4f})" in shown
    assert successes.rate > 0.9

    pictures = sorted((tmp_path / FOLDER / "png").iterdir())
    stored = np.stack([np.asarray(Image.open(path)) for path in pictures])
    assert np.array_equal(stored, found.tensors["adversarial"].squeeze(1).numpy())

    before = files(tmp_path / FOLDER)
    run_cli(*command(tmp_path, *QUICK))  # finished already: nothing to do
    assert files(tmp_path / FOLDER) == before
    assert read_adversarial_set(tmp_path / FOLDER).manifest == manifest


def test_what_is_stored_is_what_the_attack_returns_rounded(tmp_path):
    predict(tmp_path, crafter(), loader())
    found = read_adversarial_set(tmp_path / "set")
    x, y = images()
    adversarial = ir_attack(crafter().model)(x, y)
    assert torch.equal(found.tensors["adversarial"], round_to_bytes(adversarial, x, 0.1))
    levels = found.tensors["adversarial"].long() - found.tensors["clean"].long()
    assert found.tensors["clean"].dtype == torch.uint8
    assert int(levels.abs().max()) == 25  # floor(.1 · 255)


def test_float32_keeps_what_the_attack_returns(tmp_path):
    predict(tmp_path, crafter(pixels="float32"), loader())
    x, y = images()
    adversarial = ir_attack(crafter().model)(x, y)
    assert torch.equal(read_adversarial_set(tmp_path / "set").images, adversarial)


def test_a_killed_job_goes_on_and_ends_the_same(tmp_path):
    """torchattacks' PGD starts at random points, drawn from torch's global state."""
    options = ["--model.attack", "torchattacks.PGD", "--model.attack.steps", "2"]
    options += [
        "--trainer.callbacks.batches_per_shard",
        "2",
        "--trainer.limit_predict_batches",
        "5",
    ]
    run_cli(*command(tmp_path / "whole", *options))
    kill = ["--trainer.callbacks+", "tests.attacks.jobs.KillAtBatch", "--trainer.callbacks.batches"]
    arguments = [*command(tmp_path / "killed", *options), *kill, "3"]
    result = subprocess.run(
        [sys.executable, "-m", "interaction_train", *arguments, "--trainer.accelerator", "cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as here: sums depend on it
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    killed, whole = tmp_path / "killed" / FOLDER, tmp_path / "whole" / FOLDER
    # The third batch waited for the fourth, which would have filled its shard.
    assert [path.name for path in killed.glob("shard*")] == ["shard_00000.safetensors"]
    with pytest.raises(InputError, match="not finished"):
        read_adversarial_set(killed)
    kept = (killed / "shard_00000.safetensors").stat()
    run_cli(*command(tmp_path / "killed", *options))
    assert (killed / "shard_00000.safetensors").stat().st_mtime_ns == kept.st_mtime_ns
    assert files(killed) == files(whole)
    assert len(files(whole)) == 3 + 5 * 64
    manifests = [read_adversarial_set(folder).manifest for folder in (killed, whole)]
    assert manifests[0]["counts"] == manifests[1]["counts"]
    assert manifests[0]["job"] == manifests[1]["job"]


def test_two_processes_craft_what_one_does(tmp_path):
    """21 images for two processes in batches of 4: one has 11 in three batches, the other 10."""
    for name, devices in (("one", 1), ("two", 2)):
        predict(tmp_path / name, crafter(), loader(), devices)
    one, two = (read_adversarial_set(tmp_path / name / "set") for name in ("one", "two"))
    assert len(list((tmp_path / "two" / "set").glob("shard*"))) == 6
    assert two.manifest["counts"] == one.manifest["counts"]
    assert two.manifest["counts"]["samples"] == 21
    assert two.tensors.keys() == one.tensors.keys()
    for name, value in one.tensors.items():
        assert torch.equal(two.tensors[name], value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model.attack.eps", "0.1"], "attack.eps = 0.2, expected attack.eps = 0.1"),
        (["--model.attack.draws", "4"], "attack.objective.reduction.draws = 8"),
        (["--model.attack", "torchattacks.PGD"], "attack.class = "),
        (["--model.seed", "1"], "seed = 0, expected seed = 1"),
        (["--model.model.weights", "digits_cnn2"], "surrogate.weights = "),
        (["--data.predict_split", "val"], "data.split = test"),
        (["--data.batch_size", "32"], "batch_size = 64"),
    ],
)
def test_another_job_s_folder_is_left_alone(change, message, tmp_path, capsys):
    options = ["--trainer.limit_predict_batches", "1", "--model.attack.steps", "1"]
    run_cli(*command(tmp_path, *options))
    if "digits_cnn2" in change:
        other = pretrained(DigitsNet(), "digits_cnn")
        with torch.no_grad():
            other.classifier[4].bias += 1e-3
        path = tmp_path / "other.safetensors"
        save_file({k: v.contiguous() for k, v in other.state_dict().items()}, path)
        change = [*change[:-1], str(path)]
    before = files(tmp_path / FOLDER)
    manifest = (tmp_path / FOLDER / "manifest.json").read_bytes()
    with pytest.raises(SystemExit) as exit_:
        run_cli(*command(tmp_path, *options, *change))
    assert exit_.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert message in line
    assert files(tmp_path / FOLDER) == before
    assert (tmp_path / FOLDER / "manifest.json").read_bytes() == manifest


def test_overwriting_another_job(tmp_path):
    predict(tmp_path, crafter(), loader(batch_size=2))
    with pytest.raises(InputError, match="batch_size = 2"):
        predict(tmp_path, crafter(), loader(batch_size=8))
    predict(tmp_path, crafter(), loader(batch_size=8), overwrite=True)
    assert len(list((tmp_path / "set").glob("shard*"))) == 3
    assert len(read_adversarial_set(tmp_path / "set")) == 21


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"thesis\.tex and without a manifest"):
        predict(tmp_path, crafter(), loader(), overwrite=True)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["thesis.tex"]


def test_shards_of_other_images_are_noticed(tmp_path):
    predict(tmp_path, crafter(), loader())
    path = tmp_path / "set" / "shard_00002.safetensors"
    shard = load_file(path)
    shard["clean"][1, 0, 3, 3] ^= 1
    save_file(shard, path)
    with pytest.raises(InputError, match="with other images"):
        predict(tmp_path, crafter(), loader())


def plain(module, data, folder, **options):
    """Predict without writing."""
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        **options,
    ).predict(module, data)


def global_draws() -> list[float]:
    return [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: NPY002


def seed_everything() -> None:
    L.seed_everything(3, verbose=False)


@pytest.mark.parametrize("attack", ["CW", "PGD", "Pixle"])
def test_no_trace(attack, tmp_path):
    """CW calls backward(), PGD draws from torch's global state and Pixle from NumPy's."""
    options = {"steps": 2} if attack != "Pixle" else {"restarts": 2, "max_iterations": 2}
    module = crafter(lambda model: getattr(torchattacks, attack)(model, **options))
    network = module.model
    network.train()
    network.network.classifier.eval()
    next(network.parameters()).requires_grad_(False)
    modes = [m.training for m in network.modules()]
    wanted = [p.requires_grad for p in network.parameters()]
    values = {key: value.clone() for key, value in network.state_dict().items()}
    seed_everything()
    expected = global_draws()
    seed_everything()
    # A loader whose passes take no number from the global state.
    data = DigitsDataModule(batch_size=4)
    results = plain(module, data, tmp_path, limit_predict_batches=2)
    assert len(results) == 2
    assert global_draws() == expected
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == wanted
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(v, values[k]) for k, v in network.state_dict().items())


def test_l2_and_unbounded_attacks(tmp_path):
    x, _ = images()
    predict(tmp_path / "l2", crafter(lambda m: torchattacks.PGDL2(m, eps=0.5)), loader())
    found = read_adversarial_set(tmp_path / "l2" / "set")
    reached = (found.images.double() - x.double()).flatten(1).norm(dim=1)
    assert bool((reached <= 0.5).all())
    assert float(reached.mean()) > 0.45
    assert (found.manifest["job"]["norm"], found.manifest["job"]["eps"]) == ("L2", 0.5)
    predict(tmp_path / "cw", crafter(lambda m: torchattacks.CW(m, c=10, steps=3)), loader())
    assert read_adversarial_set(tmp_path / "cw" / "set").manifest["job"]["eps"] is None


@pytest.mark.parametrize("targets", ["random", "least_likely"])
def test_targets_are_kept_and_reached(targets, tmp_path):
    attack = lambda model: IRAttack(model, eps=0.5, alpha=0.1, grid=4, draws=2, size=4)  # noqa: E731
    predict(tmp_path, crafter(attack, targets=targets), loader())
    found = read_adversarial_set(tmp_path / "set")
    network = crafter().model.eval()
    with torch.no_grad():
        reached = network(found.images).argmax(1)
        logits = network(found.clean)
    assert bool((found.targets != found.labels).all())
    assert torch.equal(found.success, reached == found.targets)
    assert float(found.success.float().mean()) > 0.8
    if targets == "least_likely":
        others = logits.scatter(1, found.labels.unsqueeze(1), float("inf"))
        assert torch.equal(found.targets, others.argmin(1))
    assert found.manifest["job"]["attack"]["mode"].startswith("targeted")


def test_the_progress_bar_shows_the_running_success(tmp_path, capsys):
    module = crafter()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[TQDMProgressBar()], default_root_dir=tmp_path
    )
    results = trainer.predict(module, loader())
    correct = torch.cat([result["correct"] for result in results])
    success = torch.cat([result["success"] for result in results])
    rate = float((correct & success).sum() / correct.sum())
    assert f"white-box success {rate:.1%}" in "".join(capsys.readouterr())


def test_a_fast_dev_run_writes_nothing(tmp_path):
    run_cli(*command(tmp_path, "--trainer.fast_dev_run", "1", "--model.attack.steps", "1"))
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.full((2, 1, 8, 8), 1.5), torch.tensor([0, 1]), "images: got values from 1.5 to 1.5"),
        (torch.full((2, 1, 8, 8), float("nan")), torch.tensor([0, 1]), "images: got values"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), "images: got .*uint8"),
        (torch.zeros(2, 64), torch.tensor([0, 1]), "images: got .*64"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0.0, 1.0]), "labels: got .*float32"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([[0], [1]]), "labels: got .*, 1"),
    ],
)
def test_bad_batches(x, y, message, tmp_path):
    with pytest.raises(InputError, match=message):
        plain(crafter(), DataLoader(TensorDataset(x, y), batch_size=2), tmp_path)


def test_bad_jobs(tmp_path):
    with pytest.raises(InputError, match="pixels"):
        crafter(pixels="uint16")
    with pytest.raises(InputError, match="targets"):
        crafter(targets="label")
    with pytest.raises(InputError, match="attack: got Linear"):
        plain(crafter(lambda model: torch.nn.Linear(1, 1)), loader(), tmp_path)
    with pytest.raises(InputError, match="SparseFool cannot aim"):
        plain(crafter(torchattacks.SparseFool, targets="random"), loader(), tmp_path)
    with pytest.raises(InputError, match="png"):
        predict(tmp_path, crafter(pixels="float32"), loader(), png=True)
    with pytest.raises(InputError, match="batches_per_shard"):
        predict(tmp_path, crafter(), loader(), batches_per_shard=0)
    with pytest.raises(InputError, match="expected an AdversarialCrafter"):
        predict(tmp_path, InteractionClassifier(DigitsNet()), loader())
    assert not (tmp_path / "set").exists()


def test_a_stopped_job_s_manifest_says_so(tmp_path):
    class Stop(L.Callback):
        def on_predict_batch_end(self, *args, **kwargs) -> None:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        predict(tmp_path, crafter(), loader(), callbacks=[Stop()])
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert not manifest["finished"]
    assert manifest["counts"] is None
    found = read_adversarial_set(tmp_path / "set", unfinished=True)
    assert torch.equal(found.clean, images()[0][:4])


def test_a_full_disk_names_the_file_and_the_job_goes_on(tmp_path):
    """A limit on the size of files, from the second batch on, stands for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(L.Callback):
        def on_predict_batch_end(self, *args, **kwargs) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))

    try:
        with pytest.raises(OSError, match=r"File too large: .*shard_00001\.safetensors"):
            predict(tmp_path, crafter(), loader(), callbacks=[Fill()], batches_per_shard=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(files(tmp_path / "set")) == ["shard_00000.safetensors"]  # nor a draft
    predict(tmp_path, crafter(), loader(), batches_per_shard=1)
    predict(tmp_path / "whole", crafter(), loader(), batches_per_shard=1)
    assert files(tmp_path / "set") == files(tmp_path / "whole" / "set")
