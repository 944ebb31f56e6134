import inspect
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from interaction_train.callbacks import InteractionRegularizer, OrderReport
from interaction_train.errors import InputError
from interaction_train.losses import InteractionLoss, OrderLoss
from interaction_train.training.module import InteractionClassifier
from interaction_train.training.objective import WeightedTerm
from tests.callbacks.plain import (
    FACTORS,
    GRID,
    Inside,
    Plain,
    fit,
    network,
    share,
    weighted,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def regularized(*arguments, **more) -> InteractionRegularizer:
    return InteractionRegularizer(weighted(), *arguments, **more)


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_same_weights_as_the_losses_written_inside_the_step():
    plain = weights(fit(Plain()))
    inside = weights(fit(Inside()))
    assert (plain - inside).abs().max() > 0.01
    close(weights(fit(Plain(), regularized())), inside)


def test_with_batchnorm():
    inside = fit(Inside(norm=True))
    outside = fit(Plain(norm=True), regularized())
    close(weights(outside), weights(inside))
    # Momentum .1 a step, on main batches only: no coalition has left a trace.
    close(outside.net[2].running_mean, inside.net[2].running_mean)
    assert outside.net[2].num_batches_tracked == 12


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision(precision):
    inside = weights(fit(Inside(), precision=precision))
    close(weights(fit(Plain(), regularized(), precision=precision)), inside, 0.02)
    exact = weights(fit(Inside()))
    assert 0 < (inside - exact).abs().max() < 0.3


def test_training_step_keeps_its_signature_and_comes_back():
    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            self.signature = inspect.signature(pl_module.training_step)
            self.own = "training_step" in vars(pl_module)

    look, module = Look(), Plain()
    fit(module, regularized(), look)
    assert look.signature == inspect.signature(Plain().training_step)
    assert look.own
    assert "training_step" not in vars(module)
    own = module.training_step
    module.training_step = own  # an instance's own attribute comes back too
    fit(module, regularized())
    assert vars(module)["training_step"] is own


def test_training_step_comes_back_after_an_exception():
    class Broken(Plain):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise RuntimeError("no memory")
            return super().training_step(batch, batch_idx)

    module = Broken()
    with pytest.raises(RuntimeError, match="no memory"):
        fit(module, regularized())
    assert "training_step" not in vars(module)
    assert not module.net._forward_hooks


def test_fit_again_with_the_same_callback():
    regularizer, module = regularized(), Plain()
    fit(module, regularizer, max_epochs=1)
    fit(module, regularizer, max_epochs=1)
    assert len(module.logged["train/loss/low"]) == 12
    assert module.training_step.__func__ is Plain.training_step


def test_validation_and_other_stages_are_left_alone():
    module, regularizer = Plain(), regularized()
    regularizer.setup(L.Trainer(accelerator="cpu", logger=False), module, "validate")
    assert "training_step" not in vars(module)


def test_logs_the_parts():
    module = fit(Plain(), regularized())
    assert set(module.logged) == {"train/loss/task", *(f"train/loss/{name}" for name in FACTORS)}
    assert {len(values) for values in module.logged.values()} == {12}
    assert all(-1.0987 <= value <= 0 for value in module.logged["train/loss/low"])
    assert fit(Plain(), regularized(log_prefix=None)).logged == {}


def test_dictionaries_and_skipped_steps():
    class Mapping(Plain):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "other": torch.ones(1)}

    class Skipping(Plain):
        def training_step(self, batch, batch_idx):
            return None if batch_idx % 2 else super().training_step(batch, batch_idx)

    close(weights(fit(Mapping(), regularized())), weights(fit(Inside())))
    assert len(fit(Skipping(), regularized()).logged["train/loss/low"]) == 6


def test_main_forward_pass_is_shared_only_where_it_is_the_same():
    class Counting(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.rows = []
            self.net.register_forward_pre_hook(lambda _, args: self.rows.append(len(args[0])))

    class Twice(Counting):
        def training_step(self, batch, batch_idx):
            self.net(batch[0].flip(-1))
            return super().training_step(batch, batch_idx)

    class Shifted(Counting):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch[0] * 2, batch[1]), batch_idx)

    losses = {"low": WeightedTerm(OrderLoss(0.7, 1, "penalize", players=GRID, baseline=0.3))}
    module = fit(Counting(), InteractionRegularizer(losses), max_steps=1)
    assert module.rows == [8, 8]
    assert fit(Twice(), InteractionRegularizer(losses), max_steps=1).rows == [8, 8, 16]
    with pytest.warns(UserWarning, match="other than the batch's inputs"):
        module = fit(Shifted(), InteractionRegularizer(losses), max_steps=1)
    assert module.rows == [8, 16]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Counting(), InteractionRegularizer(losses), max_steps=1)
    assert not [one for one in caught if "other than" in str(one.message)]


