import csv
import json
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.callbacks import ExactInteractions
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses import BandLoss, InteractionLoss, OrderLoss
from interaction_train.models import DigitsNet
from interaction_train.training.module import InteractionClassifier
from interaction_train.training.objective import WeightedTerm


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def classifier(loss: InteractionLoss | None = None, **kwargs) -> InteractionClassifier:
    torch.manual_seed(0)
    losses = {} if loss is None else {"interaction": WeightedTerm(loss, 2.0)}
    return InteractionClassifier(
        DigitsNet(), **{"losses": losses, "optimizer": sgd, "num_classes": 10, **kwargs}
    )


def fit(module: L.LightningModule, folder: Path, batch_size: int = 32, **kwargs) -> L.Trainer:
    options = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "limit_train_batches": 3,
        "limit_val_batches": 1,
        "logger": CSVLogger(folder, name="log", version=0),
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **kwargs,
    }
    trainer = L.Trainer(**options)
    trainer.fit(module, DigitsDataModule(batch_size=batch_size))
    return trainer


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "version_0" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_logs_the_parts_of_the_loss(tmp_path):
    fit(classifier(InteractionLoss("features.2")), tmp_path)
    steps = [row for row in rows(tmp_path) if row["train/loss"]]
    assert len(steps) == 3
    for row in steps:
        parts = float(row["train/loss/cross_entropy"]), float(row["train/loss/interaction"])
        assert parts[1] > 0
        assert float(row["train/loss"]) == pytest.approx(parts[0] + 2 * parts[1], rel=1e-5)
    names = {name for row in rows(tmp_path) for name, value in row.items() if value}
    assert {"train/acc", "val/loss", "val/acc"} <= names


