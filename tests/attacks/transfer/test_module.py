"""Transfer evaluation against plain loops, by hand, on disk, in two processes and by mistake."""

import csv
import json
import math

import pytest
import torch
import torchattacks
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks import Ensemble, TransferAttack, TransferRate
from interaction_train.attacks.jobs import make_attack
from interaction_train.attacks.transfer.rates import Outcome, best_step
from interaction_train.errors import InputError
from interaction_train.sampling.random import sample_hash
from tests.attacks.transfer.transfer_case import (
    ALPHA,
    EPS,
    STEPS,
    evaluation,
    images,
    loader,
    momentum,
    network,
    networks,
    pgd,
    trainer,
)
from tests.testing import run_cli, wandb_history

pytestmark = pytest.mark.filterwarnings("ignore")
NAN = math.nan


def evaluate(module, folder, **options):
    trainer(folder, **options).test(module, loader(), verbose=False)
    return module.cells


def cell(cells, source, attack, target, eps=None):
    (found,) = (
        c
        for c in cells
        if (c.source, c.attack, c.target) == (source, attack, target) and eps in (None, c.eps)
    )
    return found


# --- counting -------------------------------------------------------------------------------------


def test_counts_by_hand():
    # forwards, backwards, size; fooled, right and hit at two targets.
    rows = torch.tensor([
        [2, 1, 0.1,  1, 0,  1, 1,  0, 0],
        [4, 3, 0.3,  1, 1,  0, 1,  1, 0],
        [3, 2, 0.2,  0, 1,  1, 1,  0, 1],
        [3, 2, 0.2,  1, 1,  1, 0,  0, 1],
    ], dtype=torch.float64)  # fmt: skip
    counts = {name: value.tolist() for name, value in TransferRate(2).statistics(rows).items()}
    assert counts["images"] == 4
    assert (counts["forwards"], counts["backwards"], counts["linf"]) == (3, 2, 0.3)
    assert counts["fooled"] == [3, 3]
    assert counts["correct"] == [3, 3]
    assert counts["known"] == counts["aimed"] == [4, 4]
    assert counts["fooled_correct"] == [2, 2]
    assert counts["hit"] == [1, 2]


def test_what_is_not_known_counts_nowhere():
    rate = TransferRate(2)
    fooled = torch.tensor([[True, False], [True, True]])
    rate.update(torch.tensor([5, 7]), Outcome(fooled))
    counts = rate.compute()
    assert counts["fooled"].tolist() == [2, 1]
    for name in ("known", "correct", "fooled_correct", "aimed", "hit", "best_step"):
        assert counts[name].tolist() == [0, 0], name
    for name in ("forwards", "backwards", "linf"):
        assert counts[name].isnan(), name


def test_the_best_step_is_chosen_on_the_others():
    generator = torch.Generator().manual_seed(0)
    at_step = torch.rand(9, 5, 2, generator=generator) < 0.5
    counted = torch.rand(9, 2, generator=generator) < 0.7
    success, step = best_step(at_step, counted)
    for i in range(9):
        for t in range(2):
            others = [
                sum(bool(at_step[j, s, t]) for j in range(9) if j != i and counted[j, t])
                for s in range(5)
            ]
            best = max(s for s in range(5) if others[s] == max(others))
            assert int(step[i, t]) == best + 1
            assert bool(success[i, t]) == bool(at_step[i, best, t])


def test_repeats_count_once_in_any_order():
    x, y = images(6)
    content, bits = sample_hash(x, y), torch.arange(6)
    outcome = Outcome(fooled=(bits % 2 == 0).unsqueeze(1), right=(bits > 0).unsqueeze(1))
    once, twice = TransferRate(1), TransferRate(1)
    once.update(content, outcome)
    order = torch.tensor([3, 1, 5, 0, 2, 4, 4, 0, 3])
    for part in order.split(2):
        twice.update(content[part], Outcome(outcome.fooled[part], outcome.right[part]))
    for name, value in once.compute().items():
        assert torch.equal(value.nan_to_num(-1), twice.compute()[name].nan_to_num(-1)), name


# --- the evaluation -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    module = evaluation(sources=["a", "b"], best_step=True)
    evaluate(module, folder, logger=CSVLogger(folder, name="run"))
    return module.cells, folder / "run" / "version_0"


