"""What transfer evaluations and crafting jobs are given, on devices of any kind: all or a line."""

import json

import pytest
import torch
import torchattacks
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks import TransferEvaluation
from interaction_train.attacks.sets.dataset import read_adversarial_set
from interaction_train.errors import InputError
from tests.attacks import jobs
from tests.attacks.transfer.transfer_case import (
    evaluation,
    images,
    loader,
    momentum,
    network,
    networks,
    pgd,
    trainer,
)


def run(folder, module, data=None, **options):
    trainer(folder, **options).test(module, data or loader(), verbose=False)
    return module.cells


def small_network(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


# --- outside [0, 1] -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [pgd, momentum, torchattacks.FGSM, torchattacks.CW])
def test_normalised_images_are_refused_whatever_attacks(make, tmp_path):
    x, y = images()
    data = DataLoader(TensorDataset((x - 0.5) / 0.3, y), batch_size=4)
    with pytest.raises(InputError, match=r"images: got values from -1.*expected values in"):
        run(tmp_path, evaluation(attacks={"x": make}), data)
    x, y = jobs.images()
    data = DataLoader(TensorDataset((x - 0.5) / 0.3, y), batch_size=4)
    with pytest.raises(InputError, match=r"images: got values from -1.*expected values in"):
        jobs.predict(tmp_path, jobs.crafter(make), data)


class Shifted(torchattacks.attack.Attack):
    def __init__(self, model):
        super().__init__("Shifted", model)

    def forward(self, x, y):
        return x + 0.5


def normalised(model):
    attack = torchattacks.PGD(model)
    attack.set_normalization_used([0.5], [0.3])
    return attack


@pytest.mark.parametrize(
    ("make", "message"),
    [(Shifted, "got values from"), (normalised, "attack: got PGD on normalised images")],
)
def test_attacks_that_leave_the_range_are_refused(make, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run(tmp_path, evaluation(attacks={"x": make}))
    with pytest.raises(InputError, match=message):
        jobs.predict(tmp_path, jobs.crafter(make), jobs.loader())


def test_sets_are_checked_like_images(tmp_path):
    x, y = images()
    for name, saved in {
        "images": {"adv_inputs": x * 2, "labels": y},
        "clean images": {"adv_inputs": x, "labels": y, "clean_inputs": x - 1},
        "labels": {"adv_inputs": x, "labels": y + 3},
    }.items():
        torch.save(saved, tmp_path / "set.pt")
        module = evaluation(attacks=None, adversarial_sets={"mine": str(tmp_path / "set.pt")})
        with pytest.raises(InputError, match=f"^adversarial_sets.mine, {name}: got"):
            run(tmp_path, module)
    torch.save({"adv_inputs": x, "labels": y[:3]}, tmp_path / "set.pt")
    with pytest.raises(InputError, match=r"set.pt.*differ in number"):
        run(tmp_path, module)


# --- heads ----------------------------------------------------------------------------------------


class Head(nn.Module):
    def __init__(self, change, classes):
        super().__init__()
        self.net, self.change = nn.Sequential(nn.Flatten(), nn.Linear(64, classes)), change

    def forward(self, x):
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (lambda z: z.softmax(1), 10, "outputs that look like probabilities"),
        (torch.sigmoid, 1, "two classes or more: a binary head needs two logits"),
        (lambda z: z, 1, "two classes or more: a binary head needs two logits"),
        (lambda z: z[:, 0], 2, "expected logits"),
        (lambda z: z * torch.nan, 2, "NaN"),
        (lambda z: z[:, :9], 10, "9 classes and labels from 8 to 9"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(change, classes, message, tmp_path):
    net = Head(change, classes)
    x, y = jobs.images()
    data = DataLoader(TensorDataset(x[8:], y[8:]), batch_size=2)
    for make in (torchattacks.PGD, torchattacks.FGSM):
        with pytest.raises(InputError, match=message):
            run(tmp_path, TransferEvaluation({"a": net}, {"x": make}), data)
        with pytest.raises(InputError, match=message):
            jobs.predict(tmp_path, jobs.AdversarialCrafter(net, make), data)


# --- empty ----------------------------------------------------------------------------------------


def test_no_image_that_a_target_classifies_correctly(tmp_path, capsys):
    x, _ = images()
    wrong = (networks()["a"](x).argmax(1) + 1) % 3
    data = DataLoader(TensorDataset(x, wrong), batch_size=4)
    with pytest.warns(UserWarning, match="^a classifies none of 11 clean images correctly"):
        cells = run(tmp_path, evaluation(targets=["a"]), data)
    assert {cell.success.total for cell in cells} == {0}
    assert "nan" not in capsys.readouterr().out


def test_a_set_without_clean_images(tmp_path):
    x, y = images()
    torch.save({"adv_inputs": x, "labels": y}, tmp_path / "set.pt")
    module = evaluation(adversarial_sets={"mine": str(tmp_path / "set.pt")})
    with pytest.warns(UserWarning, match="^mine holds no clean images"):
        run(tmp_path, module)


def test_a_surrogate_that_is_never_right(tmp_path, capsys):
    x, _ = jobs.images()
    net = jobs.crafter().model
    wrong = (net(x).argmax(1) + 1) % 10
    data = DataLoader(TensorDataset(x, wrong), batch_size=4)
    with pytest.warns(UserWarning, match="classifies none of 21 clean images"):
        jobs.predict(tmp_path, jobs.crafter(torchattacks.FGSM), data)
    assert "nan" not in capsys.readouterr().out


def test_nothing_left_to_run():
    with pytest.raises(InputError, match="leave_out: got every attack on every source"):
        evaluation(leave_out={"PGD": ["a"], "MI": ["a"]})


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_evaluations_without_a_logger_keep_each_other_s_results(tmp_path):
    run(tmp_path, evaluation())
    first = (tmp_path / "results_0" / "transfer.json").read_bytes()
    run(tmp_path, evaluation(seed=1))
    assert (tmp_path / "results_0" / "transfer.json").read_bytes() == first
    assert json.loads((tmp_path / "results_1" / "transfer.json").read_text())["seed"] == 1
    run(tmp_path, evaluation(folder="here"))
    assert (tmp_path / "here" / "transfer.csv").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "results_0", "results_1"]


# --- precision and devices ------------------------------------------------------------------------


class NoFloat64(TorchDispatchMode):
    """A device without float64, such as Apple's."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple | list) else [found]:
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{func} makes float64")
        return found


@pytest.mark.filterwarnings("ignore")
def test_without_float64(tmp_path):
    x, y = images()
    pgd(network(0)).save([(x, y)], tmp_path / "set.pt", verbose=False, save_clean_inputs=True)
    sets = {"mine": str(tmp_path / "set.pt")}
    options = {"best_step": True, "adversarial_sets": sets, "target_classes": "random"}
    whole = run(tmp_path, evaluation(**options))
    with NoFloat64():
        assert run(tmp_path, evaluation(**options)) == whole
        surrogate = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        crafter = jobs.AdversarialCrafter(surrogate, torchattacks.PGD, targets="random")
        jobs.predict(tmp_path, crafter, jobs.loader())
    assert len(read_adversarial_set(tmp_path / "set")) == 21


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pixels", ["uint8", "float32"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [torchattacks.PGD, torchattacks.PGDL2])
def test_half_precision_sets_stay_within_the_bound(make, dtype, pixels, tmp_path):
    eps = {torchattacks.PGD: 8 / 255, torchattacks.PGDL2: 0.5}[make]
    x, y = jobs.images()
    data = DataLoader(TensorDataset(x.to(dtype), y), batch_size=7)
    net = jobs.crafter().model.network.to(dtype)
    crafter = jobs.AdversarialCrafter(net, lambda m: make(m, eps=eps, alpha=eps / 2), pixels=pixels)
    jobs.predict(tmp_path, crafter, data)
    found = read_adversarial_set(tmp_path / "set")
    assert torch.equal(found.clean, x.to(dtype).float())
    delta = (found.images.double() - found.clean.double()).flatten(1)
    reached = delta.abs().amax(1) if make is torchattacks.PGD else delta.norm(dim=1)
    assert float(reached.max()) <= eps + 1e-6
    assert float(reached.max()) > 0.8 * eps


# --- arguments of the wrong kind ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": [small_network()]}, "networks: got a list, expected a mapping"),
        ({"networks": small_network()}, "networks: got a Sequential, expected a mapping"),
        ({"networks": {"a": "resnet"}}, "networks.a: got str, expected a torch.nn.Module"),
        ({"networks": {"items": small_network()}}, "networks: got the name 'items'"),
        ({"attacks": [pgd]}, "attacks: got a list, expected a mapping"),
        ({"attacks": {"x": pgd(small_network())}}, "attacks.x: got an attack that is made already"),
        ({"attacks": {"x": "PGD"}}, "attacks.x: got str, expected a factory, such as lambda"),
        ({"adversarial_sets": ["set"]}, "adversarial_sets: got a list"),
        ({"sources": "a"}, "sources: got 'a', expected a list of names among a, b, c"),
        ({"leave_out": {"PGD": "a"}}, "leave_out: got 'a', expected a list"),
        ({"epsilons": 0.1}, "epsilons: got 0.1, expected a list"),
        ({"epsilons": ["0.1"]}, "epsilons: got"),
        ({"steps": 0}, "steps: got 0"),
    ],
)
def test_arguments_say_what_to_pass(changes, message):
    with pytest.raises(InputError, match=f"^{message}"):
        evaluation(**changes)


def test_a_crafter_s_arguments_say_what_to_pass():
    net = small_network()
    with pytest.raises(InputError, match=r"^attack: got an attack .* already, PGD itself, exp"):
        jobs.AdversarialCrafter(net, torchattacks.PGD(net))
    with pytest.raises(InputError, match=r"^model: got list, expected one torch"):
        jobs.AdversarialCrafter([net, net], torchattacks.PGD)


def test_batches_of_another_form(tmp_path):
    x, y = images()
    data = DataLoader([{"x": a, "y": b} for a, b in zip(x, y, strict=True)])
    with pytest.raises(InputError, match=r"^batch: got dict, expected \(images, labels\)"):
        run(tmp_path, evaluation(), data)
    with pytest.raises(InputError, match=r"got dict, expected items \(tensor, label\)"):
        jobs.predict(tmp_path, jobs.crafter(), data)


@pytest.mark.filterwarnings("ignore")
def test_inputs_that_are_no_pictures(tmp_path):
    """Five channels, and rows of a table: measured like images, only not shown."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((5, 2, 2), (20,)):
        x = torch.rand(6, *shape, generator=generator)
        net = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
        data = DataLoader(TensorDataset(x, net(x).argmax(1)), batch_size=3)
        make = lambda net: torchattacks.FGSM(net, eps=0.3)  # noqa: E731
        (cell,) = run(tmp_path, TransferEvaluation({"a": net}, {"x": make}), data)
        assert cell.clean.successes == cell.success.total == 6
        assert cell.success.successes > 0


def test_a_bound_reaches_attacks_inside_of_attacks(tmp_path):
    def several(model):
        return torchattacks.MultiAttack([pgd(model), torchattacks.FGSM(model, eps=0.1)])

    module = evaluation(attacks={"several": several}, epsilons=[0.02, 0.05], steps=1)
    cells = run(tmp_path, module)
    assert [cell.eps for cell in cells] == [0.02] * 3 + [0.05] * 3
    assert all(0 < cell.linf <= cell.eps + 1e-6 for cell in cells)


@pytest.mark.filterwarnings("ignore")
def test_a_bound_reaches_autoattack(tmp_path):
    auto = lambda net: torchattacks.AutoAttack(net, n_classes=3, version="rand")  # noqa: E731
    module = evaluation(attacks={"auto": auto}, epsilons=[0.02], targets=["a"])
    (cell,) = run(tmp_path, module, loader(4, 4))
    assert 0 < cell.linf <= 0.02 + 1e-6
