"""Recovered interactions in fit and in validate; two processes are in test_two_processes.py."""

import csv
import json
import math
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import interaction_train as it
from interaction_train.callbacks import RecoveryMonitor
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import images, network, trainer
from tests.testing import colour_npz, run_cli

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

NOT_EXPLAINED = "this game is not explained by a few interactions"


def monitor(**changes) -> RecoveryMonitor:
    """4 × 4 cells, 3 samples, 64 coalitions."""
    options = {"rows": 4, "cols": 4, "n_samples": 3, "every": 1, "budget": 64, "count": 6}
    return RecoveryMonitor(**{**options, "shown": 1, **changes})


def keys(split: str = "val", orders: int = 10) -> set[str]:
    shares = {f"order/{m}" for m in range(1, orders + 1)}
    return {f"{split}/recovery/{key}" for key in ({"r2", "r2_surrogate"} | shares)}


def logged(folder) -> list[dict[str, float]]:
    """The measurements that a run's CSV logger has."""
    with (folder / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if any("/recovery/" in key for key in row)]


def measured(tmp_path, net, x, y, *callbacks, command="validate"):
    run = trainer(tmp_path, callbacks=list(callbacks), logger=CSVLogger(tmp_path, name="run"))
    data = DataLoader(TensorDataset(x, y), batch_size=4)
    getattr(run, command)(InteractionClassifier(net), data, verbose=False)
    folder = tmp_path / "run" / "version_0"
    return folder, json.loads((folder / "recovery.json").read_text())


class Known(nn.Module):
    """The logit 2 (r0c0 ∧ r1c2) − 1.5 (r0c1 ∨ r3c3) + r2c2 of images of 4 × 4 pixels."""

    def forward(self, x):
        there = (x.flatten(1) > 0.5).double()
        either = 1 - (1 - there[:, 1]) * (1 - there[:, 15])
        z = 2 * there[:, 0] * there[:, 6] - 1.5 * either + there[:, 10]
        return torch.cat([z[:, None], torch.zeros(len(z), 9)], 1)


