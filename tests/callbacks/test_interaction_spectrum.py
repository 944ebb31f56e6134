"""The spectrum in fit and in validate, in one process and in two."""

import csv
import json

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from interaction_train.callbacks import SpectrumMonitor
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet
from interaction_train.module import InteractionClassifier
from interaction_train.pairs import RandomPairs
from tests.helpers import run_cli
from tests.metrics.watch import RATIOS, Watch, images, loader, metric, network, trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def monitor(**changes) -> SpectrumMonitor:
    options = {
        "rows": 4,
        "cols": 4,
        "samples": 5,
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


KEYS = {f"val/interaction/{name}/{r}" for name in ("J", "J_stderr") for r in ("0", "0.5", "1")}


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


def test_resuming_keeps_the_count():
    one, other = monitor(), monitor()
    one._validations = 7
    other.load_state_dict(one.state_dict())
    assert other._validations == 7


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


def test_two_processes_equal_one(tmp_path):
    """A metric over padded samples, and the callback, whose 5 samples divide unevenly."""
    results = []
    for name, options in (
        ("one", {}),
        ("two", {"devices": 2, "strategy": "ddp_spawn"}),
    ):
        path = tmp_path / f"{name}.pt"
        logger = CSVLogger(tmp_path, name=name)
        run = trainer(tmp_path, callbacks=[monitor()], logger=logger, **options)
        run.validate(Watch(path), loader(), verbose=False)
        written = json.loads((tmp_path / name / "version_0" / "spectrum.json").read_text())
        results.append((torch.load(path), written))
    (one, file_one), (two, file_two) = results
    assert one["samples"] == two["samples"] == 9
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6)
    assert file_one["samples"] == 5
    for key, value in file_one.items():
        assert file_two[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


def test_more_processes_than_samples_does_not_fail():
    class Two:
        global_rank, world_size = 1, 2

    x, y = monitor()._samples(loader(), 1, Two())
    assert x.shape == (0, 1, 8, 8)
    assert len(y) == 0
    assert metric().compute()["J_plug_in"].isnan().all()


def test_no_correct_sample_is_warned_about(tmp_path):
    class Wrong(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.zeros(len(x)).long(), 10).float()

    run = trainer(tmp_path, callbacks=[monitor(only_correct=True, baseline=0.0)])
    data = torch.utils.data.TensorDataset(images()[0], torch.ones(9, dtype=torch.int64))
    with pytest.warns(UserWarning, match="No sample for the interaction spectrum"):
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
        "--trainer.callbacks.init_args.samples", "3", "--trainer.callbacks.init_args.contexts", "4",
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
        ({"samples": 0}, "samples: got 0"),
        ({"every": 0}, "every: got 0"),
        ({"contexts": 1}, "contexts: got 1"),
        ({"reading": "abs"}, "reading: got 'abs'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        monitor(**options)
