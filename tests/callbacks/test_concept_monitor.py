"""Concepts in fit and in validate; two processes against one are in test_two_processes.py."""

import csv
import json
import math

import lightning as L
import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import interaction_train as it
from interaction_train.callbacks import ConceptMonitor, RunReport
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.models import DigitsNet
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import images, network, trainer
from tests.testing import run_cli, wandb_history

pytestmark = pytest.mark.filterwarnings("ignore")

SINGLE = ("k90", "salient", "r2_4", "objective")


def monitor(**changes) -> ConceptMonitor:
    """2 × 3 cells, 3 samples, 4 concepts that stand for one."""
    options = {"rows": 2, "cols": 3, "n_samples": 3, "every": 1, "count": 4, "graphs": 1}
    return ConceptMonitor(**{**options, **changes})


def keys(split: str = "val") -> set[str]:
    orders = [f"and/{m}" for m in range(1, 7)] + [f"or/{m}" for m in range(2, 7)]
    return {f"{split}/concepts/{key}" for key in (*SINGLE, *orders)}


def table_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def logged(folder) -> list[dict[str, float]]:
    """The measurements that a run's CSV logger has."""
    rows = [{k: float(v) for k, v in row.items() if v} for row in table_of(folder / "metrics.csv")]
    return [row for row in rows if any("/concepts/" in key for key in row)]


def validated(tmp_path, net, x, y, *callbacks, command="validate"):
    run = trainer(tmp_path, callbacks=list(callbacks), logger=CSVLogger(tmp_path, name="run"))
    data = DataLoader(TensorDataset(x, y), batch_size=4)
    getattr(run, command)(InteractionClassifier(net), data, verbose=False)
    return tmp_path / "run" / "version_0"


def present(players: list[str], cols: int = 3) -> int:
    """Cells in words as the bits of a coalition."""
    return sum(1 << (int(name[1]) * cols + int(name[3])) for name in players)


def counts(concept: dict, coalition: int) -> bool:
    """Whether a concept counts on a coalition, by its definition."""
    cells = present(concept["players"])
    common = cells & coalition
    return common != 0 if concept["kind"] == "OR" else common == cells


def digits(*places: int):
    data = DigitsDataModule()
    data.setup("fit")
    x, y = data.val_dataloader().dataset.__getitems__(list(places))
    return x, y


