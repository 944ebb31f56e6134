"""Monitors among Lightning's other parts: early stops, several loaders, names, folders."""

import warnings

import lightning as L
import pytest
import torch
import torchattacks
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
)

from interaction_train.callbacks import (
    AdversarialRobustness,
    AdversarialTraining,
    GeneralizationGap,
    InteractionRegularizer,
    SpectrumMonitor,
)
from interaction_train.errors import InputError
from tests.callbacks.plain import Plain, fit, terms, weighted, weights
from tests.callbacks.test_adapter import Module, data, pgd
from tests.metrics.watch import trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def run(tmp_path, *callbacks, module=None, val=None, train=None, **options):
    L.seed_everything(0)
    found = trainer(tmp_path, callbacks=list(callbacks), **{"max_epochs": 8, **options})
    module = Module() if module is None else module
    train = DataLoader(data(), batch_size=20) if train is None else train
    found.fit(module, train, DataLoader(data(), batch_size=20) if val is None else val)
    return found


class Frozen(Module):
    """Never gets better."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def gap(every, **more):
    return GeneralizationGap(8, every=every, strength_samples=0, **more)


def test_patience_counts_measurements_alone(tmp_path):
    stop = EarlyStopping("val/gap/val_acc", patience=2, mode="max", strict=False)
    frozen = Frozen()
    for part in frozen.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = 0.0
    done = run(tmp_path, gap(3), stop, module=frozen, max_epochs=20)
    # Measured in epochs 0, 3 and 6; the second that is no better stops.
    assert done.current_epoch == 7
    with pytest.warns(UserWarning, match="patience of 2 counts measurements"):
        run(tmp_path, gap(3), EarlyStopping("val/gap/acc", patience=2, strict=False))


def test_old_values_do_not_look_new(tmp_path):
    seen = []

    class Look(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                seen.append("val/gap/acc" in trainer.callback_metrics)

    run(tmp_path, gap(3), Look(), max_epochs=5)
    assert seen == [True, False, False, True, False]


class Plateau(Module):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        plan = {"scheduler": scheduler, "monitor": "val/gap/val_loss"}
        return {"optimizer": optimizer, "lr_scheduler": plan}


@pytest.mark.parametrize(
    ("module", "watcher", "name"),
    [
        (Module, EarlyStopping("val/gap/acc"), "EarlyStopping watches 'val/gap/acc'"),
        (Module, ModelCheckpoint(monitor="val/gap/acc"), "ModelCheckpoint watches"),
        (Plateau, L.Callback(), "lr_scheduler watches 'val/gap/val_loss'"),
    ],
)
def test_what_needs_a_value_after_every_validation_is_refused(module, watcher, name, tmp_path):
    checkpoints = isinstance(watcher, ModelCheckpoint)
    with pytest.raises(InputError, match=f"every: got 3 for GeneralizationGap.*{name}"):
        run(tmp_path, gap(3), watcher, module=module(), enable_checkpointing=checkpoints)
    run(tmp_path, gap(1), watcher, module=module(), max_epochs=2, enable_checkpointing=checkpoints)


def test_every_larger_than_the_run_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="measures once in this run, after the first of 4"):
        run(tmp_path, gap(20), max_epochs=4)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run(tmp_path, gap(2), max_epochs=4)
    assert not any("measures once" in str(warning.message) for warning in found)


def test_two_of_one_class(tmp_path):
    narrow = AdversarialRobustness({"pgd": pgd}, [0.01], n_samples=40, every=1, name="narrow")
    wide = AdversarialRobustness({"pgd": pgd}, [0.1], n_samples=40, every=1)
    done = run(tmp_path, narrow, wide, max_epochs=1)
    found = done.callback_metrics
    assert found["val/narrow/robust_acc/clean"] == found["val/robust_acc/clean"]
    assert found["val/narrow/robust_acc/pgd"] > found["val/robust_acc/pgd"]
    assert narrow.state_key != wide.state_key
    again = trainer(tmp_path, callbacks=[narrow, wide])
    again.validate(done.lightning_module, DataLoader(data(), batch_size=20), verbose=False)
    (folder,) = tmp_path.glob("results_*")
    assert (folder / "robustness.json").is_file()
    assert (folder / "narrow" / "robustness.json").is_file()
    third = trainer(tmp_path, callbacks=[narrow])
    third.validate(done.lightning_module, DataLoader(data(), batch_size=20), verbose=False)
    assert len(list(tmp_path.glob("results_*"))) == 2  # nothing is overwritten


@pytest.mark.parametrize("name", [None, "mine"])
def test_two_of_one_class_and_name_are_refused(tmp_path, name):
    pair = [GeneralizationGap(n, strength_samples=0, name=name) for n in (8, 16)]
    message = "callbacks: got two GeneralizationGap that log the same keys.*another name= for each"
    with pytest.raises(InputError, match=message):
        run(tmp_path, *pair)


def test_two_regularizers_of_one_prefix_are_refused():
    for prefix in ("train/", None):
        pair = [InteractionRegularizer(weighted(), log_prefix=prefix) for _ in range(2)]
        with pytest.raises(InputError, match="another log_prefix= for each"):
            fit(Plain(), *pair)
    fit(Plain(), InteractionRegularizer(weighted(), log_prefix=None), L.Callback())


def test_two_regularizers_are_one_with_both_losses():
    losses = weighted()
    whole = weights(fit(Plain(), InteractionRegularizer(losses)))
    losses = weighted()
    parts = [
        InteractionRegularizer({"low": losses.pop("low")}, log_prefix="train/first/"),
        InteractionRegularizer(losses),
    ]
    module = fit(Plain(), *parts)
    torch.testing.assert_close(weights(module), whole)
    assert {"train/first/loss/low", "train/loss/band"} <= module.logged.keys()


def test_a_step_of_the_batch_alone_with_two_layers():
    class Short(Plain):
        def training_step(self, batch):
            return super().training_step(batch, 0)

    both = lambda: (InteractionRegularizer(weighted()), AdversarialTraining(pgd))  # noqa: E731
    assert torch.equal(weights(fit(Short(), *both())), weights(fit(Plain(), *both())))


LOADERS = {
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"one": a, "two": b},
    "combined": lambda a, b: CombinedLoader({"one": a, "two": b}, "sequential"),
}


class Several(Module):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch["one"] if isinstance(batch, dict) else batch, batch_idx)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass


@pytest.mark.parametrize("kind", LOADERS)
def test_several_loaders(kind, tmp_path):
    """The first of them is measured."""
    loaders = [DataLoader(data(count), batch_size=20) for count in (40, 30)]
    values = []
    for val in (loaders[0], LOADERS[kind](*loaders)):
        train = {"one": loaders[1], "two": loaders[0]} if kind == "dict" else loaders[1]
        done = run(tmp_path, gap(1), module=Several(), val=val, train=train, max_epochs=1)
        values.append(
            {k: float(v) for k, v in done.callback_metrics.items() if k.startswith("val/gap")}
        )
    assert values[0] == values[1]
    assert len(values[0]) == 6


def test_a_data_set_without_places_is_refused(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(data())

        def __len__(self):
            return 40

    with pytest.raises(InputError, match="dataloader: got Stream"):
        run(tmp_path, gap(1), val=DataLoader(Stream(), batch_size=20), max_epochs=1)
    with pytest.raises(InputError, match="dataloader: got finished batches of Batches"):
        run(tmp_path, gap(1), val=DataLoader(Batches(), batch_size=None), max_epochs=1)


class Batches(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, place):
        return data()[20 * place : 20 * place + 20]


PART = list(range(1, 40, 3))
SUBSETS = {
    "sampler": lambda: DataLoader(data(), batch_size=13, sampler=SubsetRandomSampler(PART)),
    "places": lambda: DataLoader(data(), batch_size=13, sampler=PART),
    "batches": lambda: DataLoader(
        data(), batch_sampler=BatchSampler(SubsetRandomSampler(PART), 13, drop_last=False)
    ),
    "lists": lambda: DataLoader(data(), batch_sampler=[PART]),
    "fetched together": lambda: DataLoader(
        data(), batch_size=None, sampler=BatchSampler(SubsetRandomSampler(PART), 13, False)
    ),
}


@pytest.mark.parametrize("kind", SUBSETS)
def test_a_sampler_s_subset_is_what_is_measured(kind, tmp_path):
    """Two loaders of one data set: each split has its own samples, as the module's loop has."""
    rest = [place for place in range(40) if place not in PART]
    train = DataLoader(data(), batch_size=9, sampler=SubsetRandomSampler(rest))
    robustness = AdversarialRobustness({"pgd": pgd}, [0.02], n_samples=40, every=1)
    whole = GeneralizationGap(40, every=1, strength_samples=0)
    done = run(tmp_path, robustness, whole, train=train, val=SUBSETS[kind](), max_epochs=2)
    found = {key: float(value) for key, value in done.callback_metrics.items()}
    assert found["val/robust_acc/clean"] == pytest.approx(found["val/acc"])
    assert found["val/gap/val_acc"] == pytest.approx(found["val/acc"])
    module = done.lightning_module.eval()
    taken = [rest[i * len(rest) // len(PART)] for i in range(len(PART))]
    x, y = data()[taken]
    with torch.no_grad():
        right = float((module(x).argmax(-1) == y).float().mean())
    assert found["val/gap/train_acc"] == pytest.approx(right)
    x, y = data()[:]
    with torch.no_grad():
        everything = float((module(x).argmax(-1) == y).float().mean())
    assert found["val/acc"] != pytest.approx(everything, abs=1e-3)


def test_a_sampler_of_fewer_samples_is_told_of(tmp_path):
    sampler = RandomSampler(data(), num_samples=10)
    with pytest.warns(UserWarning, match="All 40 samples.*RandomSampler gives 10"):
        run(tmp_path, gap(1), train=DataLoader(data(), 5, sampler=sampler), max_epochs=1)


def test_nothing_right_is_said(tmp_path):
    x, _ = data()[:]
    module = Module()
    module.eval()
    wrong = torch.utils.data.TensorDataset(x, (module(x).argmax(-1) + 1) % 3)
    for callback in (AdversarialRobustness({"pgd": pgd}), SpectrumMonitor(4, 4, baseline=0.0)):
        text = "none of 40 samples" if isinstance(callback, AdversarialRobustness) else "No sample"
        with pytest.warns(UserWarning, match=text):
            trainer(tmp_path, callbacks=[callback]).validate(
                module, DataLoader(wrong, batch_size=20), verbose=False
            )


def test_targets_for_a_whole_set(tmp_path):
    """By rule and by list; a targeted attack breaks no more than is broken without targets."""
    values = {}
    for targets in (None, "random", "least_likely", [1, 2, 0]):
        robustness = AdversarialRobustness(
            {"pgd": pgd}, [0.02, 0.05], n_samples=40, every=1, targets=targets
        )
        training = AdversarialTraining(pgd, targets=targets)
        done = run(tmp_path, robustness, training, max_epochs=1)
        values[str(targets)] = float(done.callback_metrics["val/robust_acc/pgd"])
    assert len(set(values.values())) > 1


def made(net):
    return torchattacks.PGD(net)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AdversarialRobustness({"a": made(nn.Linear(2, 2))}),
            "attacks: got.*PGD itself",
        ),
        (lambda: AdversarialRobustness(torchattacks.PGD), "attacks: got.*name →"),
        (lambda: AdversarialTraining(made(nn.Linear(2, 2))), "attack: got.*PGD itself"),
        (
            lambda: SpectrumMonitor(attack=made(nn.Linear(2, 2))),
            "attack: got.*PGD itself",
        ),
        (lambda: InteractionRegularizer(terms()), "losses: got OrderLoss.*WeightedTerm"),
        (lambda: InteractionRegularizer(terms()["low"]), "losses: got"),
        (lambda: gap(1, name="a/b"), "name: got 'a/b'"),
    ],
)
def test_what_to_pass_instead_is_said(make, message):
    with pytest.raises(InputError, match=message):
        make()
