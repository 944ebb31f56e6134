"""One perturbation for all images: against plain loops, resumed, in two processes, by mistake."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from interaction_train.attacks import (
    CWA,
    AdaptiveWarp,
    Admix,
    Ensemble,
    ExpectedFlatness,
    FeatureImportance,
    GlobalMomentum,
    InputDiversity,
    InteractionObjective,
    MaskedObjective,
    Momentum,
    Nesterov,
    Objective,
    RandomNoise,
    StepSchedule,
    TransferAttack,
    UniversalPerturbation,
    VarianceTuning,
    presets,
)
from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses import GroupReduction
from interaction_train.models import DigitsNet, pretrained
from interaction_train.sampling.random import Draws, content_hash
from tests.attacks.transfer.transfer_case import images, network, networks, pgd
from tests.testing import run_cli, weights

pytestmark = pytest.mark.filterwarnings("ignore")
EPS, ALPHA = 0.2, 0.03
GROUPS = GroupReduction(GridPlayers(2, 2), draws=3, size=2)


class Factory:
    """An attack on a network; a class, as processes are sent it."""

    def __init__(self, eps=EPS, alpha=ALPHA, **options):
        self.options = {"eps": eps, "alpha": alpha, **options}

    def __call__(self, model):
        return TransferAttack(model, **self.options)


def module(target=None, others=None, model=None, **options):
    model = network(0).double() if model is None else model
    made = UniversalPerturbation(model, Factory(**options), [1, 4, 4], target, others)
    return made.double()


def loader(batch_size=8, count=32):
    x, y = images(count)
    return DataLoader(TensorDataset(x.double(), y), batch_size)


def fit(made, folder, epochs=3, callbacks=(), ckpt_path=None, data=None, **options):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=bool(callbacks), max_epochs=epochs, default_root_dir=folder,
        callbacks=list(callbacks), **{"devices": 1, **options},
    )  # fmt: skip
    loaders = (loader(), loader()) if data is None else (data,)
    trainer.fit(made, *loaders, ckpt_path=ckpt_path)
    return made.delta.detach()


def plain(norm="Linf", decay=None, target=None, epochs=3, loss=nn.functional.cross_entropy):
    """Projected ascent by autograd through the clamp, as papers have it."""
    net, delta, momentum = network(0).double(), torch.zeros(1, 4, 4, dtype=torch.float64), 0
    for _ in range(epochs):
        for x, y in loader():
            y = y if target is None else torch.full_like(y, target)
            leaf = delta.clone().requires_grad_()
            value = loss(net((x + leaf).clamp(0, 1)), y)
            (gradient,) = torch.autograd.grad(value if target is None else -value, leaf)
            if decay is not None:
                gradient = momentum = gradient / gradient.abs().mean() + decay * momentum
            if norm == "Linf":
                delta = (delta + ALPHA * gradient.sign()).clamp(-EPS, EPS)
            else:
                delta = delta + ALPHA * gradient / gradient.norm()
                delta = delta * min(1, EPS / float(delta.norm()))
    return delta


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("decay", [None, 0.8])
@pytest.mark.parametrize("target", [None, 2])
def test_it_is_the_plain_loop(norm, decay, target, tmp_path):
    parts = [] if decay is None else [Momentum(decay)]
    found = fit(module(target, norm=norm, parts=parts), tmp_path)
    torch.testing.assert_close(found, plain(norm, decay, target), rtol=0, atol=1e-12)
    assert float(found.abs().max() if norm == "Linf" else found.norm()) == pytest.approx(EPS)


SETTINGS = [
    {"parts": [RandomNoise(copies=3), Nesterov(0.9)]},
    {"parts": [InputDiversity(0.8, 1.0), VarianceTuning(3), Momentum()], "norm": "L2"},
    {"parts": [ExpectedFlatness(3), Momentum(), StepSchedule()]},
    {"objective": MaskedObjective("margin", GROUPS), "parts": [Momentum()]},
    {"objective": InteractionObjective("cross_entropy", 0.5, "losses", GROUPS)},
    {"objective": Objective("margin"), "random_start": True},
    {"objective": Objective("margin"), "parts": [AdaptiveWarp(need=0.0), Momentum()]},
]
CASES = pytest.mark.parametrize("k", range(len(SETTINGS)))


@CASES
def test_any_chunks_give_the_same(k, tmp_path):
    one, two = (fit(module(**SETTINGS[k], chunk_size=c), tmp_path, 2) for c in (1, None))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    assert 0 < float(one.abs().max()) <= EPS + 1e-12


def test_a_random_start():
    one, two, other = (module(random_start=True, seed=seed).delta for seed in (0, 0, 1))
    assert len(one.unique()) == 16
    assert 0.5 * EPS < float(one.abs().max()) <= EPS
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not module().delta.any()


@CASES
def test_a_resumed_fit_ends_as_an_uninterrupted_one(k, tmp_path):
    whole = fit(module(**SETTINGS[k]), tmp_path, 4)
    kept = ModelCheckpoint(tmp_path, "epoch", every_n_epochs=2, save_top_k=-1)
    options = {"max_steps": 16} if "StepSchedule" in str(SETTINGS[k]) else {}
    fit(module(**SETTINGS[k]), tmp_path, 4, callbacks=[kept], **options)
    torch.load(tmp_path / "epoch.ckpt", weights_only=True)
    resumed = fit(module(**SETTINGS[k]), tmp_path, 4, ckpt_path=tmp_path / "epoch.ckpt")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=1e-12)


def test_a_checkpoint_of_other_parts_gives_delta_alone(tmp_path):
    kept = ModelCheckpoint(tmp_path, "epoch", every_n_epochs=2, save_top_k=-1)
    before = fit(module(parts=[Momentum()]), tmp_path, 2, callbacks=[kept])
    other = module(parts=[RandomNoise(), Momentum()])
    with pytest.warns(UserWarning, match="an attack with other parts"):
        found = fit(other, tmp_path, 2, ckpt_path=tmp_path / "epoch.ckpt")
    assert torch.equal(found, before)  # which had all epochs


def test_a_step_that_failed_leaves_nothing_to_the_next(tmp_path):
    made = module(parts=[AdaptiveWarp(need=0.0)])
    hook = made.model.register_forward_hook(lambda _, __, out: out * torch.inf)
    with pytest.raises(InputError):
        fit(made, tmp_path, 1)
    hook.remove()
    assert fit(made, tmp_path, 1, data=loader(5)).any()


class Shares(L.LightningDataModule):
    """Of every batch of one process, two have a half each; Lightning's own sampler shuffles."""

    def train_dataloader(self):
        data = loader().dataset
        ranks = self.trainer.world_size, self.trainer.global_rank
        sampler = DistributedSampler(data, *ranks, shuffle=False)
        return DataLoader(data, 8 // self.trainer.world_size, sampler=sampler)

    def val_dataloader(self):
        return loader()


@pytest.mark.parametrize("k", [1, 3])
def test_two_processes_equal_one(k, tmp_path):
    one, two = module(**SETTINGS[k]), module(**SETTINGS[k])
    fit(one, tmp_path / "one", 2)
    options = {"devices": 2, "strategy": "ddp_spawn", "use_distributed_sampler": False}
    fit(two, tmp_path / "two", 2, data=Shares(), **options)
    file = Path("results_0", "universal.safetensors")
    alone, shared = (load_file(tmp_path / name / file)["delta"] for name in ("one", "two"))
    torch.testing.assert_close(alone, shared, rtol=0, atol=1e-7)
    torch.testing.assert_close(alone, one.delta.detach().float())


def measured(made, folder):
    trainer = L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        default_root_dir=folder,
    )  # fmt: skip
    return trainer.test(made, loader(5), verbose=False)[0]