def test_a_network_of_known_interactions(tmp_path, capsys):
    x, y = torch.ones(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    watch = monitor(payoff="logit", baseline=0.0, budget=256, count=3)
    folder, result = measured(tmp_path, Known(), x, y, watch)
    assert (result["grid"], result["budget"], result["samples"]) == ([4, 4], 256, 3)
    assert result["budgets"][0] == 32
    assert result["budgets"][-1] == 256
    known = {
        ("AND", ("r0c0", "r1c2")): 2.0,
        ("OR", ("r0c1", "r3c3")): -1.5,
        ("AND", ("r2c2",)): 1.0,
    }
    shapley = torch.zeros(16, dtype=torch.float64)
    shapley[[0, 6, 1, 15, 10]] = torch.tensor([1, 1, -0.75, -0.75, 1]).double()
    for sample in result["recovered"]:
        found = {(one["kind"], tuple(one["players"])): one for one in sample["interactions"]}
        assert found.keys() == known.keys()
        assert {k: one["value"] for k, one in found.items()} == pytest.approx(known, abs=1e-3)
        assert all(one["order"] == len(players) for (_, players), one in found.items())
        sizes = [abs(one["value"]) for one in sample["interactions"]]
        assert sizes == sorted(sizes, reverse=True)
        assert sample["r2_surrogate"] > 0.9999
        assert sample["explained"]
        assert sample["r2"] == sample["r2_curve"][-1] > 0.98
        assert sample["shapley"] == pytest.approx(shapley.tolist(), abs=0.05)
        # Walsh coefficients: −.5 (twice), .375 (twice) and −.5 of one player, .5 and .375 of two
        one, two = 3 * 0.25 + 2 * 0.375**2, 0.25 + 0.375**2
        shares = [one / (one + two), two / (one + two)]
        assert sample["spectrum"][:2] == pytest.approx(shares, abs=0.02)
    (values,) = logged(folder)
    assert {key for key in values if "recovery" in key} == keys()
    assert values["val/recovery/order/1"] == pytest.approx(result["order"]["value"][0])
    with (folder / "recovery.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert (rows[0]["kind"], rows[0]["order"], rows[0]["players"]) == ("AND", "2", "r0c0 r1c2")
    printed = capsys.readouterr().out
    assert "r0c1 r3c3" in printed
    assert "Means over 3 samples, on 256 fresh coalitions" in printed
    assert NOT_EXPLAINED not in " ".join(printed.split())
    for path in (folder / "recovery.png", folder / "figures" / "val_recovery_strongest.png"):
        assert min(Image.open(path).size) > 400


def test_r2_is_that_of_other_coalitions(tmp_path):
    """What the file's interactions predict is computed by the definitions of AND and OR."""
    net = it.pretrained(it.models.DigitsNet(), "digits_cnn")
    data = DigitsDataModule()
    data.setup("fit")
    x, y = data.val_dataloader().dataset.__getitems__([0, 60])
    watch = monitor(rows=8, cols=8, budget=400, rho="loo", shown=0)
    folder, result = measured(tmp_path, net, x, y, watch, command="test")
    assert keys("test") <= logged(folder)[0].keys()
    present = torch.rand(600, 64, generator=torch.Generator().manual_seed(3)) < 0.5
    game = it.MaskedGame(
        net, x, it.input_baseline(net, None, x), it.GridPlayers(8, 8), "log_odds", y
    )
    names = it.GridPlayers(8, 8).names((8, 8))
    for sample, truth in zip(result["recovered"], game(present).double(), strict=True):
        fitted = torch.full((600,), sample["constant"], dtype=torch.float64)
        for one in sample["interactions"]:
            there = present[:, [names.index(player) for player in one["players"]]]
            counts = there.any(1) if one["kind"] == "OR" else there.all(1)
            fitted += one["value"] * counts
        spread = (truth - truth.mean()).square().sum()
        r2 = 1 - (truth - fitted).square().sum() / spread
        assert sample["r2_surrogate"] == pytest.approx(float(r2), abs=0.12)
        assert sample["explained"] == (sample["r2_surrogate"] >= 0.5)


class Parity(nn.Module):
    """A game of one interaction of all players, which nothing of lower order explains."""

    def forward(self, x):
        z = 3 - 6 * ((x.flatten(1) > 0.5).sum(1) % 2).float()
        return torch.cat([z[:, None], torch.zeros(len(z), 9)], 1)


def test_a_game_that_a_few_interactions_do_not_explain_is_said_to_be_one(tmp_path, capsys):
    x, y = torch.ones(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64)
    with warnings.catch_warnings():  # it is in the table, and no warning besides
        warnings.filterwarnings("error", f".*{NOT_EXPLAINED}")
        _, result = measured(tmp_path, Parity(), x, y, monitor(payoff="logit", baseline=0.0))
    (sample,) = result["recovered"]
    assert sample["r2_surrogate"] < 0.2
    assert not sample["explained"]
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert NOT_EXPLAINED in printed
    assert f"{sample['r2_surrogate']:.3f} of these alone" in printed


def test_history_of_a_fit_that_is_the_same_without(tmp_path):
    def fitted(name, *callbacks):
        L.seed_everything(0)
        module = InteractionClassifier(DigitsNet(width=4, dropout=0.3))
        run = trainer(
            tmp_path, max_epochs=3, limit_train_batches=2, limit_val_batches=1,
            logger=CSVLogger(tmp_path, name), callbacks=list(callbacks),
        )  # fmt: skip
        run.fit(module, datamodule=DigitsDataModule())
        return module, tmp_path / name / "version_0", torch.get_rng_state()

    plain, _, state = fitted("plain")
    watching = monitor(every=2, n_samples=1, rho="loo")
    watched, folder, watched_state = fitted("watched", watching)
    for one, other in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(state, watched_state)
    assert [row["epoch"] for row in logged(folder)] == [0, 2]
    assert all(keys() <= row.keys() for row in logged(folder))
    figures = {path.name for path in (folder / "figures").iterdir()}
    over = "val_recovery_order_over_training.png"
    assert figures == {"val_recovery_strongest.png", over}


def test_samples_that_show_nothing_are_left_out_by_name(tmp_path):
    x, y = images(4)
    x[[0, 2]] = 0.5  # as the baseline is
    watch = monitor(n_samples=4, baseline=0.5, budget=32, rho="loo", shown=0)
    with pytest.warns(UserWarning, match=r"2 of 4 samples are left out, .*: 0, 2\."):
        _, result = measured(tmp_path, network(), x, y, watch)
    assert (result["samples"], result["left_out"]) == (2, [0, 2])
    assert [sample["sample"] for sample in result["recovered"]] == [1, 3]


def test_no_sample_at_all(tmp_path, capsys):
    x, y = torch.full((3, 1, 8, 8), 0.5), torch.arange(3)
    with pytest.warns(UserWarning, match="3 of 3 samples are left out"):
        folder, result = measured(tmp_path, network(), x, y, monitor(baseline=0.5))
    assert (result["samples"], result["recovered"]) == (0, [])
    assert math.isnan(result["r2"]["value"])
    assert len(result["order"]["value"]) == 10
    assert not (folder / "recovery.png").exists()
    assert "Means over 0 samples" in capsys.readouterr().out


def test_a_network_of_torchvision_from_the_command_line(tmp_path, capsys):
    given = "--model.model.init_args"
    run_cli(
        "validate", "--config", "recovery_cifar10.yaml", "--wandb", "disabled",
        "--trainer.default_root_dir", str(tmp_path), "--trainer.limit_val_batches", "1",
        "--data.source", str(colour_npz(tmp_path / "data.npz", 180)), "--data.batch_size", "4",
        "--model.model", "interaction_train.models.normalized",
        f"{given}.network", "torchvision.models.resnet18",
        f"{given}.mean", "[0.485, 0.456, 0.406]", f"{given}.std", "[0.229, 0.224, 0.225]",
        "--model.num_classes", "1000", "--trainer.callbacks.init_args.n_samples", "1",
        "--trainer.callbacks.init_args.budget", "512",
        "--trainer.callbacks.init_args.rho", "loo",
    )  # fmt: skip
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Strongest interactions, 16 × 16 grid, payoff log odds, 512 coalitions" in printed
    assert "of the fit" in printed
    folder = tmp_path / "recovery_cifar10" / "version_0"
    names = {path.name for path in folder.iterdir()}
    assert {"recovery.csv", "recovery.json", "recovery.png"} <= names
    (sample,) = json.loads((folder / "recovery.json").read_text())["recovered"]
    assert f"R² {sample['r2']:.3f} of the fit" in printed
    assert len(sample["shapley"]) == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "n_samples: got 0"),
        ({"count": 0}, "count: got 0"),
        ({"count": 1001}, "count: got 1001"),
        ({"budget": 64.5}, "budget: got 64.5"),
        ({"shown": -1}, "shown: got -1"),
        ({"max_order": 17}, "max_order: got 17"),
        ({"payoff": "all"}, "payoff: got 'all'"),
        ({"budget": 31}, "budget: got 31, expected .*32"),
        ({"rows": 2, "cols": 4}, r"budget: got 64 coalitions of 8 cells, expected .* 2\^8"),
        ({"rho": 1.5}, "rho: got 1.5"),
        ({"rho": "other"}, "rho: got 'other'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        monitor(**options)


def test_a_missing_baseline_is_refused_before_training(tmp_path):
    run = trainer(tmp_path, max_epochs=1, callbacks=[monitor()])
    data = DataLoader(TensorDataset(*images(6)), batch_size=3)
    with pytest.raises(InputError, match="baseline: got None for RecoveryMonitor"):
        run.fit(InteractionClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), data, data)