@pytest.mark.parametrize("command", ["validate", "test"])
def test_the_files_hold_a_decomposition_of_each_game(command, tmp_path, capsys):
    """Checked by the definitions of AND, OR and R² on all coalitions of a trained network."""
    net = it.pretrained(it.models.DigitsNet(), "digits_cnn")
    x, y = digits(0, 18, 36, 54)
    callbacks = monitor(payoff="logit", noise=0.1), RunReport()
    folder = validated(tmp_path, net, x, y, *callbacks, command=command)
    result = json.loads((folder / "concepts.json").read_text())
    assert (result["samples"], result["left_out"], result["grid"]) == (3, [], [2, 3])
    places = [0, 1, 2]
    assert [sample["sample"] for sample in result["concepts"]] == places
    assert [sample["label"] for sample in result["concepts"]] == y[places].tolist()
    players = it.GridPlayers(2, 3)
    game = it.MaskedGame(net, x[places], it.input_baseline(net, None, x), players, "logit", y[:3])
    v = it.exact_values(game).double().numpy()
    strengths = {kind: np.zeros((3, 7)) for kind in ("AND", "OR")}
    for b, sample in enumerate(result["concepts"]):
        found = sample["concepts"]
        sizes = [abs(concept["value"]) for concept in found]
        assert sizes == sorted(sizes, reverse=True)
        shown = [[counts(concept, coalition) for concept in found] for coalition in range(64)]
        values = [concept["value"] for concept in found]
        off = np.abs(sample["constant"] + np.array(shown) @ values - v[b]).max()
        reach = abs(v[b, -1] - v[b, 0])
        assert off <= 0.1 * reach + 1e-4 * np.abs(v[b]).max()
        assert sample["range"] == pytest.approx(v[b, -1] - v[b, 0], rel=1e-4)
        assert sample["converged"]
        assert sample["lower_bound"] <= sample["objective"] <= 1.02 * sample["lower_bound"]
        assert sample["objective"] == pytest.approx(sum(sizes))
        enough = np.cumsum(sizes) >= 0.9 * sum(sizes)
        assert sample["k90"] == 1 + int(np.argmax(enough))
        assert sample["salient"] == sum(size > 0.05 * sizes[0] for size in sizes)
        columns = np.column_stack([np.ones(64), np.array(shown)[:, :4]])
        fitted = columns @ np.linalg.lstsq(columns, v[b], rcond=None)[0]
        r2 = 1 - ((v[b] - fitted) ** 2).sum() / ((v[b] - v[b].mean()) ** 2).sum()
        assert sample["r2_4"] == pytest.approx(r2, abs=1e-4)
        refitted = [concept["refitted"] for concept in found]
        assert refitted[4:] == [None] * (len(found) - 4)
        added = columns[-1, 1:] @ np.array(refitted[:4]) - columns[0, 1:] @ np.array(refitted[:4])
        assert added == pytest.approx(fitted[-1] - fitted[0], rel=1e-3)
        for concept, size in zip(found, sizes, strict=True):
            strengths[concept["kind"]][b, len(concept["players"])] += size
    rows = table_of(folder / "concepts.csv")
    everything = [(s, concept) for s in result["concepts"] for concept in s["concepts"]]
    for row, (sample, concept) in zip(rows, everything, strict=True):
        assert (row["sample"], row["label"]) == (str(sample["sample"]), str(sample["label"]))
        assert row["kind"] == concept["kind"]
        assert row["players"].split() == concept["players"]
        assert float(row["value"]) == concept["value"]
        assert row["refitted"] == ("" if concept["refitted"] is None else str(concept["refitted"]))
    split = "val" if command == "validate" else "test"
    (values,) = logged(folder)
    assert {key for key in values if "concepts" in key} == keys(split)
    for kind, first in (("AND", 1), ("OR", 2)):
        means, part = strengths[kind].mean(0), result[kind.lower()]
        errors = strengths[kind].std(0, ddof=1) / 3**0.5
        assert part["orders"] == list(range(first, 7))
        assert part["value"] == pytest.approx(means[first:], abs=1e-9)
        assert part["stderr"] == pytest.approx(errors[first:], abs=1e-9)
        for m in range(first, 7):
            assert values[f"{split}/concepts/{kind.lower()}/{m}"] == pytest.approx(means[m])
    reach = np.abs(v[:, -1] - v[:, 0]).mean()
    total = np.mean([sample["objective"] for sample in result["concepts"]])
    assert values[f"{split}/concepts/objective"] == pytest.approx(total / reach, rel=1e-4)
    for key in ("k90", "salient", "r2_4"):
        numbers = [sample[key] for sample in result["concepts"]]
        assert values[f"{split}/concepts/{key}"] == pytest.approx(np.mean(numbers))
        assert result[key]["stderr"] == pytest.approx(np.std(numbers, ddof=1) / 3**0.5)
    printed = capsys.readouterr().out
    strongest = result["concepts"][0]["concepts"][0]
    assert " ".join(strongest["players"]) in printed
    assert f"{strongest['value']:+.3g}" in printed
    for path in (folder / "concepts_graph_0.png", *(folder / "figures").glob("*graph_0.png")):
        assert min(Image.open(path).size) > 200
    assert (folder / "concepts_graph_0.svg").is_file()
    page = (folder / "report.html").read_text()
    assert 'id="interactions"' in page
    assert "oncepts graph 0" in page


def test_a_network_of_known_concepts(tmp_path):
    """Their logit is 2 (r0c0 ∧ r1c2) − 1.5 (r0c1 ∨ r0c2): both come out, and nothing else."""

    class Known(nn.Module):
        def forward(self, x):
            there = (x.flatten(1) > 0.5).float()
            either = 1 - (1 - there[:, 1]) * (1 - there[:, 2])
            z = 2 * there[:, 0] * there[:, 5] - 1.5 * either
            return torch.cat([z[:, None], torch.zeros(len(z), 9)], 1)

    x, y = torch.ones(3, 1, 2, 3), torch.zeros(3, dtype=torch.int64)
    folder = validated(tmp_path, Known(), x, y, monitor(payoff="logit", baseline=0.0, noise=0.0))
    result = json.loads((folder / "concepts.json").read_text())
    assert len(result["concepts"]) == 3
    for sample in result["concepts"]:
        found = [(c["kind"], c["players"]) for c in sample["concepts"]]
        assert found == [("AND", ["r0c0", "r1c2"]), ("OR", ["r0c1", "r0c2"])]
        values = [concept[key] for key in ("value", "refitted") for concept in sample["concepts"]]
        assert values == pytest.approx([2, -1.5] * 2, abs=1e-6)
    (values,) = logged(folder)
    assert values.pop("val/concepts/objective") == pytest.approx(3.5 / 0.5)
    told = {k: x for k, x in values.items() if k.startswith("val/concepts/") and abs(x) > 1e-6}
    expected = {"k90": 2, "salient": 2, "r2_4": 1, "and/2": 2, "or/2": 1.5}
    assert told == pytest.approx({f"val/concepts/{k}": x for k, x in expected.items()}, abs=1e-6)


