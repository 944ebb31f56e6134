"""Monitors measure what the module's own forward computes, on eight kinds of modules and more."""

import json
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import torchattacks
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.callbacks import (
    AdversarialRobustness,
    AdversarialTraining,
    GeneralizationGap,
    InteractionRegularizer,
    SpectrumMonitor,
)
from interaction_train.callbacks.adapter import Adapter, find_model
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses import InteractionLoss, OrderLoss
from interaction_train.metrics import InteractionSpectrum
from interaction_train.sampling.pairs import RandomPairs
from interaction_train.training.objective import WeightedTerm
from tests.metrics.watch import trainer

pytestmark = pytest.mark.filterwarnings("ignore")
RATIOS = (0.0, 0.5, 1.0)
MEAN, STD = 0.7, 0.05


def pgd(net):
    return torchattacks.PGD(net, eps=0.05, alpha=0.02, steps=4, random_start=False)


def net():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3)
        )


def data(count=40, scale=1.0):
    x = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    y = (x.flatten(1)[:, :8].sum(1) - x.flatten(1)[:, 8:].sum(1)).gt(0).long()
    y[::7] = 2
    return TensorDataset(x * scale, y)


class Module(L.LightningModule):
    """Its ``forward`` is the network; ``val/acc`` is its accuracy."""

    scale = 1.0

    def __init__(self):
        super().__init__()
        self.model = net()
        self.right, self.sizes = [], []

    def forward(self, x):
        return self.model(x)

    def logits(self, x):
        return self(x)

    def parts(self, batch):
        return batch

    def training_step(self, batch, batch_idx):
        x, y = self.parts(batch)
        return F.cross_entropy(self.logits(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = self.parts(batch)
        right = (self.logits(x).argmax(-1) == y).float()
        self.log("val/acc", right.mean(), batch_size=len(x))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Normalising(Module):
    def forward(self, x):
        return self.model((x - MEAN) / STD)


class Hooked(Module):
    scale = 255.0

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] / 255.0, batch[1]


class DictBatches(Module):
    def parts(self, batch):
        return batch["image"], batch["label"]


class DictOutputs(Module):
    def forward(self, x):
        return {"logits": self.model(2 * x - 1), "features": x}

    def logits(self, x):
        return self(x)["logits"]


class Manual(Module):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class Compiled(Module):
    def __init__(self):
        super().__init__()
        self.model = torch.compile(self.model, backend="eager")


KINDS = {
    "normalising": (Normalising, {}),
    "hooks": (Hooked, {}),
    "dict batches": (DictBatches, {}),
    "dict outputs": (DictOutputs, {}),
    "manual": (Manual, {}),
    "ema": (Module, {"more": [EMAWeightAveraging]}),
    "compiled": (Compiled, {}),
    "bf16-true": (Normalising, {"precision": "bf16-true"}),
    "64-true": (Module, {"precision": "64-true"}),
}


def monitors(**common):
    return [
        AdversarialRobustness({"pgd": pgd}, [0.02, 0.05], n_samples=40, every=1, **common),
        GeneralizationGap(40, every=1, strength_samples=4, rows=2, cols=2, baseline=0.3,
                          pairs=RandomPairs(1, 4), **common),
        SpectrumMonitor(2, 2, 40, every=1, contexts=4, ratios=RATIOS, pairs=RandomPairs(1, 4),
                        baseline=0.3, only_correct=False, payoff="logit", **common),
    ]  # fmt: skip


class Network(nn.Module):
    """What a module computes, by hand."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module.logits(x)


@pytest.mark.parametrize("kind", KINDS)
def test_monitors_agree_with_the_module(kind, tmp_path):
    make, options = KINDS[kind]
    options = dict(options)
    L.seed_everything(0)
    module, part = make(), data(scale=make.scale)
    common = {}
    if kind == "dict batches":
        common = {"batch": ("image", "label")}
        part = [{"image": x, "label": y} for x, y in part]
    seen = {}

    class ByHand(L.Callback):
        """In the same loop: J through the module's forward, on what the loop gives."""

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
            metric = InteractionSpectrum(
                GridPlayers(2, 2), "logit", RATIOS, RandomPairs(1, 4), 4, baseline=0.3,
                only_correct=False,
            )  # fmt: skip
            x, y = pl_module.parts(batch)
            with torch.no_grad():
                metric.update(Network(pl_module), x, y)
            seen["J"] = metric.compute()["J_plug_in"]

    extra = [make_more(decay=0.5) for make_more in options.pop("more", ())]
    run = trainer(
        tmp_path, max_epochs=2, callbacks=[*monitors(**common), ByHand(), *extra],
        num_sanity_val_steps=0, **options,
    )  # fmt: skip
    run.fit(module, DataLoader(part, batch_size=8), DataLoader(part, batch_size=40))
    found = {key: float(value) for key, value in run.callback_metrics.items()}
    assert 0.2 < found["val/acc"] < 1
    assert found["val/robust_acc/clean"] == pytest.approx(found["val/acc"], abs=1e-6)
    assert found["val/gap/val_acc"] == pytest.approx(found["val/acc"], abs=1e-6)
    assert found["val/robust_acc/pgd"] <= found["val/robust_acc/pgd/eps_0.02"] < found["val/acc"]
    measured = [found[f"val/interaction/J/{ratio:g}"] for ratio in RATIOS]
    assert measured == pytest.approx(seen["J"].tolist(), rel=1e-4)


def test_the_network_taken_and_its_one_warning(tmp_path):
    x, _ = data()[:]
    module = Module()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_model(module, None, x) is module.model
    module = Normalising()
    with pytest.warns(UserWarning, match="Normalising.forward gives other logits.* model="):
        assert find_model(module, None, x) is module
    assert find_model(module, "model", x) is module.model
    modes = [part.training for part in module.modules()]
    state = torch.get_rng_state()
    find_model(module, None, x)
    assert modes == [part.training for part in module.modules()]
    assert torch.equal(state, torch.get_rng_state())


class Probabilities(Module):
    def forward(self, x):
        return self.model(x).softmax(-1)


class Pair(Module):
    def forward(self, x, y):
        return self.model(x) + y


class OfBatches(Module):
    def forward(self, batch):
        return self.model(batch["image"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Probabilities, "look like probabilities"),
        (Pair, "Pair.forward, which fails.*model="),
        (OfBatches, "OfBatches.forward, which fails.*model="),
    ],
)
def test_modules_that_give_no_logits_are_refused(make, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        find_model(make(), None, data()[:][0])


def test_adversarial_training_attacks_what_the_module_computes():
    """PGD by hand on the module's forward makes the images that the step sees."""
    module = Normalising()
    x, y = data()[:]
    step = SimpleNamespace(
        current_epoch=0, num_training_batches=1,
        fit_loop=SimpleNamespace(batch_idx=0, total_batch_idx=0),
    )  # fmt: skip
    seen = AdversarialTraining(pgd).attacked(step, module, (x, y))[0]
    module.eval()
    torch.testing.assert_close(seen, pgd(module)(x, y))
    assert not torch.equal(seen, pgd(module.model)(x, y))


def test_regularizer_regularises_what_the_module_computes(tmp_path):
    """The logged loss is the term on the module's forward, which the inner network's is not."""
    term = OrderLoss(0.5, 1, "penalize", players=GridPlayers(2, 2), baseline=0.3)
    x, y = data()[:]
    values = {}
    for model in (None, "model"):
        regularizer = InteractionRegularizer({"low": WeightedTerm(term)}, model)
        module = Normalising()
        run = trainer(tmp_path, max_epochs=1, callbacks=[regularizer])
        run.fit(module, DataLoader(data(), batch_size=40))
        values[model] = float(run.callback_metrics["train/loss/low"])
    module = Normalising()
    module(x)  # the step's pass comes first and moves the running statistics
    for model, network in ((None, module), ("model", module.model)):
        expected = float(term(network, x, y))
        assert values[model] == pytest.approx(expected, rel=1e-3), model
    assert values[None] != pytest.approx(values["model"], rel=0.1)


class Binary(Module):
    def __init__(self, flat):
        super().__init__()
        self.model, self.flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), flat
        with torch.no_grad():
            self.model[1].weight[:] = torch.tensor([1.0] * 8 + [-1.0] * 8)

    def forward(self, x):
        return self.model(x)[:, 0] if self.flat else self.model(x)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x).reshape(-1)
        self.log("val/acc", ((logits > 0).float() == y.reshape(-1)).float().mean())


