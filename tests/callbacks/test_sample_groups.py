"""Groups of samples of a monitor: table, files, figure, and keys that depend on no data."""

import csv
import json
import math

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.callbacks import DisentanglementMonitor
from interaction_train.errors import InputError
from interaction_train.training.module import InteractionClassifier
from tests.callbacks.test_interaction_spectrum import KEYS, fit, monitor
from tests.metrics.watch import images, metric, network, trainer
from tests.testing import run_cli

pytestmark = pytest.mark.filterwarnings("ignore")


def dark(x: Tensor, y: Tensor, logits: Tensor) -> Tensor:  # types, for the command line
    return x.mean((1, 2, 3)) < 0.5


def validated(tmp_path, callback, wrong=4):
    """What ``validate`` writes and logs for nine images, of which the first ones are wrong."""
    net = network()
    x, _ = images()
    y = net(x).argmax(-1)
    y[:wrong] = (y[:wrong] + 1) % 10
    logger = CSVLogger(tmp_path, name="run")
    run = trainer(tmp_path, callbacks=[callback], logger=logger)
    data = DataLoader(TensorDataset(x, y), batch_size=4)
    run.validate(InteractionClassifier(net), data, verbose=False)
    folder = tmp_path / "run" / "version_0"
    result = json.loads((folder / f"{callback.stem}.json").read_text())
    with (folder / "metrics.csv").open() as file:
        logged = {key: value for row in csv.DictReader(file) for key, value in row.items() if value}
    return net, x, y, folder, result, logged


def test_wrong_against_right(tmp_path, capsys):
    net, x, y, folder, result, logged = validated(
        tmp_path, monitor(n_samples=9, groups="correct", only_correct=None)
    )
    assert [told["samples"] for told in result["groups"].values()] == [4, 5]
    for name, part in (("wrong", slice(4)), ("right", slice(4, None))):
        alone = metric()
        alone.update(net, x[part], y[part])
        expected, told = alone.compute(), result["groups"][name]
        assert told["J_plug_in"] == pytest.approx(expected["J_plug_in"].tolist(), rel=1e-4)
        for k, ratio in enumerate(("0", "0.5", "1")):
            key = f"val/interaction/group/{name}/J/{ratio}"
            assert float(logged[key]) == pytest.approx(told["J_plug_in"][k])
        key = f"val/interaction/group/{name}/flexibility"
        assert float(logged[key]) == pytest.approx(told["flexibility"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "J(m) on 9 samples" in printed
    assert "J plug-in of groups of samples" in printed
    with (folder / "spectrum_groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["orders"]) for row in rows[2:4]] == [("wrong", "14"), ("right", "0")]
    assert float(rows[4]["J_rms"]) == pytest.approx(result["groups"]["right"]["J_rms"][1])
    assert (folder / "spectrum_groups.png").stat().st_size > 1000
    assert (folder / "spectrum.png").stat().st_size > 1000


def test_groups_without_fixed_names_are_in_the_files_alone(tmp_path):
    _, x, _, _, result, logged = validated(tmp_path, monitor(n_samples=9, groups=dark))
    found = {name: told["samples"] for name, told in result["groups"].items()}
    assert found == {"0": 9 - int(dark(x, 0, 0).sum()), "1": int(dark(x, 0, 0).sum())}
    assert {key for key in logged if key.startswith("val/")} - {"val/loss", "val/acc"} == KEYS


def test_logged_keys_are_the_same_before_a_group_has_a_sample(tmp_path):
    names = [f"digit {k}" for k in range(10)]
    _, rows, _ = fit(tmp_path, monitor(every=2, groups="label", group_names=names))
    measured = [row for row in rows if row.keys() >= KEYS]
    assert len(measured) == 2
    for row in measured:
        for name in names:
            for key in ("J/0", "J/0.5", "J_stderr/1", "flexibility"):
                assert f"val/interaction/group/{name}/{key}" in row
    ones = [row[f"val/interaction/group/{name}/J/0.5"] for row in measured for name in names]
    assert 0 < sum(math.isnan(value) for value in ones) < len(ones)


def test_named_groups_are_told_when_no_sample_is_measured(tmp_path):
    callback = monitor(n_samples=4, only_correct=True, groups="label", group_names=["one"])
    *_, result, logged = validated(tmp_path, callback, wrong=9)
    assert result["samples"] == 0 == result["groups"]["one"]["samples"]
    assert math.isnan(float(logged["val/interaction/group/one/flexibility"]))


def test_the_other_monitor_has_groups_too(tmp_path):
    callback = DisentanglementMonitor(
        rows=4, cols=4, n_samples=9, contexts=2, ratios=[0.5], groups="label", only_correct=False
    )
    *_, result, _ = validated(tmp_path, callback)
    assert all("D_plug_in" in told for told in result["groups"].values())


def test_from_the_command_line(tmp_path):
    run_cli(
        "validate", "--config", "spectrum_digits.yaml", "--trainer.default_root_dir", str(tmp_path),
        "--wandb", "disabled", "--model.model.init_args.width", "4",
        "--trainer.callbacks.init_args.n_samples", "3",
        "--trainer.callbacks.init_args.contexts", "2",
        "--trainer.callbacks.init_args.ratios", "[0.5]",
        "--trainer.callbacks.init_args.groups", "tests.callbacks.test_sample_groups.dark",
    )  # fmt: skip
    folder = tmp_path / "spectrum_digits" / "version_0"
    groups = json.loads((folder / "spectrum.json").read_text())["groups"]
    assert sum(told["samples"] for told in groups.values()) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "given"}, "groups: got 'given'"),
        ({"group_names": ["a"]}, r"group_names: got \['a'\], expected none without groups"),
        ({"groups": "label", "group_names": ["a", "a"]}, "group_names: got"),
        ({"groups": "label", "group_names": ["a/b"]}, "group_names: got"),
        ({"groups": "label", "group_names": "ab"}, "group_names: got 'ab'"),
        ({"groups": "label", "group_names": [0, 1]}, "group_names: got"),
        ({"groups": "correct", "group_names": ["a"]}, "group_names: .*expected two"),
        ({"every": 1.5}, "every: got 1.5"),
        ({"name": ".."}, "name: got"),
        ({"batch": 0}, "batch: got 0"),
        ({"normalization": {"mean": [math.nan], "std": [1.0]}}, "mean: got nan"),
        ({"groups": "correct", "only_correct": True}, "only_correct: got True"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        monitor(**options)


def test_an_id_without_a_name_is_refused(tmp_path):
    few = monitor(groups=lambda x, y, z: torch.arange(len(y)), group_names=["first", "second"])
    with pytest.raises(InputError, match=r"group_names: got group 2, expected names of 0 … 1"):
        validated(tmp_path, few)