class Manual(Plain):
    def __init__(self, hook: bool = True) -> None:
        super().__init__()
        self.automatic_optimization, self.hook = False, hook

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(self.add_interaction_losses(loss, batch) if self.hook else loss)
        optimizer.step()


def test_manual_optimisation():
    module = Manual()
    close(weights(fit(module, regularized())), weights(fit(Inside())))
    assert not hasattr(module, "add_interaction_losses")
    with pytest.raises(InputError, match="add_interaction_losses"):
        fit(Manual(hook=False), regularized())


@pytest.mark.parametrize("whole", [False, True])
def test_compiled(whole):
    inside = weights(fit(Inside()))
    module = Plain()
    if whole:
        compiled = torch.compile(module, backend="eager")
    else:
        module.net = torch.compile(module.net, backend="eager")
        compiled = module
    fit(compiled, regularized())
    close(weights(module), inside)
    assert not module.net._forward_hooks


def test_finds_the_network():
    class Whole(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network()

        def forward(self, x):
            return self.layers(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        configure_optimizers = Plain.configure_optimizers

    class Hidden(Whole):
        forward = L.LightningModule.forward

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.layers(batch[0]), batch[1])

    # The module itself is the network, so its layers have longer names.
    losses = weighted()
    losses["units"].term.layer = "layers.1"
    inside = weights(fit(Inside()))
    close(weights(fit(Whole(), InteractionRegularizer(losses))), inside)
    close(weights(fit(Hidden(), regularized(model="layers"))), inside)
    close(weights(fit(Hidden(), regularized(model=lambda module: module.layers))), inside)
    with pytest.raises(InputError, match="layers"):
        fit(Hidden(), regularized())
    with pytest.raises(InputError, match="nothing"):
        fit(Hidden(), regularized(model="layers.nothing"))


def test_finds_the_batch():
    class Named(Plain):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch["image"], batch["label"]), batch_idx)

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return {"image": batch[0], "label": batch[1]}

    inside = weights(fit(Inside()))
    close(weights(fit(Named(), regularized(batch=("image", "label")))), inside)
    close(weights(fit(Named(), regularized(batch=lambda b: (b["image"], b["label"])))), inside)
    with pytest.raises(InputError, match="image"):
        fit(Named(), regularized())


def test_bad_arguments():
    with pytest.raises(InputError, match="losses"):
        InteractionRegularizer({})
    with pytest.raises(InputError, match="batch"):
        regularized(batch=(0,))
    losses = {"units": WeightedTerm(InteractionLoss("nowhere"))}
    with pytest.raises(InputError, match="nowhere"):
        fit(Plain(), InteractionRegularizer(losses))


class Save(L.Callback):
    def __init__(self, path: Path, at: int) -> None:
        self.path, self.at = path, at

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.at:
            trainer.save_checkpoint(self.path)


def test_resumes_with_its_running_means_and_draws(tmp_path):
    path = tmp_path / "first.ckpt"
    whole = fit(Plain(), share(), Save(path, at=0), max_epochs=2)
    resumed = fit(Plain(), share(), max_epochs=2, ckpt_path=path)
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.logged["train/weight/band"] == whole.logged["train/weight/band"][6:]
    torch.load(path, weights_only=True)


def test_losses_that_never_take_part_are_warned_about():
    late = WeightedTerm(InteractionLoss("1"), warmup_epochs=1)
    with pytest.warns(UserWarning, match=r"\['late'\] never start"):
        fit(Plain(), InteractionRegularizer({"late": late}), max_epochs=1)


def test_warm_up_and_share():
    losses = weighted()
    losses["band"].warmup_epochs = 1
    losses["low"].loss_ratio = 0.5
    module = fit(Plain(), InteractionRegularizer(losses))
    assert len(module.logged["train/loss/band"]) == 6
    logged = module.logged
    parts = torch.tensor(logged["train/weight/low"]) * torch.tensor(logged["train/loss/low"]).abs()
    shares = parts / torch.tensor(logged["train/loss/task"])
    assert (shares - 0.5 * FACTORS["low"]).abs().max() < 0.1


def test_tells_the_orders_at_the_start_of_fit(caplog):
    fit(Plain(), regularized())
    text = caplog.text
    caplog.clear()
    assert text.count("Loss 'band' (BandLoss, 16 cells of the input):") == 1
    assert "orders 4…10 of 0…14" in text
    assert "Loss 'units' (InteractionLoss, 8 units of 1):" in text
    module = InteractionClassifier(network(), 3, weighted())
    fit(module, OrderReport(), max_epochs=1)
    assert "orders 4…10 of 0…14" in caplog.text
