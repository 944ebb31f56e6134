"""All monitors together: training untouched, averaged weights, files, and what loggers get."""

import copy
import csv
import json
import math
import warnings

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset, TensorDataset

from interaction_train.callbacks import (
    AdversarialRobustness,
    DisentanglementMonitor,
    ExactInteractions,
    GeneralizationGap,
    SpectrumMonitor,
)
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.metrics import Disentanglement, InteractionStrength
from interaction_train.models import DigitsNet
from interaction_train.sampling.pairs import RandomPairs
from interaction_train.training.module import InteractionClassifier
from tests.callbacks.processes import classifier, foreign, monitors
from tests.metrics.watch import RATIOS, images, trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(tmp_path, *callbacks, **options):
    L.seed_everything(0)
    module = InteractionClassifier(DigitsNet(width=4, dropout=0.3))
    defaults = {"max_epochs": 3, "limit_train_batches": 3, "limit_val_batches": 2}
    run = trainer(
        tmp_path, callbacks=list(callbacks), **{**defaults, "num_sanity_val_steps": 2, **options}
    )
    run.fit(module, datamodule=DigitsDataModule(augment=True))
    return module, run, torch.get_rng_state()


def test_training_is_the_same_bit_for_bit(tmp_path):
    plain, _, state = fit(tmp_path)
    callbacks = monitors(every=2)
    watched, _, watched_state = fit(tmp_path, *callbacks)
    for one, other in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(state, watched_state)
    for callback in callbacks:  # the sanity check is not measured
        assert [point["epoch"] for point in callback.history] == [0, 2]
        assert all(math.isfinite(v) for p in callback.history for v in p["values"].values())