def plain_counts(source, make, target):
    """By a loop over single images: fooled, right, fooled and right."""
    nets, (x, y) = networks(), images()
    counts = [0, 0, 0]
    for i in range(len(x)):
        adversarial = make(nets[source])(x[i : i + 1], y[i : i + 1])
        right = int(nets[target](x[i : i + 1]).argmax()) == int(y[i])
        fooled = int(nets[target](adversarial).argmax()) != int(y[i])
        counts = [counts[0] + fooled, counts[1] + right, counts[2] + (fooled and right)]
    return counts


@pytest.mark.parametrize("source", ["a", "b"])
@pytest.mark.parametrize(("attack", "make"), [("PGD", pgd), ("MI", momentum)])
@pytest.mark.parametrize("target", ["a", "b", "c"])
def test_rates_are_those_of_a_plain_loop(measured, source, attack, make, target):
    found = cell(measured[0], source, attack, target)
    assert found.images == 11
    assert [
        found.fooled.successes,
        found.clean.successes,
        found.fooled_correct.successes,
    ] == plain_counts(source, make, target)
    assert found.fooled.total == found.clean.total == 11
    assert found.fooled_correct.total == found.clean.successes
    assert (found.forwards, found.backwards, found.eps) == (STEPS, STEPS, EPS)
    assert found.linf == pytest.approx(EPS, abs=1e-6)
    assert found.white_box == (source == target)
    assert not found.targeted.total


def test_the_case_tells_something(measured):
    """Some images are fooled and some are not, or the tests above could not fail."""
    rates = [c.fooled_correct.rate for c in measured[0]]
    assert 0.2 < min(rates) < 0.8
    assert any(0 < c.clean.successes < 11 for c in measured[0])
    assert len(set(rates)) > 4


@pytest.mark.parametrize("target", ["a", "b", "c"])
def test_best_step_of_attacks_that_show_their_steps(measured, target):
    found = cell(measured[0], "b", "MI", target)
    net, other, (x, y) = network(1), networks()[target], images()
    at_step = torch.stack(
        [
            other(TransferAttack(net, EPS, ALPHA, s, parts=momentum(net).parts)(x, y)).argmax(1)
            != y
            for s in range(1, STEPS + 1)
        ],
        1,
    )
    right = (other(x).argmax(1) == y).unsqueeze(1)
    success, step = best_step(at_step.unsqueeze(2), right)
    assert found.best_step.successes == int((success & right).sum())
    assert found.best_step.total == int(right.sum())
    assert found.best_step_at == pytest.approx(float(step[right].double().mean()))
    if target == "a":  # not the last step, and better
        assert found.best_step_at < 2
        assert found.best_step.rate > found.fooled_correct.rate
    assert not cell(measured[0], "b", "PGD", target).best_step.total


