import math

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.errors import InputError
from interaction_train.game.layers import ForwardRecord
from interaction_train.game.players import GridPlayers
from interaction_train.losses import BandLoss
from interaction_train.losses.base import InteractionTerm
from interaction_train.training.module import InteractionClassifier
from interaction_train.training.objective import WeightedTerm, add_terms


class Given(InteractionTerm):
    """A term with values given beforehand."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.given, self.steps = values, []

    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        self.steps.append(step)
        return torch.tensor(self.given[step % len(self.given)], requires_grad=True)


def scheduled(weighted: WeightedTerm, *epochs: float) -> list[float]:
    return [weighted.scheduled(epoch) for epoch in epochs]


def test_constant_weight_after_a_warm_up():
    weighted = WeightedTerm(Given(1.0), weight=3.0, warmup_epochs=2)
    assert scheduled(weighted, 0, 1, 1.99, 2, 2.5, 100) == [0, 0, 0, 3, 3, 3]
    assert [weighted.active(epoch) for epoch in (0, 1, 2)] == [False, False, True]
    assert scheduled(WeightedTerm(Given(1.0)), 0, 7) == [1, 1]


def test_linear_ramp():
    weighted = WeightedTerm(Given(1.0), weight=2.0, warmup_epochs=1, ramp="linear", ramp_epochs=4)
    assert scheduled(weighted, 0.5, 1, 2, 2.5, 5, 9) == pytest.approx([0, 0, 0.5, 0.75, 2, 2])


def test_cosine_ramp():
    weighted = WeightedTerm(Given(1.0), weight=2.0, ramp="cosine", ramp_epochs=3)
    values = scheduled(weighted, 0, 0.75, 1, 1.5, 2, 3, 4)
    assert values == pytest.approx([0, 1 - math.sqrt(0.5), 0.5, 1, 1.5, 2, 2])


def test_falling_ramp():
    weighted = WeightedTerm(Given(1.0), weight=2.0, warmup_epochs=1, ramp="falling", ramp_epochs=4)
    assert scheduled(weighted, 0.5, 1, 2, 2.5, 4.75, 5, 9) == [
        0, 2, 1.125, 0.78125, 0.0078125, 0, 0,
    ]  # fmt: skip
    assert [weighted.active(epoch) for epoch in (0, 1, 4.75, 5)] == [False, True, True, False]


def step(losses: dict, classification: float, number: int = 0, epoch: float = 0) -> tuple:
    return add_terms(
        losses,
        torch.tensor(classification, requires_grad=True),
        nn.Identity(),
        torch.zeros(1, 1),
        torch.zeros(1, dtype=torch.int64),
        step=number,
        epoch=epoch,
    )


def test_sum_and_logs():
    one = WeightedTerm(Given(2.0), weight=0.5)
    two = WeightedTerm(Given(-4.0), weight=2.0, ramp="linear", ramp_epochs=2)
    late = WeightedTerm(Given(9.0), warmup_epochs=5)
    total, logs = step({"one": one, "two": two, "late": late}, 10.0, number=3, epoch=1)
    assert total.item() == 10 + 0.5 * 2 - 1.0 * 4
    assert logs == {"loss/one": 2.0, "loss/two": -4.0, "weight/two": 1.0}
    assert (one.term.steps, late.term.steps) == ([3], [])
    assert not logs["loss/one"].requires_grad
    assert step({}, 10.0)[1] == {}


def test_share_holds_the_part_at_a_share_of_the_classification_loss():
    for value in (4.0, -0.2, 300.0):
        weighted = WeightedTerm(Given(value), loss_ratio=0.25)
        for number in range(3):
            total, logs = step({"term": weighted}, 2.0, number)
            assert abs(total.item() - 2.0) == pytest.approx(0.25 * 2.0)
            assert math.copysign(1, total.item() - 2.0) == math.copysign(1, value)
        assert logs["weight/term"].item() == pytest.approx(0.5 / abs(value))


def test_share_follows_running_means():
    given = [1.0, 2.0, 8.0, 0.5]
    weighted = WeightedTerm(Given(*given), loss_ratio=0.1, weight=2.0)
    mean = None
    for number, (value, loss) in enumerate(zip(given, (3.0, 2.0, 1.0, 4.0), strict=True)):
        now = (loss, value)
        mean = now if mean is None else [0.9 * m + 0.1 * v for m, v in zip(mean, now, strict=True)]
        _, logs = step({"term": weighted}, loss, number)
        assert logs["weight/term"].item() == pytest.approx(2.0 * 0.1 * mean[0] / mean[1])


def test_share_is_capped_and_survives_zeros_and_overflows():
    assert step({"term": WeightedTerm(Given(1e-6), loss_ratio=1.0)}, 1.0)[1]["weight/term"] == 10
    weighted = WeightedTerm(Given(1e-6), loss_ratio=1.0, max_weight=50.0, weight=2.0)
    assert step({"term": weighted}, 1.0)[1]["weight/term"].item() == 100
    zero = WeightedTerm(Given(0.0), loss_ratio=1.0)
    assert step({"term": zero}, 1.0)[0].item() == 1
    weighted = WeightedTerm(Given(math.nan, 2.0, math.inf, 2.0), loss_ratio=0.5)
    for number in range(4):
        total, _ = step({"term": weighted}, 1.0, number)
        assert math.isfinite(total.item()) == (number in (1, 3))
    assert total.item() == pytest.approx(1.5)


def test_share_keeps_gradients_out_of_the_weight():
    weighted = WeightedTerm(Given(4.0), loss_ratio=0.5)
    loss = torch.tensor(2.0, requires_grad=True)
    total, _ = add_terms(
        {"term": weighted}, loss, nn.Identity(), torch.zeros(1), torch.zeros(1), step=0, epoch=0
    )
    total.backward()
    assert loss.grad == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"weight": -1.0}, "weight"),
        ({"weight": math.nan}, "weight"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"ramp": "step"}, "ramp"),
        ({"ramp": "linear"}, "ramp_epochs"),
        ({"ramp": "falling"}, "ramp_epochs"),
        ({"ramp_epochs": 2}, "ramp_epochs"),
        ({"loss_ratio": 0.0}, "loss_ratio"),
        ({"max_weight": 0.0}, "max_weight"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(InputError) as caught:
        WeightedTerm(Given(1.0), **arguments)
    assert caught.value.argument == named


def test_yaml_shape():
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningModule, "model")
    term = {"class_path": "interaction_train.losses.BandLoss",
            "init_args": {"center": 0.5, "half_width": 0.2,
                          "players": {"class_path": "interaction_train.game.players.GridPlayers",
                                      "init_args": {"rows": 4, "cols": 4}}}}  # fmt: skip
    weighted = {"term": term, "ramp": "cosine", "ramp_epochs": 3, "loss_ratio": 0.1}
    config = {
        "class_path": "interaction_train.training.module.InteractionClassifier",
        "init_args": {
            "model": {"class_path": "interaction_train.models.DigitsNet"},
            "losses": {"band": weighted},
        },
    }
    model = parser.instantiate_classes(parser.parse_object({"model": config})).model
    band = model.losses["band"]
    assert isinstance(band, WeightedTerm)
    assert isinstance(band.term, BandLoss)
    assert (band.weight, band.warmup_epochs, band.ramp, band.loss_ratio) == (1.0, 0, "cosine", 0.1)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Stop(L.Callback):
    """Saves a checkpoint in the middle of an epoch."""

    def __init__(self, path: str, at: int) -> None:
        self.path, self.at = path, at

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.at:
            trainer.save_checkpoint(self.path)


def test_ramp_and_share_go_on_where_a_checkpoint_was_written(tmp_path):
    generator = torch.Generator().manual_seed(0)
    # All batches are alike: a plain loader starts anew when training resumes within an epoch.
    x = torch.rand(4, 1, 4, 4, generator=generator).repeat(6, 1, 1, 1)
    data = TensorDataset(x, torch.arange(4).repeat(6) % 3)

    def fit(callbacks: list, ckpt_path: str | None = None) -> InteractionClassifier:
        band = BandLoss(0.5, 0.25, players=GridPlayers(4, 4), baseline=0.5)
        weighted = WeightedTerm(band, ramp="linear", ramp_epochs=3, loss_ratio=0.5)
        module = InteractionClassifier(Small(), 3, {"band": weighted})
        trainer = L.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, callbacks=callbacks,
        )  # fmt: skip
        trainer.fit(module, DataLoader(data, batch_size=4), ckpt_path=ckpt_path)
        return module

    path = str(tmp_path / "middle.ckpt")
    whole = fit([Stop(path, at=8)])
    state = torch.load(path, weights_only=True)["interaction_losses"]
    assert state["band"]["magnitudes"].shape == (2,)
    resumed = fit([], ckpt_path=path)
    torch.testing.assert_close(
        resumed.losses["band"].state_dict()["magnitudes"],
        whole.losses["band"].state_dict()["magnitudes"],
        rtol=0,
        atol=0,
    )
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