def test_gap_is_that_of_the_modules_own_metrics_also_of_averaged_weights(tmp_path):
    """On the whole validation set the two agree; with EMA both see the averaged weights."""
    for more in ([], [EMAWeightAveraging(decay=0.9)]):
        gap = GeneralizationGap(200, every=1, strength_samples=0)
        module, run, _ = fit(tmp_path, gap, *more, limit_val_batches=1.0, max_epochs=2)
        logged = {key: float(value) for key, value in run.callback_metrics.items()}
        # 144 validation images are fewer than 200.
        assert logged["val/gap/val_loss"] == pytest.approx(logged["val/loss"], rel=1e-5)
        assert logged["val/gap/val_acc"] == pytest.approx(logged["val/acc"])
        if more:
            continue
        part = run.datamodule.parts["train"]
        x, y = part.__getitems__([i * len(part) // 144 for i in range(144)])
        module.eval()
        loss = float(F.cross_entropy(module.model(x), y))
        assert logged["val/gap/train_loss"] == pytest.approx(loss, rel=1e-5)
        assert logged["val/gap/loss"] == pytest.approx(logged["val/loss"] - loss, rel=1e-3)


def test_strength_of_the_gap(tmp_path):
    options = {"rows": 4, "cols": 4, "contexts": 6, "pairs": RandomPairs(1, 5)}
    gap = GeneralizationGap(20, every=1, strength_samples=5, **options)
    module, run, _ = fit(tmp_path, gap, max_epochs=1)
    part = run.datamodule.parts["train"]
    metric = InteractionStrength(
        GridPlayers(4, 4), pairs=RandomPairs(1, 5), contexts=6, only_correct=False
    )
    metric.update(module.model, *part.__getitems__([i * 4 * len(part) // 20 for i in range(5)]))
    found = float(metric.compute()["strength_plug_in"])
    assert float(run.callback_metrics["val/gap/train_strength"]) == pytest.approx(found, rel=1e-4)


class Noisy(Dataset):
    """Draws from the global generator for every sample."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.rand(1, 8, 8), i % 2


@pytest.mark.parametrize("noisy", [True, False])
def test_augmented_training_samples_are_warned_of(tmp_path, noisy):
    run = trainer(tmp_path, max_epochs=1, callbacks=[GeneralizationGap(strength_samples=0)])
    x, y = images(8)
    train = Noisy() if noisy else TensorDataset(x, y)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run.fit(
            InteractionClassifier(DigitsNet(width=4)),
            DataLoader(train, batch_size=4), DataLoader(TensorDataset(x, y)),
        )  # fmt: skip
    texts = [str(warning.message) for warning in found]
    assert any("augmented training samples" in text for text in texts) is noisy


def case(count=24):
    """A network, and images a quarter of which it gets wrong."""
    net = classifier()
    x, _ = images(count)
    y = net(x).argmax(-1)
    y[::4] = (y[::4] + 1) % 10
    return net, x, y


def validated(tmp_path, monitor, module=InteractionClassifier):
    net, x, y = case()
    run = trainer(tmp_path, callbacks=[monitor], logger=CSVLogger(tmp_path, name="run"))
    run.validate(module(net), DataLoader(TensorDataset(x, y), batch_size=5), verbose=False)
    folder = tmp_path / "run" / "version_0"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {key: float(v) for row in rows for key, v in row.items() if v}
    return net, x, y, folder, logged


def test_disentanglement(tmp_path, capsys):
    options = {"pairs": RandomPairs(1, 5), "contexts": 6, "baseline": 0.3, "ratios": RATIOS}
    monitor = DisentanglementMonitor(rows=4, cols=4, n_samples=24, **options)
    net, x, y, folder, logged = validated(tmp_path, monitor)
    assert "D(m) on 18 samples, 4 × 4 grid" in capsys.readouterr().out
    metric = Disentanglement(GridPlayers(4, 4), **options)
    metric.update(net, x, y)
    found = metric.compute()
    values = [logged[f"val/disentanglement/D/{ratio:g}"] for ratio in RATIOS]
    assert values == pytest.approx(found["D_plug_in"].tolist(), rel=1e-4)
    written = json.loads((folder / "disentanglement.json").read_text())
    assert written["floor"] == pytest.approx(found["contexts"].rsqrt().tolist())
    assert (folder / "disentanglement.png").stat().st_size > 1000
    with pytest.raises(InputError, match="reading: got 'rms'"):
        DisentanglementMonitor(reading="rms")


def test_exact_interactions_of_one_run_are_kept_apart(tmp_path, capsys):
    """Two of them need names, and write into folders of their own."""
    net, x, y = case()
    module, loader = InteractionClassifier(net), DataLoader(TensorDataset(x, y), batch_size=5)

    def run(*callbacks):
        logger = CSVLogger(tmp_path, name="run", version=0)
        trainer(tmp_path, callbacks=list(callbacks), logger=logger).test(module, loader)
        return tmp_path / "run" / "version_0"

    options = {"n_samples": 4, "baseline": 0.3}
    with pytest.raises(InputError, match=r"two ExactInteractions that .*, expected another name="):
        run(ExactInteractions(2, 2, **options), ExactInteractions(3, 3, **options))
    exact = [ExactInteractions(2, 2, **options), ExactInteractions(3, 3, name="fine", **options)]
    folder = run(*exact)
    assert capsys.readouterr().out.count("mean |I|, 4 cells") == 1
    for callback, path in zip(exact, (folder, folder / "fine"), strict=True):
        written = json.loads((path / "summary.json").read_text())
        found = callback.evaluate(net, x[::6], y[::6])
        assert written["mean_abs"] == pytest.approx(found["mean_abs"], rel=1e-4)
        assert written["test/acc"] == pytest.approx(18 / 24)
        assert "J_before" not in written
        assert (path / "interactions.png").stat().st_size > 1000


def test_a_fast_run_plays_few_cells_and_leaves_the_monitor_as_it_is(tmp_path, capsys):
    net, x, y = case()
    module, loader = InteractionClassifier(net), DataLoader(TensorDataset(x, y), batch_size=5)
    exact = ExactInteractions(3, 3, n_samples=4, baseline=0.3)
    trainer(tmp_path, callbacks=[exact], fast_dev_run=1).test(module, loader)
    assert "mean |I|, 4 cells" in capsys.readouterr().out
    found = exact.evaluate(net, x, y)
    assert found["J"]["orders"] == list(range(8))  # of nine cells
    assert found == ExactInteractions(3, 3, baseline=0.3).evaluate(net, x, y)


def test_robustness_files_and_keys(tmp_path, capsys):
    epsilons = [0.1, 0.02, 0.05]
    monitor = AdversarialRobustness({"pgd": foreign}, epsilons, n_samples=24)
    net, x, y, folder, logged = validated(tmp_path, monitor)
    with (folder / "robustness_samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(24))
    assert [int(row["label"]) for row in rows] == y.tolist()
    smallest = [float(row["smallest_eps_pgd"] or "inf") for row in rows]
    right = (net(x).argmax(-1) == y).tolist()
    assert [value > 0 for value in smallest] == right
    assert logged["val/robust_acc/clean"] == pytest.approx(18 / 24)
    for epsilon in epsilons:
        expected = sum(value > epsilon for value in smallest) / 24
        assert logged[f"val/robust_acc/pgd/eps_{epsilon}"] == pytest.approx(expected)
    assert logged["val/robust_acc/pgd"] == logged["val/robust_acc/pgd/eps_0.1"]
    attacked = sorted(min(value, 0.1) for value in smallest if value > 0)
    assert logged["val/robust_eps/pgd/mean"] == pytest.approx(sum(attacked) / 18)
    assert logged["val/robust_eps/pgd/median"] == pytest.approx(attacked[8])
    with (folder / "robustness.csv").open() as file:
        curve = {float(row["epsilon"]): float(row["robust_acc"]) for row in csv.DictReader(file)}
    assert curve[0.05] == pytest.approx(logged["val/robust_acc/pgd/eps_0.05"])
    assert list(curve) == [0, 0.02, 0.05, 0.1]
    assert (folder / "robustness.png").stat().st_size > 1000
    assert (folder / "images" / "val_adversarial_pgd.png").stat().st_size > 1000
    assert json.loads((folder / "robustness.json").read_text())["warnings"] == []
    assert "Robust accuracy on 24 samples" in capsys.readouterr().out


def test_masked_gradients_are_warned_of(tmp_path):
    class Staircase(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner((x * 50).round() / 50 + 0 * x)

    monitor = AdversarialRobustness({"pgd": foreign}, n_samples=24)
    with pytest.warns(UserWarning, match="pgd: a black-box attack breaks"):
        *_, folder, logged = validated(
            tmp_path, monitor, module=lambda net: InteractionClassifier(Staircase(net))
        )
    written = json.loads((folder / "robustness.json").read_text())
    assert len(written["warnings"]) == 2
    assert "val/robust_acc/pgd/eps_0.1" not in logged


class Foreign(L.LightningModule):
    """Other names and other batches."""

    def __init__(self, net) -> None:
        super().__init__()
        self.inner = torch.nn.ModuleDict({"net": net})

    def validation_step(self, batch, batch_idx):
        self.inner["net"](batch["image"])


def test_any_module_with_an_adapter(tmp_path):
    """The same numbers from batches that are dicts and a network that lies elsewhere."""
    adapter = {"model": lambda module: module.inner["net"], "batch": ("image", "label")}
    net, x, y = case()
    items = [{"label": int(b), "image": a} for a, b in zip(x, y, strict=True)]
    found = {}
    for name, module, data, more in (
        ("own", InteractionClassifier(net), DataLoader(TensorDataset(x, y)), {}),
        ("foreign", Foreign(net), DataLoader(items), adapter),
    ):
        options = {"rows": 4, "cols": 4, "pairs": RandomPairs(1, 5), "contexts": 4, "n_samples": 6}
        callbacks = [
            SpectrumMonitor(**options, ratios=RATIOS, baseline=0.3, **more),
            AdversarialRobustness({"pgd": foreign}, n_samples=24, checks=False, **more),
        ]
        run = trainer(tmp_path, callbacks=callbacks, logger=CSVLogger(tmp_path, name=name))
        run.validate(module, data, verbose=False)
        folder = tmp_path / name / "version_0"
        found[name] = [
            (folder / file).read_text() for file in ("spectrum.csv", "robustness_samples.csv")
        ]
    assert found["own"] == found["foreign"]


def test_half_precision(tmp_path):
    run = trainer(tmp_path, callbacks=monitors(), precision="bf16-mixed")
    x, y = images(19)
    run.validate(InteractionClassifier(classifier()), DataLoader(TensorDataset(x, y)))
    run = trainer(
        tmp_path,
        callbacks=[GeneralizationGap(strength_samples=0)],
        precision="bf16-true",
        max_epochs=1,
    )
    data = DataLoader(TensorDataset(x, y))
    run.fit(InteractionClassifier(DigitsNet(width=4)), data, copy.copy(data))
    assert math.isfinite(float(run.callback_metrics["val/gap/val_loss"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdversarialRobustness({}), "attacks: got"),
        (lambda: AdversarialRobustness({"a/b": foreign}), "the name 'a/b'"),
        (lambda: AdversarialRobustness({"clean": foreign}), "the name 'clean'"),
        (lambda: AdversarialRobustness({"a": foreign}, [0.0, 0.1]), "epsilons: got"),
        (lambda: AdversarialRobustness({"a": foreign}, n_samples=0), "n_samples: got 0"),
        (lambda: GeneralizationGap(n_samples=4, strength_samples=5), "strength_samples: got 5"),
        (lambda: GeneralizationGap(every=0), "every: got 0"),
        (lambda: GeneralizationGap(batch="xy"), "batch: got xy"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