def test_files_say_what_was_measured(measured):
    cells, folder = measured
    with (folder / "transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    document = json.loads((folder / "transfer.json").read_text())
    assert len(rows) == len(document["cells"]) == len(cells) == 12
    assert document["targets"] == ["a", "b", "c"]
    for row, record, one in zip(rows, document["cells"], cells, strict=True):
        assert (row["source"], row["attack"], row["target"]) == (one.source, one.attack, one.target)
        share = one.fooled_correct
        assert int(row["fooled_correct_count"]) == record["fooled_correct_count"] == share.successes
        assert int(row["fooled_correct_of"]) == share.total
        assert float(row["fooled_correct_rate"]) == share.successes / share.total
        assert (record["fooled_correct_low"], record["fooled_correct_high"]) == share.interval
        assert float(row["forwards"]) == STEPS
        assert row["targeted_rate"] == ""
        assert record["targeted_rate"] is None
    for name in ("transfer.png", "examples.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert not (folder / "transfer_eps.png").exists()
    with (folder / "metrics.csv").open() as file:
        (logged,) = csv.DictReader(file)
    found = cell(cells, "b", "MI", "c")
    assert float(logged["test/transfer/b/MI/c"]) == pytest.approx(found.fooled_correct.rate)
    assert float(logged["test/acc/c"]) == pytest.approx(found.clean.rate)


def test_the_console_marks_white_boxes_and_best_steps(tmp_path, capsys):
    evaluate(evaluation(best_step=True), tmp_path)
    printed = capsys.readouterr().out
    last, best = printed.split("Transfer at the best step")
    line = next(line for line in last.splitlines() if " PGD " in line)
    assert line.count("*") == 1
    assert "–" in line
    assert "clean accuracy" in last
    assert "not comparable" in best
    assert " PGD " not in best
    assert " MI " in best


def test_two_processes_equal_one(tmp_path):
    """11 samples are padded to 12, and a set on disk of 3 does not divide either."""
    x, y = images()
    saved = tmp_path / "saved.pt"
    pgd(network(0)).save([(x[:3], y[:3])], saved, verbose=False, save_clean_inputs=True)
    documents = []
    for name, options in (("one", {}), ("two", {"devices": 2, "strategy": "ddp_spawn"})):
        module = evaluation(adversarial_sets={"set": str(saved)}, best_step=True)
        evaluate(module, tmp_path, logger=CSVLogger(tmp_path, name=name), **options)
        documents.append(json.loads((tmp_path / name / "version_0" / "transfer.json").read_text()))
    assert documents[0] == documents[1]
    assert documents[0]["cells"][0]["images"] == 11


def test_more_processes_than_samples():
    empty = TransferRate(2, steps=3).compute()
    assert empty["images"] == 0
    assert empty["fooled"].tolist() == [0, 0]


def test_networks_stay_as_they_were(tmp_path):
    nets = networks()
    before = {
        name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in nets.items()
    }
    nets["a"][1].eval()
    evaluate(evaluation(networks=nets), tmp_path)
    for name, net in nets.items():
        assert not any(module._forward_hooks for module in net.modules())
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
        for key, value in net.state_dict().items():
            assert torch.equal(value, before[name][key])
    assert [m.training for m in nets["a"].modules()] == [True, True, False, True, True, True]


def test_curves_over_epsilon(tmp_path):
    module = evaluation(epsilons=[0.05, EPS])
    logger = CSVLogger(tmp_path, name="run")
    cells = evaluate(module, tmp_path, logger=logger)
    own = evaluate(evaluation(), tmp_path)
    for found in own:
        assert cell(cells, found.source, found.attack, found.target, EPS) == found
        assert cell(cells, found.source, found.attack, found.target, 0.05).linf <= 0.05 + 1e-6
    assert (tmp_path / "run" / "version_0" / "transfer_eps.png").stat().st_size > 1000
    with (tmp_path / "run" / "version_0" / "metrics.csv").open() as file:
        (logged,) = csv.DictReader(file)
    low = cell(cells, "a", "PGD", "b", 0.05).fooled_correct.rate
    assert float(logged["test/transfer/a/PGD/b/0.05"]) == pytest.approx(low)


@pytest.mark.parametrize(
    "make", [torchattacks.PGD, torchattacks.VMIFGSM, torchattacks.DIFGSM, TransferAttack]
)
def test_a_changed_attack_is_the_attack_built_so(make):
    x, y = images()
    factory = lambda net: make(net, eps=0.1, alpha=0.02, steps=5)  # noqa: E731
    attack = make_attack(factory, network(0), epsilon=0.2, steps=3)
    built = make(network(0), eps=0.2, alpha=0.04, steps=3)
    torch.manual_seed(0)
    found = attack(x, y)
    torch.manual_seed(0)
    assert torch.equal(found, built(x, y))


def test_steps_for_a_quick_look(tmp_path):
    cells = evaluate(evaluation(steps=2, attacks={"PGD": pgd, "noise": torchattacks.GN}), tmp_path)
    assert cell(cells, "a", "PGD", "b").forwards == 2
    assert cell(cells, "a", "noise", "b").forwards == 0


def test_targeted(tmp_path):
    def aimed(model):
        attack = pgd(model)
        attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % 3, quiet=True)
        return attack

    cells = evaluate(evaluation(attacks={"aimed": aimed}), tmp_path)
    nets, (x, y) = networks(), images()
    hit = nets["c"](aimed(nets["a"])(x, y)).argmax(1) == (y + 1) % 3
    found = cell(cells, "a", "aimed", "c").targeted
    assert (found.successes, found.total) == (int(hit.sum()), 11)
    assert found.successes > 0


def test_an_ensemble_as_source(tmp_path):
    nets = networks()
    nets["a+b"] = Ensemble([nets["a"], nets["b"]])
    module = evaluation(networks=nets, sources=["a+b"], targets=["a", "b", "c"])
    cells = evaluate(module, tmp_path)
    assert [c.white_box for c in cells[:3]] == [True, True, False]
    assert cells[0].forwards == 2 * STEPS


def test_sources_that_an_attack_leaves_out(tmp_path):
    cells = evaluate(evaluation(sources=["a", "b"], leave_out={"MI": ["a"]}), tmp_path)
    assert {(c.source, c.attack) for c in cells} == {("a", "PGD"), ("b", "PGD"), ("b", "MI")}


def test_the_first_batches_can_be_left_out(tmp_path):
    cells = evaluate(evaluation(first_batch=1), tmp_path)
    nets, (x, y) = networks(), images()
    fooled = nets["b"](pgd(nets["a"])(x[4:], y[4:])).argmax(1) != y[4:]
    found = cell(cells, "a", "PGD", "b").fooled
    assert (found.successes, found.total) == (int(fooled.sum()), 7)


def test_a_single_target(tmp_path):
    """torchmetrics would make its counts scalars."""
    whole = evaluate(evaluation(), tmp_path)
    cells = evaluate(evaluation(targets=["b"]), tmp_path)
    assert cells == [cell(whole, "a", name, "b") for name in ("PGD", "MI")]


# --- sets on disk ---------------------------------------------------------------------------------


def test_a_file_of_torchattacks(tmp_path):
    x, y = images()
    for name, clean in (("with", True), ("without", False)):
        attack = pgd(network(0))
        attack.save([(x, y)], tmp_path / name, verbose=False, save_clean_inputs=clean)
    sets = {name: str(tmp_path / name) for name in ("with", "without")}
    cells = evaluate(evaluation(attacks={"PGD": pgd}, adversarial_sets=sets), tmp_path)
    for target in "abc":
        crafted, kept, blind = (
            cell(cells, source, name, target)
            for source, name in (("a", "PGD"), (None, "with"), (None, "without"))
        )
        assert kept.fooled_correct == crafted.fooled_correct
        assert kept.clean == crafted.clean
        assert blind.fooled == crafted.fooled
        assert not blind.fooled_correct.total
        assert kept.forwards is None


def test_sets_without_any_attack(tmp_path):
    x, y = images()
    pgd(network(0)).save([(x, y)], tmp_path / "set.pt", verbose=False)
    module = evaluation(attacks=None, adversarial_sets={"set": str(tmp_path / "set.pt")})
    assert len(evaluate(module, tmp_path)) == 3


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": None}, "networks, attacks: got 3 networks, no attack and no adversarial set"),
        ({"networks": {"a.b": network(0)}}, "networks: got the name 'a.b'"),
        ({"sources": ["z"]}, r"sources: got \['z'\], expected names among a, b, c"),
        ({"targets": []}, r"targets: got \[\]"),
        ({"leave_out": {"SGM": ["a"]}}, r"leave_out: got \['SGM'\], expected names among PGD, MI"),
        ({"epsilons": [0.1, -1]}, "epsilons: got"),
        ({"examples": -1}, "examples: got -1"),
    ],
)
def test_arguments_that_do_not_fit(changes, message):
    with pytest.raises(InputError, match=f"^{message}"):
        evaluation(**changes)


