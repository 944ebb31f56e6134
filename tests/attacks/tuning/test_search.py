"""Scores against plain loops; budgets; searches that are stopped, go on, and confirm."""

import csv
import json
import sys

import lightning as L
import pytest
import torch
import yaml
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks import (
    FeatureImportance,
    GlobalMomentum,
    MaskedObjective,
    Momentum,
    TransferAttack,
    VarianceTuning,
)
from interaction_train.attacks.tuning import job, search as search_module
from interaction_train.attacks.tuning.job import tune_attack
from interaction_train.attacks.tuning.score import Bench
from interaction_train.attacks.tuning.search import Search
from interaction_train.attacks.tuning.space import Space, read_attack
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses import GroupReduction
from interaction_train.sampling.random import sample_hash
from tests.attacks.transfer.transfer_case import images, networks

pytestmark = pytest.mark.filterwarnings("ignore")
PAIRS = [("a", "b"), ("a", "c"), ("b", "c")]
SPACE = {
    "RandomNoise": {"radius": {"low": 0.2, "high": 2.0}, "copies": [1, 2, 4]},
    "Momentum": {"decay": {"low": 0.0, "high": 1.0}},
    "Objective": {"loss": ["margin", "cross_entropy"]},
}


def batches(count=20, size=8):
    x, y = images(count)
    return list(zip(x.split(size), y.split(size), strict=True))


def momentum(model):
    return TransferAttack(model, 0.2, 0.05, 6, parts=[Momentum()])


@pytest.mark.parametrize("aims", [None, [1]])
def test_scores_are_those_of_a_plain_loop(aims):
    nets, (x, y) = networks(), images(20)
    if aims:
        x, y = x[y != 1], y[y != 1]
    some = list(zip(x.split(8), y.split(8), strict=True))
    found = Bench(nets, PAIRS, some, aims).score(momentum)
    rates, leads = [], []
    for source, target in PAIRS:
        fooled, lead = [], []
        for image, label in zip(x.split(1), y.split(1), strict=True):
            attack = momentum(nets[source])
            if aims:
                attack.set_mode_targeted_by_label(quiet=True)
            adversarial = attack(image, torch.tensor([1]) if aims else label)
            logits = nets[target](adversarial)[0]
            own = 1 if aims else int(label)
            if aims is None and int(nets[target](image).argmax()) != own:
                continue
            others = torch.cat([logits[:own], logits[own + 1 :]]).max()
            ahead = logits[own] - others
            fooled.append(float(ahead > 0) if aims else float(ahead < 0))
            lead.append(float((ahead if aims else -ahead).sigmoid()))
        rates.append(sum(fooled) / len(fooled))
        leads.append(sum(lead) / len(lead))
    assert 0.1 < sum(rates) / 3 < 0.95
    assert found.success == pytest.approx(sum(rates) / 3)
    assert found.lead == pytest.approx(sum(leads) / 3, abs=1e-5)
    assert found.passes == pytest.approx(6 + bool(aims))  # choosing a target takes one
    assert found.value == pytest.approx(found.success + found.lead / 1000)


@pytest.mark.parametrize("aims", [None, "random"])
def test_what_a_step_costs(aims):
    bench = Bench(networks(), PAIRS, batches(), aims)
    masks = MaskedObjective("margin", GroupReduction(GridPlayers(2, 2), draws=3, size=2))
    for cost, options in (
        (1, {}), (1, {"parts": [Momentum()]}), (5, {"parts": [VarianceTuning(4)]}),
        (6, {"objective": masks}),
    ):  # fmt: skip
        made = lambda model, options=options: TransferAttack(model, 0.1, 0.02, 9, **options)  # noqa: E731
        assert bench.cost(made) == (cost, 0)


@pytest.mark.parametrize("aims", [None, "random"])
def test_passes_before_the_steps_and_steps_that_are_needed_count(aims):
    bench = Bench(networks(), PAIRS, batches(), aims)
    warmed = lambda model: TransferAttack(model, 0.1, 0.02, parts=[GlobalMomentum(5), Momentum()])  # noqa: E731
    importance = FeatureImportance("1", draws=7)
    watched = lambda model: TransferAttack(model, 0.1, 0.02, objective=importance)  # noqa: E731
    assert bench.cost(warmed, 9) == (1, 0)
    assert bench.cost(watched) == (1, 7)
    with pytest.raises(InputError, match="pre_steps"):
        bench.cost(warmed, 4)


def test_a_search_of_parts_that_need_many_steps_stays_within_its_passes(tmp_path):
    space = {
        "GlobalMomentum": {"pre_steps": 3},
        "Momentum": {},
        "FeatureImportance": {"layer": "1", "draws": 4},
    }
    _, records = run(tmp_path, 8, space=space)
    both = [r for r in records if r["GlobalMomentum"] and r["Momentum"]]
    assert both
    assert all(r["passes"] == 10 and r["steps"] == 6 for r in records if not r["refused"])
    assert not any(r["refused"] for r in both)


def run(folder, trials, seed=0, space=SPACE, passes=10, bench=None):
    bench = bench or Bench(networks(), PAIRS, batches())
    search = Search(folder, Space(space), {"passes": passes}, seed)
    return search.run(bench, trials, passes, 0.2, "Linf"), search.records()


def test_the_passes_are_used_up_and_the_best_wins(tmp_path):
    winner, records = run(tmp_path, 9)
    assert len(records) == 9
    for record in records:
        copies = int(record.get("RandomNoise.copies", 1)) if record["RandomNoise"] else 1
        assert record["steps"] == 10 // copies
        assert record["passes"] == copies * (10 // copies)
    best = max(records, key=lambda record: (record["success"], record["lead"]))
    assert Bench(networks(), PAIRS, batches()).score(read_attack(winner)).success == best["success"]
    assert best["success"] > min(record["success"] for record in records)
    alone = [(record["RandomNoise"], record["Momentum"]) for record in records[:3]]
    assert alone == [(True, False), (False, True), (False, False)]
    with open(tmp_path / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["success"]) for row in rows] == [record["success"] for record in records]


