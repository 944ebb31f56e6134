"""Against the same attack written inside ``training_step``, with resuming and other callbacks."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchattacks
from torch import nn

from interaction_train.attacks import TransferAttack
from interaction_train.callbacks import AdversarialTraining, InteractionRegularizer
from interaction_train.callbacks.step_wrapper import StepCallback
from interaction_train.errors import InputError
from tests.callbacks.plain import Plain, fit, weighted, weights
from tests.callbacks.test_regularizer import Save

pytestmark = pytest.mark.filterwarnings("ignore")
EPS, ALPHA, STEPS = 0.1, 0.05, 3


def pgd(net: nn.Module) -> torchattacks.PGD:
    return torchattacks.PGD(net, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=False)


def started(net: nn.Module) -> torchattacks.PGD:
    return torchattacks.PGD(net, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=True)


def own(net: nn.Module) -> TransferAttack:
    return TransferAttack(net, EPS, ALPHA, STEPS, random_start=True)


class Inside(Plain):
    """PGD, written inside the step."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        moved = x
        self.net.eval()
        for _ in range(STEPS):
            moved = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(self.net(moved), y), moved)
            moved = moved.detach() + ALPHA * gradient.sign()
            moved = (x + (moved - x).clamp(-EPS, EPS)).clamp(0, 1)
        self.net.train()
        return F.cross_entropy(self.net(moved), y)


@pytest.mark.parametrize("norm", [False, True])
def test_same_weights_as_the_attack_written_inside_the_step(norm):
    inside, plain = fit(Inside(norm)), fit(Plain(norm))
    outside = fit(Plain(norm), AdversarialTraining(pgd))
    torch.testing.assert_close(weights(outside), weights(inside))
    assert (weights(inside) - weights(plain)).abs().max() > 0.01
    if norm:
        assert outside.net[2].num_batches_tracked == 12  # clean of the attack's passes
        torch.testing.assert_close(outside.net[2].running_mean, inside.net[2].running_mean)


def test_accumulation_and_mixed_precision():
    inside = weights(fit(Inside(), accumulate_grad_batches=2))
    outside = weights(fit(Plain(), AdversarialTraining(pgd), accumulate_grad_batches=2))
    torch.testing.assert_close(outside, inside)
    mixed = weights(fit(Plain(), AdversarialTraining(pgd), precision="16-mixed"))
    assert mixed.isfinite().all()
    assert (mixed - weights(fit(Plain(), AdversarialTraining(pgd)))).abs().max() < 0.1


def test_phases():
    """Epoch 0 clean, epoch 1 with an attack, epoch 2 clean again."""
    seen = []

    class Watching(Plain):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0])
            return super().training_step(batch, batch_idx)

    fit(Watching(), max_epochs=3)
    clean = seen.copy()
    seen.clear()
    fit(Watching(), AdversarialTraining(pgd, warmup_epochs=1, phases={2: None}), max_epochs=3)
    moved = [float((a - b).abs().max()) for a, b in zip(seen, clean, strict=True)]
    assert moved[:6] == [0] * 6
    assert moved[6:12] == pytest.approx([EPS] * 6, abs=1e-6)
    assert moved[12:] == [0] * 6


@pytest.mark.parametrize("attack", [started, own])
def test_resumes_with_the_same_perturbations(attack, tmp_path):
    path = tmp_path / "first.ckpt"

    def training():
        return AdversarialTraining(attack, share=0.5)

    torch.manual_seed(0)
    whole = weights(fit(Plain(), training(), Save(path, at=0), max_epochs=2))
    torch.manual_seed(7)
    resumed = weights(fit(Plain(), training(), max_epochs=2, ckpt_path=path))
    assert torch.equal(whole, resumed)
    assert not torch.equal(whole, weights(fit(Plain(), AdversarialTraining(attack))))


def test_share_and_random_starts_change_from_step_to_step():
    seen = []

    class Watching(Plain):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0])
            return super().training_step(batch, batch_idx)

    fit(Watching(), max_epochs=1)
    clean = torch.cat(seen)
    seen.clear()
    options = {"max_epochs": 2, "callbacks": [AdversarialTraining(own, share=0.5)]}
    module = Watching()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    fit(module, **options)
    first, second = (torch.cat(seen[k : k + 6]) - clean for k in (0, 6))
    moved = [part.flatten(1).abs().amax(1) > 0 for part in (first, second)]
    for part in moved:
        assert 12 < int(part.sum()) < 36  # of 48: 24 ± 3.5
    assert not torch.equal(*moved)
    both = moved[0] & moved[1]
    assert (first[both] != second[both]).any()


def test_with_a_regularizer_and_a_second_fit():
    """Layers come off in any order, and no loss counts twice in a second fit."""
    module = Plain()
    regularizer = InteractionRegularizer(weighted())
    fit(module, regularizer, AdversarialTraining(pgd), max_epochs=1)
    assert "training_step" not in module.__dict__
    once = len(module.logged["train/loss/band"])
    fit(module, regularizer, AdversarialTraining(pgd), max_epochs=1)
    assert len(module.logged["train/loss/band"]) == 2 * once


class Noting(StepCallback):
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def around(self, trainer, pl_module, step, batch):
        self.calls.append(self.name)
        return step(batch)


@pytest.mark.parametrize("order", [1, -1])
def test_layers(order):
    module, calls = Plain(), []
    layers = [Noting(name, calls) for name in ("inner", "outer")]
    run = SimpleNamespace(callbacks=layers)
    for layer in layers:
        layer.setup(run, module, "fit")
    batch = (torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
    module.training_step(batch, 0)
    module.training_step(batch=batch, batch_idx=0)
    assert calls == ["outer", "inner"] * 2
    for layer in layers[::order]:
        layer.teardown(run, module, "fit")
    assert "training_step" not in module.__dict__
    module.training_step(batch, 0)
    assert len(calls) == 4


def test_batches_of_other_forms():
    callback = AdversarialTraining(pgd, batch=("image", "label"))
    module = Plain()

    class Trainer:
        current_epoch, num_training_batches = 0, 1

        class fit_loop:  # noqa: N801
            batch_idx, total_batch_idx = 0, 0

    x, y = torch.rand(4, 1, 4, 4), torch.arange(4) % 3
    batch = {"image": x, "label": y, "more": "kept"}
    found = callback.attacked(Trainer, module, batch)
    assert found["more"] == "kept"
    assert batch["image"] is x
    torch.testing.assert_close((found["image"] - x).abs().max(), torch.tensor(EPS))
    listed = AdversarialTraining(pgd).attacked(Trainer, module, [x, y])
    assert isinstance(listed, list)
    assert torch.equal(listed[0], found["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, "share: got 0"),
        ({"share": 1.5}, "share: got 1.5"),
        ({"warmup_epochs": -1}, "warmup_epochs: got -1"),
        ({"warmup_epochs": 3, "phases": {2: pgd}}, "phases: got epoch 2"),
        ({"batch": (0,)}, "batch: got"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        AdversarialTraining(pgd, **options)