def fitted(tmp_path, name, *callbacks, dropout=0.3, epochs=4, checkpoint=None, **options):
    L.seed_everything(0)
    module = InteractionClassifier(DigitsNet(width=4, dropout=dropout))
    logger = CSVLogger(tmp_path, name)
    run = trainer(
        tmp_path, max_epochs=epochs, limit_train_batches=3, limit_val_batches=2, logger=logger,
        callbacks=list(callbacks), **options,
    )  # fmt: skip
    run.fit(module, datamodule=DigitsDataModule(), ckpt_path=checkpoint)
    return module, tmp_path / name / "version_0", torch.get_rng_state()


def test_training_is_the_same_bit_for_bit(tmp_path):
    plain, _, rng = fitted(tmp_path, "plain")
    watched, folder, watched_rng = fitted(tmp_path, "watched", monitor(every=3, rows=2, cols=2))
    for one, other in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(rng, watched_rng)
    assert [row["epoch"] for row in logged(folder)] == [0, 3]


def test_history_over_a_resumed_run(tmp_path):
    """Every point once, and what the table says is what was logged."""
    save = L.pytorch.callbacks.ModelCheckpoint(tmp_path, filename="first", save_top_k=-1)
    options = {"enable_checkpointing": True, "dropout": 0.0}  # its masks would be others
    every_second = monitor(every=2)
    _, folder, _ = fitted(tmp_path, "whole", every_second, save, epochs=5, **options)
    rows = logged(folder)
    assert [keys() <= row.keys() for row in rows] == [True] * 3
    table = table_of(folder / "tables" / "val_concepts_history.csv")
    assert [int(row["epoch"]) for row in table] == [0, 2, 4]
    for key in keys():
        assert [float(row[key]) for row in table] == pytest.approx([row[key] for row in rows])
    figures = {path.name for path in (folder / "figures").iterdir()}
    over = {f"val_concepts_{kind}_over_training.png" for kind in ("and", "or")}
    assert figures == {"val_concepts_graph_0.png", *over}
    fitted(tmp_path, "first", monitor(every=2), save, epochs=2, **options)
    last = sorted(tmp_path.glob("first*.ckpt"), key=lambda path: path.stat().st_mtime)[-1]
    torch.load(last, weights_only=True)
    resumed = monitor(every=2)
    fitted(tmp_path, "resumed", resumed, save, epochs=5, checkpoint=last, **options)
    assert [point["epoch"] for point in resumed.history] == [0, 2, 4]
    for one, other in zip(resumed.history, every_second.history, strict=True):
        assert one["values"] == pytest.approx(other["values"], rel=1e-4, abs=1e-6)


def test_wandb_gets_the_graph(tmp_path):
    run = trainer(
        tmp_path, callbacks=[monitor(rows=2, cols=2)],
        logger=WandbLogger(save_dir=tmp_path, offline=True),
    )  # fmt: skip
    x, y = images()
    run.validate(InteractionClassifier(network()), DataLoader(TensorDataset(x, y)), verbose=False)
    wandb.finish()
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found = {key for row in wandb_history(stored) for key in row}
    assert "val/concepts/k90" in found
    (name,) = (stored.parent / "files" / "media" / "images" / "val" / "concepts").iterdir()
    assert name.name.startswith("graph_0")