class Wrapped(nn.Module):
    def __init__(self, wrap, classes=3):
        super().__init__()
        self.net, self.wrap = network(0), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": {"a": Wrapped(lambda z: (z, z))}}, "networks.a: .* output of tuple"),
        ({"networks": {"a": Wrapped(lambda z: z.softmax(1))}}, "networks.a: .* probabilities"),
        ({"networks": {"a": Wrapped(lambda z: z / 0 * 0)}}, "networks.a: .* NaN"),
        ({"networks": {"a": Wrapped(lambda z: z[:, 0])}}, r"networks.a: .* output of \(4,\)"),
        ({"networks": {"a": network(0), "d": Wrapped(lambda z: z.tile(2))}}, "networks: got a"),
        ({"networks": {"a": Wrapped(lambda z: z[:, :2])}}, "networks: got 2 classes"),
        ({"attacks": {"x": lambda net: 3}}, "attacks.x on a, attack: got int"),
        ({"attacks": {"x": torchattacks.GN}, "epsilons": [0.1]}, "attacks.x on a, epsilons: got"),
        ({"adversarial_sets": {"x": "nowhere"}}, "path: got 'nowhere'"),
        ({"first_batch": 3}, "first_batch: got 3, expected less than the 3 batches"),
    ],
)  # fmt: skip
def test_what_only_the_test_finds(changes, message, tmp_path):
    module = evaluation(**changes)
    logger = CSVLogger(tmp_path, name="run")
    with pytest.raises(InputError, match=f"^{message}"):
        evaluate(module, tmp_path, logger=logger)
    assert not list(tmp_path.rglob("transfer.*"))