@pytest.mark.parametrize("target", [None, 2])
def test_rates_are_those_of_a_plain_count(target, tmp_path):
    nets = {name: net.double() for name, net in networks().items()}
    made = module(target, {"b": nets["b"], "c": nets["c"]}, nets["a"])
    fit(made, tmp_path)
    found = measured(made, tmp_path)
    x, y = (torch.cat(parts) for parts in zip(*loader(), strict=True))
    if target is not None:
        x, y = x[y != target], y[y != target]
    for name, end in (("a", ""), ("b", "/b"), ("c", "/c")):
        with torch.no_grad():
            before = nets[name](x).argmax(1)
            seen = nets[name]((x + made.delta).clamp(0, 1)).argmax(1)
        changed = seen != before if target is None else seen == target
        assert found[f"test/fooling_rate{end}"] == pytest.approx(float(changed.float().mean()))
        success = changed[before == y].float().mean()
        assert found[f"test/success{end}"] == pytest.approx(float(success))
    assert found["test/fooling_rate"] > 0.2


def test_the_networks_stay_as_they_were(tmp_path):
    made = module(parts=[Momentum()])
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    fit(made, tmp_path)
    for key, value in made.model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(p.grad is None and p.requires_grad for p in made.model.parameters())


def convolution(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()


def test_objectives_that_watch_layers_or_remember(tmp_path):
    # 32 images in batches of 5: what is kept of a batch fits no other one.
    found = fit(
        module(model=convolution(), objective=FeatureImportance("1", draws=3)),
        tmp_path, 1, data=loader(32),
    )  # fmt: skip
    net, (x, y), weights = convolution(), next(iter(loader(32))), 0
    kept = Draws(content_hash(x), 0, "universal", 1).uniform("importance", 3, 16) >= 0.3
    for k in range(3):
        features = net[:2](x * kept[:, k].view(-1, 1, 4, 4)).detach().requires_grad_()
        logits = net[2:](features.clone()).gather(1, y[:, None])
        weights = weights + torch.autograd.grad(logits.sum(), features)[0]
    weights = weights / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    leaf = torch.zeros(1, 4, 4, dtype=torch.float64).requires_grad_()
    ((net[:2](x + leaf)) * weights).sum().backward()
    torch.testing.assert_close(found, -ALPHA * leaf.grad.sign(), rtol=0, atol=1e-12)
    both = Ensemble([convolution(), convolution(1)]).double()
    assert fit(module(model=both, objective=CWA()), tmp_path, data=loader(5)).any()


def test_admix_mixes_in_images_of_the_present_batch(tmp_path):
    made, seen = module(parts=[Admix(scales=1)]), []
    made.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    fit(made, tmp_path, 1, data=loader(8))
    for number, ((x, _), rows) in enumerate(zip(loader(8), seen, strict=True)):
        beyond = (rows - x).unsqueeze(1) - 0.2 * x  # but for the perturbation so far
        assert beyond.flatten(2).abs().amax(2).amin(1).max() <= number * ALPHA + 1e-9


def test_an_ensemble_of_losses(tmp_path):
    both = Ensemble([network(0), network(1)], "losses").double()
    found = fit(module(model=both), tmp_path)
    assert not torch.equal(found, fit(module(), tmp_path))


def test_it_fools_more_than_noise(tmp_path):
    net = pretrained(DigitsNet(), "digits_cnn")
    made = UniversalPerturbation(net, Factory(0.25, 0.02, objective=Objective("margin")), [1, 8, 8])
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        max_epochs=3, default_root_dir=tmp_path, enable_model_summary=False,
    )  # fmt: skip
    data = DigitsDataModule()
    trainer.fit(made, data)
    rate = trainer.test(made, data, verbose=False)[0]["test/fooling_rate"]
    sign = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
    with torch.no_grad():
        made.delta.copy_(0.25 * sign)
    noise = trainer.test(made, data, verbose=False)[0]["test/fooling_rate"]
    assert rate > noise + 0.2