def test_samples_that_show_nothing_are_left_out_by_name(tmp_path):
    x, y = images(6)
    x[[0, 4]] = 0.5  # as the baseline is: v(N) = v(∅)
    with pytest.warns(UserWarning, match=r"2 of 6 samples are left out, .*: 0, 4\."):
        folder = validated(tmp_path, network(), x, y, monitor(n_samples=6, baseline=0.5))
    result = json.loads((folder / "concepts.json").read_text())
    assert (result["samples"], result["left_out"]) == (4, [0, 4])
    assert [sample["sample"] for sample in result["concepts"]] == [1, 2, 3, 5]
    assert (folder / "concepts_graph_1.png").is_file()
    assert logged(folder)[0]["val/concepts/k90"] >= 1


class Diverge(L.Callback):
    """Makes all weights NaN in the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, *rest):
        if trainer.current_epoch == 1:
            for weight in pl_module.parameters():
                weight.data.fill_(torch.nan)


def test_a_network_that_diverges_is_no_reason_to_stop(tmp_path):
    watching = monitor(rows=2, cols=2)
    with pytest.warns(UserWarning, match="3 of 3 samples are left out"):
        _, folder, _ = fitted(tmp_path, "run", Diverge(), watching, epochs=2)
    first, second = (point["values"] for point in watching.history)
    assert first.keys() == second.keys()
    assert not any(math.isnan(value) for value in first.values())
    assert all(math.isnan(value) for value in second.values())
    assert (folder / "figures" / "val_concepts_or_over_training.png").is_file()


def test_no_sample_at_all(tmp_path, capsys):
    x, y = torch.full((3, 1, 8, 8), 0.5), torch.arange(3)
    folder = validated(tmp_path, network(), x, y, monitor(baseline=0.5))
    result = json.loads((folder / "concepts.json").read_text())
    assert (result["samples"], result["left_out"], result["concepts"]) == (0, [0, 1, 2], [])
    assert table_of(folder / "concepts.csv") == []
    printed = capsys.readouterr().out
    assert "Means over 0 samples" in printed
    assert "±" not in printed


def test_one_sample_has_no_error_and_several_monitors_have_names(tmp_path):
    both = [monitor(n_samples=1, graphs=0), monitor(n_samples=1, name="coarse", rows=1, cols=2)]
    folder = validated(tmp_path, network(), *images(6), *both)
    result = json.loads((folder / "concepts.json").read_text())
    assert math.isnan(result["k90"]["stderr"])
    assert not list(folder.glob("*.png"))
    coarse = json.loads((folder / "coarse" / "concepts.json").read_text())
    assert coarse["or"]["orders"] == [2]
    assert (folder / "coarse" / "concepts_graph_0.png").is_file()
    assert "val/coarse/concepts/or/2" in {key for row in logged(folder) for key in row}


def test_from_the_command_line_with_a_checkpoint(tmp_path, capsys):
    module, _, _ = fitted(tmp_path, "net", epochs=1)
    module.trainer.save_checkpoint(tmp_path / "net.ckpt")
    run_cli(
        "validate", "--config", "concepts_digits.yaml", "--trainer.default_root_dir", str(tmp_path),
        "--wandb", "disabled", "--model.model.init_args.width", "4",
        "--model.model.init_args.dropout", "0.3", "--ckpt_path", str(tmp_path / "net.ckpt"),
        "--trainer.callbacks.init_args.n_samples", "2",
        "--trainer.callbacks.init_args.graphs", "1",
    )  # fmt: skip
    assert "Concepts, 3 × 3 grid, payoff log odds" in capsys.readouterr().out
    folder = tmp_path / "concepts_digits" / "version_0"
    names = {path.name for path in folder.iterdir()}
    assert {"concepts.csv", "concepts.json", "concepts_graph_0.png"} <= names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "n_samples: got 0"),
        ({"every": 0}, "every: got 0"),
        ({"graphs": -1}, "graphs: got -1"),
        ({"count": 0}, "count: got 0"),
        ({"count": 129}, "count: got 129"),
        ({"noise": 1.0}, "noise: got 1.0"),
        ({"noise": math.nan}, "noise: got nan"),
        ({"payoff": "all"}, "payoff: got 'all'"),
        ({"rows": 4, "cols": 5}, "rows: got 4 x 5 cells, expected at most 16 cells"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        monitor(**options)


def test_a_missing_baseline_is_refused_before_training(tmp_path):
    run = trainer(tmp_path, max_epochs=1, callbacks=[monitor()])
    data = DataLoader(TensorDataset(*images(6)), batch_size=3)
    with pytest.raises(InputError, match="baseline: got None for ConceptMonitor"):
        run.fit(InteractionClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), data, data)
