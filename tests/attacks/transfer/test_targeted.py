"""Targeted attacks are judged by the classes that they aim at, counted here by hand."""

import csv
import json

import pytest
import torch
import torchattacks
from lightning.pytorch.loggers import CSVLogger

from interaction_train.attacks import TransferAttack
from interaction_train.attacks.jobs import aim
from interaction_train.attacks.sets.dataset import read_adversarial_set
from interaction_train.attacks.sets.shards import shard_path, write_batches, write_manifest
from interaction_train.attacks.transfer.rates import best_step
from interaction_train.errors import InputError
from tests.attacks.jobs import crafter, ir_attack, loader as digits, predict
from tests.attacks.transfer.transfer_case import (
    ALPHA,
    EPS,
    STEPS,
    evaluation,
    images,
    loader,
    networks,
    pgd,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def run(folder, module, **options):
    trainer(folder, **options).test(module, loader(), verbose=False)
    return {(c.attack, c.target): c for c in module.cells}


def next_class(x, y):
    return (y + 1) % 3


def aimed(model):
    attack = pgd(model)
    attack.set_mode_targeted_by_function(next_class, quiet=True)
    return attack


def hits(make, target, wanted=None):
    """Which images the target takes for the class aimed at, one image attacked at a time."""
    nets, (x, y) = networks(), images()
    wanted = next_class(x, y) if wanted is None else wanted
    found = []
    for i in range(len(x)):
        one, label = x[i : i + 1], y[i : i + 1]
        adversarial = make(nets["a"])(one, label)
        found.append(int(nets[target](adversarial).argmax()) == int(wanted[i]))
    return torch.tensor(found)


def test_rates_tables_files_and_keys_say_how_often_the_target_was_hit(tmp_path, capsys):
    logger = CSVLogger(tmp_path, name="run")
    module = evaluation(attacks={"aimed": aimed, "PGD": pgd})
    cells = run(tmp_path, module, logger=logger)
    folder = tmp_path / "run" / "version_0"
    with (folder / "transfer.csv").open() as file:
        rows = {(row["attack"], row["target"]): row for row in csv.DictReader(file)}
    document = json.loads((folder / "transfer.json").read_text())["cells"]
    with (folder / "metrics.csv").open() as file:
        (logged,) = csv.DictReader(file)
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if "aimed (targeted)" in line)
    assert "(targeted): taken for the class aimed at" in " ".join(printed.split())
    different = 0
    for k, target in enumerate("abc"):
        count = int(hits(aimed, target).sum())
        cell = cells["aimed", target]
        assert cell.is_targeted
        assert (cell.success.successes, cell.success.total) == (count, 11)
        assert cell.success == cell.targeted
        low, high = cell.targeted.interval
        assert low < count / 11 < high or count in (0, 11)
        row = rows["aimed", target]
        assert (int(row["targeted_count"]), int(row["targeted_of"])) == (count, 11)
        assert row["is_targeted"] == "True"
        assert document[k]["targeted_rate"] == count / 11
        assert (document[k]["targeted_low"], document[k]["targeted_high"]) == (low, high)
        assert float(logged[f"test/transfer/a/aimed/{target}"]) == pytest.approx(count / 11)
        assert f"{100 * count / 11:.1f} ({100 * low:.0f}–{100 * high:.0f})" in line
        different += count != cell.fooled_correct.successes
        untargeted = cells["PGD", target]
        assert untargeted.success == untargeted.fooled_correct
        assert not untargeted.is_targeted
        assert rows["PGD", target]["targeted_rate"] == ""
    assert different  # else the two kinds of rate could be mixed up unseen


def test_the_best_step_hits_the_target(tmp_path):
    def ours(model, steps=STEPS):
        attack = TransferAttack(model, EPS, ALPHA, steps)
        attack.set_mode_targeted_by_function(next_class, quiet=True)
        return attack

    cells = run(tmp_path, evaluation(attacks={"ours": ours}, best_step=True))
    for target in "abc":
        at_step = torch.stack(
            [hits(lambda m, s=s: ours(m, s), target) for s in range(1, STEPS + 1)], 1
        )
        success, _ = best_step(at_step.unsqueeze(2), torch.ones(11, 1, dtype=torch.bool))
        found = cells["ours", target].best_step
        assert (found.successes, found.total) == (int(success.sum()), 11)


