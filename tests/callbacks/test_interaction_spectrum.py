"""The spectrum in fit and in validate, in one process and in two."""

import csv
import json

import lightning as L
import pytest
import torch
import torchattacks
from lightning.pytorch.loggers import CSVLogger, Logger

from interaction_train.callbacks import SpectrumMonitor
from interaction_train.callbacks.samples import shard
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet
from interaction_train.sampling.pairs import RandomPairs
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import RATIOS, images, loader, metric, network, trainer
from tests.testing import run_cli

pytestmark = pytest.mark.filterwarnings("ignore")


def monitor(**changes) -> SpectrumMonitor:
    options = {
        "rows": 4,
        "cols": 4,
        "n_samples": 5,
        "every": 1,
        "contexts": 6,
        "ratios": RATIOS,
        "pairs": RandomPairs(1, 5),
        "only_correct": False,
    }
    return SpectrumMonitor(**{**options, **changes})


class Memory(Logger):
    """Keeps what is logged."""

    name, version = "memory", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append(metrics)

    def log_hyperparams(self, *args, **more):
        pass


NAMES = ("J", "J_stderr", "signed", "signed_stderr")
KEYS = {f"val/interaction/{name}/{r}" for name in NAMES for r in ("0", "0.5", "1")}


def fit(tmp_path, *callbacks, **options):
    L.seed_everything(0)
    module = InteractionClassifier(DigitsNet(width=4, dropout=0.3))
    memory = Memory()
    run = trainer(
        tmp_path, max_epochs=4, limit_train_batches=3, limit_val_batches=2, logger=memory,
        callbacks=list(callbacks), **options,
    )  # fmt: skip
    run.fit(module, datamodule=DigitsDataModule())
    return module, memory.rows, torch.get_rng_state()


def test_training_is_the_same_bit_for_bit(tmp_path):
    plain, rows, rng = fit(tmp_path)
    watched, watched_rows, watched_rng = fit(tmp_path, monitor(every=3))
    for one, other in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(rng, watched_rng)
    assert not any(KEYS & row.keys() for row in rows)
    found = [row.keys() >= KEYS for row in watched_rows if "val/loss" in row]
    assert found == [True, False, False, True]