def on(x, y, folder):
    batches = DataLoader(TensorDataset(x, y), batch_size=len(x))
    trainer(folder).test(evaluation(), batches, verbose=False)


def test_images_out_of_range(tmp_path):
    x, y = images()
    for bad in (x * 2, x - 1, x * NAN):
        with pytest.raises(InputError, match="images: got values from"):
            on(bad, y, tmp_path)
    with pytest.raises(InputError, match="images: got torch"):
        on(x.long(), y, tmp_path)
    with pytest.raises(InputError, match="labels: got torch"):
        on(x, y.float(), tmp_path)


# --- the command line -----------------------------------------------------------------------------

SMALL = [
    "test", "--config", "transfer_digits.yaml", "--wandb", "offline",
    "--trainer.limit_test_batches", "2", "--data.batch_size", "8",
    "--model.sources", "[cnn]", "--model.leave_out", "null", "--model.attacks", json.dumps({
        name: {"class_path": path, "init_args": {"steps": 2, **more}}
        for name, path, more in (
            ("PGD", "torchattacks.PGD", {}),
            ("IR", "IRAttack", {"grid": 4, "draws": 2, "size": 4}),
        )
    }),
]  # fmt: skip


def logged_to_wandb(path):
    return {key: value for row in wandb_history(path) for key, value in row.items()}


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_cli(*SMALL, "--trainer.default_root_dir", "runs")
    assert "Transfer at the last step" in capsys.readouterr().out
    folder = tmp_path / "runs" / "transfer_digits" / "version_0"
    cells = json.loads((folder / "transfer.json").read_text())["cells"]
    assert [(c["attack"], c["target"]) for c in cells] == [
        (attack, target) for attack in ("PGD", "IR") for target in ("cnn", "resnet", "mlp")
    ]
    assert {c["images"] for c in cells} == {16}
    assert [c["forwards"] for c in cells[2:4]] == [2, 10]
    (path,) = tmp_path.rglob("*.wandb")
    history = logged_to_wandb(path)
    found = json.loads(history["test/transfer/cnn/IR/mlp"])
    assert found == pytest.approx(cells[5]["fooled_correct_rate"])
    assert json.loads(history["test/transfer/table/nrows"]) == 6
    assert json.loads(history["test/transfer/matrix/count"]) == 1
    captions = json.loads(history["test/transfer/examples/captions"])
    assert len(captions) == 8
    assert captions[0].startswith("label ")
    assert captions[4].startswith("IR on cnn: cnn ")


BAD = {
    "networks.cnn: got outputs that look like probabilities, expected logits": [
        "--model.networks",
        json.dumps({"cnn": {"class_path": "tests.attacks.transfer.transfer_case.Probabilities"}}),
        "--model.sources", "null",
    ],
    "attacks.SGM on cnn, model: got": [
        "--model.attacks",
        json.dumps({
            "SGM": {
                "class_path": "TransferAttack",
                "init_args": {"parts": [{"class_path": "SkipGradient"}]},
            }
        }),
    ],
    "sources: got ['vgg'], expected names among cnn, resnet, mlp": ["--model.sources", "[vgg]"],
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_command_line_ends_with_one_line(message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(*SMALL, *BAD[message], "--trainer.default_root_dir", str(tmp_path))
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"interaction-train: error: {message}")
    assert not list(tmp_path.rglob("transfer.*"))