def test_a_job_on_the_command_line_goes_on(tmp_path):
    def job(root, epochs, *args):
        run_cli("fit", "--config", "universal_digits.yaml", "--wandb", "disabled",
                "--trainer.default_root_dir", str(tmp_path / root), "--trainer.max_epochs", epochs,
                "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1",
                "--test_after_fit", "false", *args)  # fmt: skip
        return tmp_path / root / "universal_digits"

    whole = job("whole", "3") / "version_0"
    job("parts", "1")
    resumed = job("parts", "3", "--ckpt_path", "last") / "version_1"
    one, two = (weights(f / "checkpoints" / "last.ckpt")["delta"] for f in (whole, resumed))
    assert torch.equal(one, two)
    assert torch.equal(load_file(resumed / "universal.safetensors")["delta"], two)


class Probabilities(nn.Sequential):
    def forward(self, x):
        return super().forward(x).softmax(1)


def test_bad_input(tmp_path):
    net = network(0)
    for wrong, said in (
        (lambda: UniversalPerturbation("net", Factory(), [1, 4, 4]), "model"),
        (lambda: UniversalPerturbation(net, Factory(), [4, 4]), "shape"),
        (lambda: UniversalPerturbation(net, pgd, [1, 4, 4]), "a TransferAttack"),
        (lambda: UniversalPerturbation(net, Factory()(net), [1, 4, 4]), "factory"),
        (lambda: UniversalPerturbation(net, Factory(), [1, 4, 4], -1), "target"),
        (lambda: module(others={"model": net}), "others"),
        (lambda: module(parts=[GlobalMomentum(), Momentum()]), "GlobalMomentum"),
        (lambda: UniversalPerturbation(net, presets.Targeted, [1, 4, 4]), "^target: got none"),
        (lambda: fit(module(), tmp_path, -1), "trainer.max_steps: got a training without end"),
        (lambda: fit(module(7), tmp_path), "target"),
        (lambda: fit(module(model=Probabilities(*network(0)).double()), tmp_path), "probabilities"),
        (lambda: fit(UniversalPerturbation(net, Factory(), [1, 8, 8]), tmp_path), "as shape says"),
    ):
        with pytest.raises(InputError, match=said):
            wrong()


def test_a_gradient_of_zero_is_told(tmp_path):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(flat[1].weight)
    with pytest.warns(UserWarning, match="gradient was zero"):
        assert not fit(module(model=flat.double()), tmp_path).any()