@pytest.mark.parametrize("flat", [True, False])
def test_one_logit(flat, tmp_path):
    """Accuracy by sign, and the robust accuracy that a linear network has in closed form."""
    x, _ = data()[:]
    x = 0.3 + 0.4 * x
    module = Binary(flat)
    torch.manual_seed(0)
    logits = module(x).detach().reshape(-1)
    y = ((logits > 0) ^ (torch.rand(40) < 0.2)).float()
    labels = y if flat else y[:, None]
    run = trainer(tmp_path, callbacks=[AdversarialRobustness({"pgd": pgd}, [0.02], checks=False)])
    run.validate(module, DataLoader(TensorDataset(x, labels), batch_size=40), verbose=False)
    found = run.callback_metrics
    robust = ((2 * y - 1) * logits > 0.02 * 16).float().mean()
    (folder,) = tmp_path.glob("results_*")
    smallest = json.loads((folder / "robustness.json").read_text())["smallest"]["pgd"]
    assert sum(value != 0 for value in smallest) / 40 == pytest.approx(float(found["val/acc"]))
    assert sum(value is None for value in smallest) / 40 == pytest.approx(float(robust))
    assert 0 < robust < found["val/acc"]


@pytest.mark.parametrize("flat", [True, False])
def test_one_logit_at_a_layer(flat):
    """Of the same value as with the logits (0, z), by the network's own names of layers."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU())
    module = Binary(flat)
    module.model = network.append(nn.Linear(6, 1))
    x, y = data()[:][0], torch.arange(40) % 2
    found = find_model(module, None, x)
    two = nn.Sequential(*network[:5], nn.Linear(6, 2))
    with torch.no_grad():
        two[5].weight.copy_(torch.cat([torch.zeros(1, 6), network[5].weight]))
        two[5].bias.copy_(torch.tensor([0, float(network[5].bias)]))
    term = InteractionLoss("2", batch_fraction=1.0)
    value = term(found, x, y, step=0)
    assert value > 0
    torch.testing.assert_close(value, term(two, x, y, step=0))


@pytest.mark.parametrize("labels", [lambda y: y.int(), lambda y: nn.functional.one_hot(y)])
def test_labels_of_another_kind_are_refused(labels, tmp_path):
    x, y = data()[:]
    loader = DataLoader(TensorDataset(x, labels(y)), 8)
    run = trainer(tmp_path, callbacks=[AdversarialRobustness({"pgd": pgd})])
    module = Module()
    module.validation_step = lambda batch, batch_idx: None
    with pytest.raises(InputError, match=r"batch, its labels: got.*expected int64"):
        run.validate(module, loader)


NORMALIZATION = {"mean": [0.4], "std": [0.25]}


def test_half_precision_leaves_no_trace_on_the_normalization():
    adapter = Adapter(None, (0, 1), {"mean": [0.1307], "std": [0.3081]})
    pixels = data()[:][0]
    adapter.pixels(pixels.bfloat16())
    torch.testing.assert_close(adapter.inputs(pixels), (pixels - 0.1307) / 0.3081)


class OfNormalised(Module):
    """Takes inputs that the data set has normalised; ``raw`` makes it take pixels."""

    def __init__(self, raw=False):
        super().__init__()
        self.raw = raw

    def forward(self, x):
        return self.model((x - 0.4) / 0.25 if self.raw else x)


def test_normalised_inputs(tmp_path):
    """The same robust accuracy as that of pixels; without ``normalization`` an error."""
    x, y = data()[:]
    x = (255 * x).round() / 255
    found = {}
    for raw in (True, False):
        common = {} if raw else {"normalization": NORMALIZATION}
        L.seed_everything(0)
        module = OfNormalised(raw)
        inputs = DataLoader(TensorDataset(x if raw else (x - 0.4) / 0.25, y), batch_size=40)
        training = AdversarialTraining(pgd, **common)
        callbacks = [*monitors(**common), training]
        run = trainer(tmp_path, max_epochs=2, callbacks=callbacks)
        run.fit(module, inputs, inputs)
        found[raw] = {k: float(v) for k, v in run.callback_metrics.items()}
    robust = [k for k in found[True] if "robust_acc" in k or "acc" in k]
    assert {k: found[True][k] for k in robust} == {k: found[False][k] for k in robust}
    assert found[False]["val/robust_acc/pgd"] < found[False]["val/acc"]
    spectrum = [f"val/interaction/J/{ratio:g}" for ratio in RATIOS]
    for key in spectrum:
        assert found[True][key] == pytest.approx(found[False][key], rel=1e-4)
    attacked = SpectrumMonitor(2, 2, 8, attack=pgd, baseline=0.3, ratios=RATIOS)
    for callback in (AdversarialRobustness({"pgd": pgd}), attacked):
        run = trainer(tmp_path, callbacks=[callback])
        with pytest.raises(InputError, match=r"images: got values.*normalization="):
            run.validate(OfNormalised(), inputs, verbose=False)
    run = trainer(tmp_path, max_epochs=1, callbacks=[AdversarialTraining(pgd)])
    with pytest.raises(InputError, match=r"images: got values.*normalization="):
        run.fit(OfNormalised(), inputs)
    with pytest.raises(InputError, match="normalization"):
        AdversarialTraining(pgd, normalization={"mean": [0.5]})