def test_logged_values_are_those_of_the_metric(tmp_path):
    module, rows, _ = fit(tmp_path, monitor())
    data = DigitsDataModule()
    data.setup("fit")
    part = data.val_dataloader().dataset
    x, y = (torch.stack(p) for p in zip(*(part[i * len(part) // 5] for i in range(5)), strict=True))
    measured = metric()
    measured.update(module.model, x, y)
    result = measured.compute()
    last = [row for row in rows if row.keys() >= KEYS][-1]
    for ratio, value in zip(("0", "0.5", "1"), result["J_plug_in"], strict=True):
        assert last[f"val/interaction/J/{ratio}"] == pytest.approx(float(value), rel=1e-4)


def test_history_over_a_resumed_run(tmp_path):
    """Every point once, and what the table says is what was logged."""
    save = L.pytorch.callbacks.ModelCheckpoint(tmp_path, filename="first", save_top_k=-1)
    options = {"enable_checkpointing": True, "limit_val_batches": 1, "limit_train_batches": 2}

    def run(name, epochs, checkpoint=None):
        L.seed_everything(0)
        logger = CSVLogger(tmp_path, name=name)
        every_second = monitor(every=2)
        run = trainer(
            tmp_path, max_epochs=epochs, logger=logger, callbacks=[every_second, save], **options
        )
        run.fit(
            InteractionClassifier(network()), datamodule=DigitsDataModule(), ckpt_path=checkpoint
        )
        return every_second.history, tmp_path / name / "version_0"

    whole, folder = run("whole", 5)
    assert [point["epoch"] for point in whole] == [0, 2, 4]
    with (folder / "tables" / "val_interaction_history.csv").open() as file:
        table = list(csv.DictReader(file))
    with (folder / "metrics.csv").open() as file:
        key = "val/interaction/signed/0.5"
        logged = [row for row in csv.DictReader(file) if row[key]]
    assert [float(row[key]) for row in table] == pytest.approx([float(r[key]) for r in logged])
    assert [int(row["epoch"]) for row in table] == [0, 2, 4]
    assert (folder / "figures" / "val_interaction_J_over_training.png").stat().st_size > 1000
    run("first", 2)
    last = sorted(tmp_path.glob("first*.ckpt"), key=lambda path: path.stat().st_mtime)[-1]
    torch.load(last, weights_only=True)
    resumed, _ = run("resumed", 5, last)
    assert resumed == whole


def test_test_after_fit_measures_the_test_images(tmp_path):
    data = DigitsDataModule()
    run = trainer(
        tmp_path, max_epochs=1, limit_train_batches=1, callbacks=[monitor()],
        logger=CSVLogger(tmp_path, name="run"),
    )  # fmt: skip
    run.fit(InteractionClassifier(network()), datamodule=data)
    run.test(run.lightning_module, datamodule=data, verbose=False)
    found = json.loads((tmp_path / "run" / "version_0" / "spectrum.json").read_text())
    measured = metric()
    part = data.parts["test"]
    measured.update(
        run.lightning_module.model, *part.__getitems__([i * len(part) // 5 for i in range(5)])
    )
    assert found["J_rms"] == pytest.approx(measured.compute()["J_rms"].tolist(), rel=1e-4)


def test_adversarial_versions_of_the_same_samples(tmp_path):
    """The adversarial part is the metric on what the attack makes of the correct samples."""

    def attack(net):
        return torchattacks.FGSM(net, eps=0.2)

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )
    x, _ = images(12)
    y = net(x).argmax(-1)
    y[::3] = (y[::3] + 1) % 10  # a third is wrong
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    run = trainer(
        tmp_path, callbacks=[monitor(n_samples=12, attack=attack, only_correct=True, baseline=0.3)],
        logger=CSVLogger(tmp_path, name="run"),
    )  # fmt: skip
    run.validate(InteractionClassifier(net), data, verbose=False)
    found = json.loads((tmp_path / "run" / "version_0" / "spectrum.json").read_text())
    right = net(x).argmax(-1) == y
    adversarial = torchattacks.FGSM(net.eval(), eps=0.2)(x[right], y[right])
    assert (net(adversarial).argmax(-1) != y[right]).any()
    for part, inputs in ((found, x[right]), (found["adversarial"], adversarial)):
        measured = metric(baseline=0.3)
        measured.update(net, inputs, y[right])
        assert part["samples"] == int(right.sum()) == 8
        for key, value in measured.compute().items():
            assert part[key] == pytest.approx(value.tolist(), rel=1e-4, abs=1e-6), key
    with (tmp_path / "run" / "version_0" / "metrics.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row.get("val/interaction/adv/J/0.5"))
    expected = found["adversarial"]["signed"][1]
    assert float(row["val/interaction/adv/signed/0.5"]) == pytest.approx(expected)


def test_validate_writes_and_prints(tmp_path, capsys):
    logger = CSVLogger(tmp_path, name="run")
    run = trainer(tmp_path, callbacks=[monitor()], logger=logger)
    run.validate(InteractionClassifier(network()), loader(), verbose=False)
    printed = capsys.readouterr().out
    assert "J(m) on 5 samples, 4 × 4 grid" in printed
    folder = tmp_path / "run" / "version_0"
    result = json.loads((folder / "spectrum.json").read_text())
    assert result["orders"] == [0, 7, 14]
    assert result["samples"] == 5
    with (folder / "spectrum.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["J_plug_in"]) for row in rows] == pytest.approx(result["J_plug_in"])
    assert (folder / "spectrum.png").stat().st_size > 1000
    x, y = images()
    measured = metric()
    places = [i * 9 // 5 for i in range(5)]
    measured.update(network(), x[places], y[places])
    assert result["J_rms"] == pytest.approx(measured.compute()["J_rms"].tolist(), rel=1e-4)


def test_more_processes_than_samples_does_not_fail():
    class Two:
        global_rank, world_size = 1, 2

    assert shard([0], Two()) == []
    assert metric().compute()["J_plug_in"].isnan().all()


def test_no_correct_sample_is_warned_about(tmp_path):
    class Wrong(torch.nn.Module):
        def forward(self, x):
            return 10.0 * torch.nn.functional.one_hot(torch.zeros(len(x)).long(), 10)

    run = trainer(tmp_path, callbacks=[monitor(only_correct=True, baseline=0.0)])
    data = torch.utils.data.TensorDataset(images()[0], torch.ones(9, dtype=torch.int64))
    with pytest.warns(UserWarning, match=r"No sample for J\(m\)"):
        run.validate(
            InteractionClassifier(Wrong()), torch.utils.data.DataLoader(data), verbose=False
        )


def test_from_the_command_line_with_a_checkpoint(tmp_path, capsys):
    module, _, _ = fit(tmp_path)
    module.trainer.save_checkpoint(tmp_path / "net.ckpt")
    run_cli(
        "validate", "--config", "spectrum_digits.yaml", "--trainer.default_root_dir", str(tmp_path),
        "--wandb", "disabled", "--model.model.init_args.width", "4",
        "--model.model.init_args.dropout", "0.3", "--ckpt_path", str(tmp_path / "net.ckpt"),
        "--trainer.callbacks.init_args.n_samples", "3",
        "--trainer.callbacks.init_args.contexts", "4",
        "--trainer.callbacks.init_args.only_correct", "false",
    )  # fmt: skip
    assert "J(m) on 3 samples, 8 × 8 grid" in capsys.readouterr().out
    folder = tmp_path / "spectrum_digits" / "version_0"
    assert {"spectrum.csv", "spectrum.json", "spectrum.png"} <= {p.name for p in folder.iterdir()}


def test_reference_orders_that_coincide_are_taken_once():
    assert monitor(ratios=None).metric.ratios == (
        0,
        0.05,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
        1,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "n_samples: got 0"),
        ({"every": 0}, "every: got 0"),
        ({"contexts": 1}, "contexts: got 1"),
        ({"reading": "abs"}, "reading: got 'abs'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        monitor(**options)