def test_training_step_is_the_plain_loop(tmp_path):
    """The same weights as a loop in plain PyTorch over the same batches."""
    loss = InteractionLoss("features.2", contexts=2)
    module = classifier(loss)
    fit(module, tmp_path)
    plain = classifier().model
    data = DigitsDataModule(batch_size=32)
    data.setup("fit")
    optimizer = sgd(plain.parameters())
    for step, (x, y) in zip(range(3), data.train_dataloader(), strict=False):
        value = nn.functional.cross_entropy(plain(x), y) + 2.0 * loss(plain, x, y, step=step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    torch.testing.assert_close(module.model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:losses .* never start")
def test_warm_up_costs_nothing(tmp_path):
    counts = []
    for losses in ({}, {"interaction": WeightedTerm(InteractionLoss("features.2"), 2.0, 1)}):
        module = classifier(losses=losses)
        passes = []
        module.model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        fit(module, tmp_path / str(len(losses)))
        counts.append(len(passes))
    assert counts[0] == counts[1]
    fit(module, tmp_path / "later", max_epochs=2)
    epochs = [row["epoch"] for row in rows(tmp_path / "later") if row.get("train/loss/interaction")]
    assert epochs == ["1"] * 3


@pytest.mark.parametrize(("layer", "lags"), [("0", True), ("3", False), ("4", False)])
def test_warns_of_batch_norm_after_the_layer_alone(layer, lags, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    losses = {"one": WeightedTerm(InteractionLoss(layer, payoff="log_prob"))}
    module = InteractionClassifier(network, losses=losses, optimizer=sgd)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, tmp_path, limit_train_batches=1)
    assert any("running statistics lag" in str(w.message) for w in caught) == lags


def test_accumulated_micro_batches_draw_differently(tmp_path):
    """Two accumulated halves of a batch equal the loop over them, each with a step of its own."""
    loss = InteractionLoss("features.2")
    module = classifier(loss)
    fit(module, tmp_path, batch_size=16, accumulate_grad_batches=2, limit_train_batches=2)
    plain = classifier().model
    data = DigitsDataModule(batch_size=16)
    data.setup("fit")
    optimizer = sgd(plain.parameters())
    for step, (x, y) in zip(range(2), data.train_dataloader(), strict=False):
        value = nn.functional.cross_entropy(plain(x), y) + 2.0 * loss(plain, x, y, step=step)
        (value / 2).backward()
    optimizer.step()
    torch.testing.assert_close(module.model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)


def test_bf16_autocast_trains_close_to_full_precision(tmp_path):
    states = []
    for precision in ("32-true", "bf16-mixed"):
        module = classifier(InteractionLoss("features.2"))
        before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
        fit(module, tmp_path / precision, precision=precision)
        after = dict(module.model.named_parameters())
        states.append(torch.cat([(after[n] - before[n]).flatten() for n in before]))
    cosine = torch.nn.functional.cosine_similarity(*states, dim=0)
    assert cosine > 0.99


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    one = classifier(InteractionLoss("features.2", contexts=2))
    exact = {"callbacks": [ExactInteractions(3, 3, n_samples=4)]}
    trainer = fit(one, tmp_path / "one", batch_size=32, **exact)
    trainer.test(one, DigitsDataModule(), verbose=False)
    two = classifier(InteractionLoss("features.2", contexts=2))
    trainer = fit(two, tmp_path / "two", batch_size=16, strategy="ddp_spawn", devices=2, **exact)
    trainer.test(two, DigitsDataModule(), verbose=False)
    torch.testing.assert_close(two.model.state_dict(), one.model.state_dict(), rtol=1e-4, atol=1e-6)
    first, second = (
        json.loads((tmp_path / name / "log" / "version_0" / "summary.json").read_text())
        for name in ("one", "two")
    )
    assert second["mean_abs"]["value"] == pytest.approx(first["mean_abs"]["value"], rel=1e-3)
    assert second["test/acc"] == pytest.approx(first["test/acc"], abs=0.01)
    start = classifier().model.state_dict()
    assert not torch.allclose(start["features.0.weight"], one.model.features[0].weight)


def test_checkpoint_of_plain_python_reloads_safely(tmp_path):
    module = classifier(InteractionLoss("features.2"))
    trainer = fit(module, tmp_path)
    path = tmp_path / "plain.ckpt"
    trainer.save_checkpoint(path)
    state = torch.load(path, weights_only=True)
    assert state["hyper_parameters"] == {"num_classes": 10, "label_smoothing": 0.0}
    again = InteractionClassifier.load_from_checkpoint(path, model=DigitsNet(), weights_only=True)
    torch.testing.assert_close(again.model.state_dict(), module.model.state_dict())


def test_batch_norm_without_warm_up_is_warned_about(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    loss = {"early": WeightedTerm(InteractionLoss("1", group_fraction=0.2))}
    module = InteractionClassifier(model, losses=loss, optimizer=sgd)
    with pytest.warns(UserWarning, match=r"\['early'\] start in epoch 0 on a network with Batch"):
        fit(module, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes: got 1"),
        ({"label_smoothing": 1.5}, "label_smoothing: got 1.5"),
        (
            {"losses": {"a": WeightedTerm(InteractionLoss("feature.2"))}},
            "layer: got 'feature.2', expected a submodule of the network, such as features.2",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        classifier(**arguments)


def test_labels_beyond_num_classes(tmp_path):
    with pytest.raises(InputError, match="num_classes: got 7, expected at least 10"):
        fit(InteractionClassifier(DigitsNet(num_classes=7), num_classes=7), tmp_path)


def batch_of(classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8) % classes


def run(module: InteractionClassifier, x, y, **kwargs) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, **{"max_epochs": 1, **kwargs},
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=4))
    return trainer


def test_soft_labels_train_as_their_hard_ones_where_they_are_certain():
    x, y = batch_of()
    states, logs = [], []
    for labels in (y, nn.functional.one_hot(y, 10).float()):
        module = classifier(
            losses={
                "interaction": InteractionLoss("features.2"),
                "band": BandLoss(0.5, 0.25, players=GridPlayers(4, 4), baseline=0.5),
            },
            label_smoothing=0.1,
        )
        logs.append(run(module, x, labels).callback_metrics)
        states.append(module.model.state_dict())
    torch.testing.assert_close(*states)
    assert logs[0].keys() == logs[1].keys()
    torch.testing.assert_close(*logs)


def test_mixed_labels_give_the_mixed_cross_entropy():
    x, y = batch_of()
    mixed = 0.3 * nn.functional.one_hot(y, 10) + 0.7 * nn.functional.one_hot((y + 1) % 10, 10)
    module = classifier()
    with torch.no_grad():
        logits = module.model(x[:4])
    parts = [nn.functional.cross_entropy(logits, labels) for labels in (y[:4], (y[:4] + 1) % 10)]
    logged = run(module, x[:4], mixed[:4]).callback_metrics
    torch.testing.assert_close(logged["train/loss"], 0.3 * parts[0] + 0.7 * parts[1])
    right = (logits.argmax(1) == (y[:4] + 1) % 10).float().mean()
    torch.testing.assert_close(logged["train/acc"], right)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_true_precisions(precision):
    x, y = batch_of()
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]
    terms = {
        "interaction": InteractionLoss("features.2"),
        "order": OrderLoss(0.7, 1, players=GridPlayers(4, 4), baseline=0.5),
    }
    module = classifier(losses=terms)
    trainer = run(module, x.to(dtype), y, precision=precision)
    assert next(module.model.parameters()).dtype == dtype
    for name in terms:
        assert trainer.callback_metrics[f"train/loss/{name}"].isfinite()


def test_losses_that_never_take_part_are_warned_about():
    term = InteractionLoss("features.2")
    losses = {
        "late": WeightedTerm(term, warmup_epochs=1),
        "in time": WeightedTerm(term),
        "none": WeightedTerm(term, weight=0.0),
    }
    with pytest.warns(UserWarning, match="losses") as caught:
        run(classifier(losses=losses), *batch_of())
    messages = [str(w.message) for w in caught if "losses [" in str(w.message)]
    assert len(messages) == 2
    assert "['none'] have a weight of 0" in messages[0]
    assert "['late'] never start" in messages[1]


def test_a_bare_term_has_weight_1():
    module = classifier(losses={"a": InteractionLoss("features.2")})
    assert module.losses["a"] == WeightedTerm(module.losses["a"].term, 1.0)
    assert not [name for name in module.state_dict() if "losses" in name]


def head(*layers: nn.Module) -> InteractionClassifier:
    return InteractionClassifier(nn.Sequential(nn.Flatten(), *layers), 10)


class Both(DigitsNet):
    def forward(self, x):
        return {"logits": super().forward(x)}


@pytest.mark.parametrize(
    ("make", "labels", "message"),
    [
        (lambda: head(nn.Linear(64, 1)), lambda y: y % 2, "one logit, expected a head with"),
        (lambda: head(nn.Linear(64, 10), nn.Softmax(1)), lambda y: y, "look like probabilities"),
        (lambda: InteractionClassifier(Both(), 10), lambda y: y, r"wrap the network: logits_of\("),
        (lambda: head(nn.Linear(64, 10)), lambda y: y.int(), r"y: got torch.int32 \(4,\)"),
        (
            lambda: head(nn.Linear(64, 10)),
            lambda y: nn.functional.one_hot(y, 10),
            r"y: got torch.int64 \(4, 10\), expected int64 \(4,\)",
        ),
        (
            lambda: head(nn.Linear(64, 10)),
            lambda y: torch.rand(8, 7),
            r"y: got shape \(4, 7\), expected probabilities \(4, 10\)",
        ),
    ],
)
def test_networks_and_labels_that_do_not_fit(make, labels, message):
    x, y = batch_of()
    with pytest.raises(InputError, match=message):
        run(make(), x, labels(y))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([InteractionLoss("features.2")], r"losses: got list, expected terms by name"),
        ({"a": InteractionLoss}, "term: got InteractionLoss, expected a loss term"),
        ({"a": 1.0}, "term: got float, expected a loss term"),
    ],
)
def test_what_is_no_term(losses, message):
    with pytest.raises(InputError, match=message):
        classifier(losses=losses)