@pytest.mark.parametrize("strategy", ["random", "least_likely", [0, 2], [1, 0, 2]])
@pytest.mark.parametrize("make", [pgd, lambda m: TransferAttack(m, EPS, ALPHA, STEPS)])
def test_strategies_for_all_attacks(strategy, make, tmp_path):
    x, y = images()
    attack = make(networks()["a"])
    aim(attack, strategy)
    targets = attack.get_target_label(x, y)
    cells = run(tmp_path, evaluation(attacks={"x": make}, target_classes=strategy))
    assert bool((targets != y).all())
    if strategy == "least_likely":
        logits = networks()["a"](x).scatter(1, y.unsqueeze(1), torch.inf)
        assert torch.equal(targets, logits.argmin(1))
    elif strategy == [0, 2]:
        assert set(targets.tolist()) == {0, 2}
    else:
        assert len(set(targets.tolist())) == 3
    assert torch.equal(attack.get_target_label(x[3:5], y[3:5]), targets[3:5])

    def by_hand(model):
        attack = make(model)
        places = {float(image.sum()): int(t) for image, t in zip(x, targets, strict=True)}
        attack.set_mode_targeted_by_function(
            lambda x, y: torch.tensor([places[float(image.sum())] for image in x]), quiet=True
        )
        return attack

    for target in "abc":
        assert cells["x", target].success.successes == int(hits(by_hand, target, targets).sum())


def test_targets_that_are_labels_are_refused(tmp_path):
    def by_label(model):
        attack = torchattacks.PGD(model, eps=0.1, steps=1)
        attack.set_mode_targeted_by_label(quiet=True)
        return attack

    message = "targets: got the label itself for 4 of 4 images, expected other classes"
    with pytest.raises(InputError, match=f"^attacks.x on a, {message}"):
        run(tmp_path, evaluation(attacks={"x": by_label}))
    with pytest.raises(InputError, match=f"^{message}"):
        predict(tmp_path, crafter(by_label), digits())


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("likely", "target_classes: got 'likely', expected 'random', 'least_likely' or a list"),
        ([], "target_classes: got"),
        ([1.5], "target_classes: got"),
        ([0, 3], "attacks.PGD on a, targets: got 3 classes and labels from 0 to 3"),
        ([0], r"attacks.PGD on a, targets: got \[0\] for images of that class"),
    ],
)
def test_strategies_that_do_not_fit(strategy, message, tmp_path):
    with pytest.raises(InputError, match=f"^{message}"):
        run(tmp_path, evaluation(target_classes=strategy))


def test_attacks_that_cannot_aim(tmp_path):
    with pytest.raises(InputError, match=r"^attacks.x on a, targets: got 'random'.*cannot aim"):
        run(tmp_path, evaluation(attacks={"x": torchattacks.GN}, target_classes="random"))


# --- sets -----------------------------------------------------------------------------------------


def strong(model):
    attack = ir_attack(model)
    attack.eps, attack.alpha = 0.5, 0.2
    return attack


def test_a_set_aimed_at_a_list_is_the_same_in_any_batches(tmp_path):
    found = []
    for name, size in (("one", 4), ("two", 7)):
        predict(tmp_path / name, crafter(strong, targets=[3, 7]), digits(batch_size=size))
        found.append(read_adversarial_set(tmp_path / name / "set"))
    one, two = found
    assert torch.equal(one.targets, two.targets)
    assert torch.equal(one.tensors["adversarial"], two.tensors["adversarial"])
    assert set(one.targets.tolist()) == {3, 7}
    assert bool((one.targets != one.labels).all())
    with torch.no_grad():
        seen = crafter().model.eval()(one.images).argmax(1)
    assert torch.equal(one.success, seen == one.targets)
    assert one.manifest["job"]["targets"] == [3, 7]
    with pytest.raises(
        InputError, match=r"crafted with targets = \[3, 7\], expected targets = random"
    ):
        predict(tmp_path / "one", crafter(strong, targets="random"), digits())


def test_a_targeted_set_is_judged_by_its_targets(tmp_path):
    x, y = images()
    wanted = next_class(x, y)
    adversarial = aimed(networks()["a"])(x, y)
    write_manifest(tmp_path / "set", {"finished": True, "counts": {"samples": 11}, "job": {}})
    known = torch.ones(11, dtype=torch.bool)
    shard = {
        "adversarial": adversarial, "clean": x, "labels": y, "targets": wanted,
        "indices": torch.arange(11), "correct": known, "success": ~known,
    }  # fmt: skip
    write_batches(shard_path(tmp_path / "set", 0), [shard])
    sets = {"mine": str(tmp_path / "set")}
    cells = run(tmp_path, evaluation(attacks=None, adversarial_sets=sets))
    for target in "abc":
        assert cells["mine", target].success.successes == int(hits(aimed, target).sum())
        assert cells["mine", target].is_targeted