class Killed(BaseException):
    pass


def test_a_search_that_was_killed_goes_on_as_if_not(tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "_RANDOM", 2)  # the last trials are TPE's
    whole = run(tmp_path / "whole", 9)
    for after in (1, 3, 4):
        left = [after]

        def score(self, factory, left=left, real=Bench.score):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(self, factory)

        with monkeypatch.context() as patch:
            patch.setattr(Bench, "score", score)
            with pytest.raises(Killed):
                run(tmp_path / "stopped", 9)
    assert run(tmp_path / "stopped", 9) == whole
    assert run(tmp_path / "other", 9, seed=1)[1] != whole[1]


def test_trials_that_do_not_fit_are_noted_and_not_chosen(tmp_path):
    space = {"RandomNoise": {"copies": [1, 64]}, "Momentum": {}}
    winner, records = run(tmp_path, 12, space=space)
    refused = [record for record in records if record["refused"]]
    assert refused
    assert all(record["RandomNoise.copies"] == "64" for record in refused)
    assert "64 at least" in refused[0]["refused"]
    assert "'copies': 64" not in str(winner)
    with pytest.raises(InputError, match="2 trials that failed"):
        run(tmp_path / "none", 2, space={"RandomNoise": {"copies": 64}, "Momentum": {}}, passes=0)


def test_a_folder_belongs_to_one_search(tmp_path):
    run(tmp_path, 1)
    with pytest.raises(InputError, match="with other passes"):
        run(tmp_path, 1, passes=12)


class Data(L.LightningDataModule):
    """The test set repeats the validation set's images, among others."""

    def __init__(self, batch_size=8, reverse=False):
        super().__init__()
        self.size, self.reverse = batch_size, reverse

    def _loader(self, count):
        x, y = images(count)
        order = torch.arange(count).flip(0) if self.reverse else torch.arange(count)
        return DataLoader(TensorDataset(x[order], y[order]), self.size)

    def val_dataloader(self):
        return self._loader(24)

    def test_dataloader(self):
        return self._loader(60)


def tuned(folder, **changes):
    options = {"passes": 6, "eps": 0.2, "trials": 4, "images": 16, "confirm": 30, "space": SPACE}
    options |= {"accelerator": "cpu", "folder": folder, "data": Data(), "networks": networks()}
    return tune_attack(**{**options, **changes})


def test_the_winner_is_confirmed_on_other_images(tmp_path, monkeypatch):
    kept = []
    real = job._sample
    monkeypatch.setattr(job, "_sample", lambda *args: kept.append(real(*args)[0]) or real(*args))
    cells = tuned(tmp_path)
    (chosen, other) = (set(sample_hash(*data.tensors).tolist()) for data in kept)
    assert (len(chosen), len(other), len(chosen & other)) == (16, 30, 0)
    assert [(c.source, c.attack, c.target) for c in cells] == [
        ("a", "winner", "b"), ("a", "winner", "c"), ("a", "MI", "b"), ("a", "MI", "c"),
    ]  # fmt: skip
    document = json.loads((tmp_path / "tuning.json").read_text())
    winner = yaml.safe_load((tmp_path / "winner.yaml").read_text())
    assert document["winner"] == winner
    assert len(document["trials"]) == 4
    attack = read_attack(winner)(networks()["a"])
    x, y = kept[1].tensors
    right = networks()["b"](x).argmax(1) == y
    fooled = networks()["b"](attack(x, y)).argmax(1) != y
    assert cells[0].success.successes == int((fooled & right).sum())
    assert cells[0].success.total == int(right.sum())
    assert cells[0].forwards <= 6
    assert f"{100 * cells[0].success.rate:.1f} %" in (tmp_path / "winner.yaml").read_text()


def test_images_do_not_depend_on_the_loader(tmp_path):
    tuned(tmp_path / "one")
    tuned(tmp_path / "two", data=Data(5, reverse=True))
    one, two = (json.loads((tmp_path / k / "tuning.json").read_text()) for k in ("one", "two"))
    assert one["data"] == two["data"]
    assert [t["success"] for t in one["trials"]] == [t["success"] for t in two["trials"]]


def test_targeted_in_l2_from_two_sources(tmp_path):
    cells = tuned(
        tmp_path, sources=["a", "b"], targets=["c"], target_classes="random", norm="L2", eps=1.0
    )
    assert {(c.source, c.target) for c in cells} == {("a", "c"), ("b", "c")}
    assert all(c.is_targeted for c in cells)
    assert yaml.safe_load((tmp_path / "winner.yaml").read_text())["init_args"]["norm"] == "L2"


def test_bad_input(tmp_path, monkeypatch):
    for changes, said in (
        ({"passes": 0}, "passes"),
        ({"eps": 0}, "eps"),
        ({"norm": "L1"}, "norm"),
        ({"sources": ["z"]}, "sources"),
        ({"sources": ["a"], "targets": ["a"]}, "targets"),
        ({"trials": 0}, "trials"),
        ({"images": 0}, "images"),
        ({"target_classes": [-1]}, "target_classes"),
        ({"networks": {"a": networks()["a"]}}, "targets"),
    ):
        with pytest.raises(InputError, match=said):
            tuned(tmp_path / "bad", **changes)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"interaction-train\[tune\]"):
        tuned(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
