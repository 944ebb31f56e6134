"""The attack loop: torchattacks' interface and arithmetic, bounds, and leaving no trace."""

import inspect
import warnings

import pytest
import torch
import torchattacks
from torch import nn

from interaction_train.attacks import (
    Ensemble,
    HybridIRAttack,
    InputDiversity,
    InteractionObjective,
    IRAttack,
    MaskedObjective,
    Momentum,
    Nesterov,
    Objective,
    RandomNoise,
    ScaleInvariance,
    SkipGradient,
    TransferAttack,
    TranslationInvariance,
    VarianceTuning,
)
from interaction_train.attacks.parts.inputs import resize_and_pad
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses.reduction import GroupReduction, PartitionReduction
from interaction_train.models import CIFARThinResNet

EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 4


class ConvNet(nn.Module):
    """Small, with every kind of state that an attack could disturb."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.LazyLinear(5),
        )
        self.body(torch.rand(4, channels, 8, 8))

    def forward(self, x):
        return self.body(x)


@pytest.fixture
def net():
    return ConvNet()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(5, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 3, 4])


GROUPS = GroupReduction(GridPlayers(4, 4), draws=3, size=4)
ATTACKS = {
    "plain": {},
    "margin": {"objective": Objective("margin")},
    "masked": {"objective": MaskedObjective(reduction=GROUPS)},
    "published": {"objective": InteractionObjective("cross_entropy", reduction=GROUPS)},
    "normalized": {"objective": InteractionObjective(mix="gradients", reduction=GROUPS)},
    "partition": {
        "objective": InteractionObjective(reduction=PartitionReduction(GridPlayers(4, 4), 4))
    },
    "parts": {
        "objective": InteractionObjective(reduction=GROUPS),
        "parts": [
            RandomNoise(1, "normal", 3),
            ScaleInvariance(2),
            InputDiversity(0.7, 0.8),
            VarianceTuning(2),
            TranslationInvariance(3),
            Nesterov(),
        ],
    },
    "l2": {"norm": "L2", "eps": 0.5, "alpha": 0.2, "parts": [Momentum(normalize="L2")]},
    "start": {"random_start": True},
    "l2 start": {"norm": "L2", "eps": 0.5, "alpha": 0.2, "random_start": True},
}


def craft(model, images, labels, **more):
    settings = {"eps": EPS, "alpha": ALPHA, "steps": STEPS, **more}
    return TransferAttack(model, **settings)(images, labels)


@pytest.mark.parametrize("name", ATTACKS)
def test_bounds_hold_and_nothing_is_left_behind(name, net, batch):
    images, labels = batch
    net.train()
    net.body[1].eval()  # a frozen BatchNorm
    net.body[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    rng = torch.get_rng_state()
    kept = images.clone()
    settings = {"eps": EPS, **ATTACKS[name]}
    adversarial = craft(net, images, labels, **settings)
    delta = (adversarial - images).flatten(1)
    size = delta.norm(dim=1) if settings.get("norm") == "L2" else delta.abs().amax(1)
    assert bool((size <= settings["eps"] + 1e-7).all())
    assert bool((size > settings["eps"] / 2).all())
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad
    assert torch.equal(images, kept)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not net.body[0].weight.requires_grad
    assert net.body[0].bias.requires_grad
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_batch_gives_what_single_images_give(name, net, batch):
    images, labels = batch[0].double(), batch[1]
    net.double().eval()
    together = craft(net, images, labels, **ATTACKS[name])
    alone = [craft(net, images[i : i + 1], labels[i : i + 1], **ATTACKS[name]) for i in range(5)]
    assert (together - torch.cat(alone)).abs().max() < 1e-12
    chunked = craft(net, images, labels, chunk_size=5, **ATTACKS[name])
    assert (together - chunked).abs().max() < 1e-12


def test_without_parts_it_is_pgd_bit_for_bit(batch, project_data):
    net = CIFARThinResNet(20, weights=project_data / "cifar_resnet20.safetensors").eval()
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(8)
    pgd = torchattacks.PGD(net, EPS, ALPHA, STEPS, random_start=False)
    for objective in (None, InteractionObjective("cross_entropy", weight=0)):
        ours = TransferAttack(net, EPS, ALPHA, STEPS, objective=objective)
        assert torch.equal(ours(images, labels), pgd(images, labels))
        ours.set_mode_targeted_by_label(quiet=True)
        pgd.set_mode_targeted_by_label(quiet=True)
        targets = (labels + 1) % 10
        assert torch.equal(ours(images, targets), pgd(images, targets))
        pgd.set_mode_default()


def test_momentum_nesterov_translation_and_scale_agree_with_torchattacks(net, batch):
    net.double().eval()
    images, labels = batch[0].double(), batch[1]
    pairs = [
        (torchattacks.MIFGSM(net, EPS, ALPHA, STEPS, decay=0.9), [Momentum(0.9)]),
        (torchattacks.NIFGSM(net, EPS, ALPHA, STEPS, decay=0.9), [Nesterov(0.9)]),
        (
            torchattacks.SINIFGSM(net, EPS, ALPHA, STEPS, decay=0.9, m=3),
            [ScaleInvariance(3), Nesterov(0.9)],
        ),
    ]
    for theirs, parts in pairs:
        ours = craft(net, images, labels, parts=parts)
        assert (ours - theirs(images, labels)).abs().max() < 1e-12, theirs
    net.float()
    images = images.float()
    theirs = torchattacks.TIFGSM(
        net, EPS, ALPHA, STEPS, 0.9, "gaussian", len_kernel=5, nsig=3, diversity_prob=0.0
    )
    ours = craft(net, images, labels, parts=[TranslationInvariance(5, 3.0), Momentum(0.9)])
    # float32: a few gradients near 0 may take the other sign
    assert ((ours - theirs(images, labels)).abs() > 1e-6).float().mean() < 0.01


def test_variance_tuning_agrees_with_torchattacks_given_the_same_noise(net, batch, monkeypatch):
    net.double().eval()
    images, labels = batch[0].double(), batch[1]
    noise = [torch.rand(5, 2, 3, 8, 8).double() * 2 - 1 for _ in range(STEPS)]
    monkeypatch.setattr(VarianceTuning, "noise", lambda self, step: noise[step.number - 1])
    ours = craft(net, images, labels, parts=[VarianceTuning(2), Momentum(0.9)])
    feed = iter([noise[step][:, k] for step in range(STEPS) for k in range(2)])

    def fed_randn_like(like):
        unit = next(feed)
        result = torch.zeros_like(like)
        result.uniform_ = lambda low, high: (unit + 1) / 2 * (high - low) + low
        return result

    monkeypatch.setattr(torch, "randn_like", fed_randn_like)
    theirs = torchattacks.VMIFGSM(net, EPS, ALPHA, STEPS, decay=0.9, N=2)(images, labels)
    assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(12, 12), (9, 14)])
def test_input_diversity_resizes_and_pads_like_torch(shape):
    rows = torch.rand(3, 2, 2, *shape)
    new_h, new_w = torch.tensor([[7], [8], [shape[0]]]), torch.tensor([[5], [9], [6]])
    top, left = torch.tensor([[1], [0], [0]]), torch.tensor([[2], [0], [3]])
    got = resize_and_pad(
        rows, (shape[0], new_h, top), (shape[1], new_w, left), torch.tensor([0.25])
    )
    for b in range(3):
        size = (int(new_h[b]), int(new_w[b]))
        small = nn.functional.interpolate(rows[b], size, mode="bilinear", align_corners=False)
        right = shape[1] - size[1] - int(left[b])
        below = shape[0] - size[0] - int(top[b])
        want = nn.functional.pad(small, [int(left[b]), right, int(top[b]), below], value=0.25)
        assert (got[b] - want).abs().max() < 1e-6


def test_input_diversity_above_one_comes_back_to_the_image_size():
    rows = torch.rand(1, 1, 1, 6, 6)
    canvas, new, first = 9, torch.tensor([[7]]), torch.tensor([[1]])
    got = resize_and_pad(rows, (canvas, new, first), (canvas, new, first), torch.zeros(1))
    large = nn.functional.interpolate(rows[0], (7, 7), mode="bilinear")
    padded = nn.functional.pad(large, [1, 1, 1, 1])
    want = nn.functional.interpolate(padded, (6, 6), mode="bilinear")
    assert (got[0] - want).abs().max() < 1e-6


def test_input_diversity_changes_the_wanted_share_each_its_own_way():
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x.detach().clone())
            return x.flatten(1)[:, :3] * torch.tensor([1.0, 2.0, 3.0])

    images = torch.rand(400, 1, 10, 10) * 0.5 + 0.25
    craft(
        Watching(), images, torch.zeros(400, dtype=torch.int64), steps=1,
        parts=[InputDiversity(0.5, 0.7, fill=None)],
    )  # fmt: skip
    changed = (seen[0] != images).flatten(1).any(1)
    assert 0.62 < changed.float().mean() < 0.78
    padding = (seen[0][changed] - images[changed].mean((-2, -1), keepdim=True)).abs() < 1e-6
    assert len(padding.flatten(1).sum(1).unique()) > 3  # sizes differ between samples


def test_gaussian_averaging_is_the_mean_over_standard_normal_noise(batch):
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x.detach().clone())
            return x.flatten(1)[:, :5]

    images, labels = batch
    craft(Watching(), images, labels, steps=1, eps=0.1, parts=[RandomNoise(1, "normal", 200)])
    noise = (torch.cat([s.unflatten(0, (5, -1)) for s in seen], 1) - images.unsqueeze(1)) / 0.1
    assert noise.shape[1] == 200
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    assert (noise[:, 0] != noise[:, 1]).all()


def test_a_zero_gradient_step_loses_nothing_and_zero_gradients_are_named(net, batch):
    images, labels = batch
    net.eval()

    class Saturated(nn.Module):
        def forward(self, x):
            return net(x) * (x[:, :1, :1, :1].flatten(1) > 0.5)

    images[:, 0, 0, 0] = torch.tensor([0.9, 0.1, 0.9, 0.9, 0.9])
    with pytest.warns(UserWarning, match=r"zero in every step for samples \[1\]"):
        adversarial = craft(Saturated(), images, labels, parts=[Momentum()])
    assert torch.equal(adversarial[1], images[1])
    assert bool((adversarial != images).flatten(1).any(1)[[0, 2, 3, 4]].all())
    assert bool(adversarial.isfinite().all())


def test_gradients_that_are_not_finite_are_an_error(net, batch):
    images, labels = batch
    net.eval()

    class Broken(nn.Module):
        def forward(self, x):
            return net(x) * ((x[:, 0, 0, 0] - 0.5).square().sqrt() + 1).unsqueeze(1)

    images[:, 0, 0, 0] = torch.tensor([0.9, 0.9, 0.5, 0.9, 0.9])
    with pytest.raises(InputError, match=r"NaN or infinite gradients for samples \[.*2"):
        craft(Broken(), images, labels, steps=1)


def test_it_works_under_no_grad_and_inference_mode(net, batch):
    images, labels = batch
    net.eval()
    want = craft(net, images, labels)
    with torch.no_grad():
        assert torch.equal(craft(net, images, labels), want)
    with torch.inference_mode():
        assert torch.equal(craft(net, images.clone(), labels.clone()), want)
    with torch.inference_mode():
        made_inside = ConvNet()
    with pytest.raises(InputError, match="inference_mode"):
        craft(made_inside, images, labels)


def test_modes_come_back_after_an_exception(net, batch):
    images, labels = batch
    net.train()

    class Stop(Exception):
        pass

    attack = TransferAttack(net, EPS, ALPHA, STEPS)

    def stop(number, adversarial):
        raise Stop

    attack.on_step = stop
    with pytest.raises(Stop):
        attack(images, labels)
    assert all(module.training for module in net.modules())


def test_on_step_sees_every_step(net, batch):
    attack = TransferAttack(net, EPS, ALPHA, STEPS)
    seen = []
    attack.on_step = lambda number, adversarial: seen.append((number, adversarial))
    result = attack(*batch)
    assert [number for number, _ in seen] == [1, 2, 3, 4]
    assert torch.equal(seen[-1][1], result)


def test_normalization_applied_outside_the_network(net, batch):
    images, labels = batch
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    shape = (1, 3, 1, 1)
    shift, scale = torch.tensor(mean).view(shape), torch.tensor(std).view(shape)

    class Inside(nn.Module):
        def forward(self, x):
            return net((x - shift) / scale)

    net.eval()
    want = craft(Inside(), images, labels)
    attack = TransferAttack(net, EPS, ALPHA, STEPS)
    attack.set_normalization_used(mean, std)
    got = attack((images - shift) / scale, labels) * scale + shift
    assert (got - want).abs().max() < 1e-5
    assert attack._normalization_applied is True


def test_targeted_modes(net, batch):
    images, labels = batch
    net.eval()
    logits = net(images)
    attack = TransferAttack(net, 0.5, 0.1, 20)
    attack.set_mode_targeted_least_likely(quiet=True)
    others = logits.scatter(1, labels[:, None], torch.inf)
    assert torch.equal(attack.get_least_likely_label(images, labels), others.argmin(1))
    before = logits.gather(1, others.argmin(1)[:, None])
    after = net(attack(images, labels)).gather(1, others.argmin(1)[:, None])
    assert bool((after > before).all())
    attack.set_mode_targeted_random(quiet=True)
    rng = torch.get_rng_state()
    targets = attack.get_random_target_label(images, labels)
    assert torch.equal(torch.get_rng_state(), rng)
    assert bool((targets != labels).all())
    attack(images, labels)
    attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % 5, quiet=True)
    after = net(attack(images, labels)).log_softmax(1)
    wanted = ((labels + 1) % 5)[:, None]
    assert bool((after.gather(1, wanted) > logits.log_softmax(1).gather(1, wanted)).all())


def test_wrappers_and_save(net, batch, tmp_path):
    images, labels = batch
    net.eval()
    weak = TransferAttack(net, 1 / 255, 1 / 255, 1)
    strong = TransferAttack(net, 0.5, 0.1, 10, parts=[Momentum()])
    both = torchattacks.MultiAttack([weak, strong])(images, labels)
    assert bool((net(both).argmax(1) != labels).all())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 2)
    strong.save(loader, str(tmp_path / "set.pt"), verbose=False)
    saved = torch.load(tmp_path / "set.pt", weights_only=True)
    assert torch.equal(saved["adv_inputs"], strong(images, labels))
    assert "Momentum" in repr(strong)


def test_an_ensemble_averages_what_it_says(batch):
    images, labels = batch
    torch.manual_seed(3)
    members = [nn.Sequential(nn.Flatten(), nn.Linear(192, 5)) for _ in range(2)]
    ensemble = Ensemble(members, average="losses", weights=[1.0, 3.0])
    images = images.requires_grad_()
    losses = [nn.functional.cross_entropy(m(images), labels) for m in members]
    (want,) = torch.autograd.grad(0.25 * losses[0] + 0.75 * losses[1], images)
    images = images.detach()
    got = craft(ensemble, images, labels, steps=1)
    plain = (images + ALPHA * want.sign()).clamp(0, 1)
    assert (got - plain).abs().max() < 1e-6
    for average in ("logits", "probabilities"):
        out = craft(Ensemble(members, average=average), images, labels)
        assert out.shape == images.shape


BAD = [
    ({"images": torch.rand(2, 3, 8, 8) + 0.5}, r"images: got values from"),
    ({"images": torch.randint(0, 255, (2, 3, 8, 8))}, "floating point"),
    ({"images": torch.full((2, 3, 8, 8), torch.nan)}, "images: got values from"),
    ({"images": torch.rand(0, 3, 8, 8), "labels": torch.zeros(0).long()}, "a batch"),
    ({"labels": torch.tensor([0, 5])}, "labels: got 5 classes and labels from 0 to 5"),
    ({"labels": torch.tensor([-1, 1])}, "labels: got 5 classes and labels from -1"),
    ({"labels": torch.tensor([0.0, 1.0])}, "labels: got torch.float32"),
    ({"labels": torch.tensor([0])}, "one per sample"),
    ({"labels": None}, "labels: got NoneType"),
    ({"model": lambda net: nn.Sequential(net, nn.Softmax(1))}, "look like probabilities"),
    ({"model": lambda net: Pair(net)}, "model: got an output of tuple"),
    ({"eps": -0.1}, "eps: got -0.1"),
    ({"alpha": float("nan")}, "alpha: got nan"),
    ({"steps": 0}, "steps: got 0"),
    ({"norm": "L1"}, "norm: got 'L1'"),
    ({"chunk_size": 0}, "chunk_size: got 0"),
    ({"objective": InteractionObjective()}, r"a grid of 16 x 16 cells"),
    ({"parts": [SkipGradient(0.5)]}, "residual"),
]


class Pair(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x), x


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_refused_and_the_model_is_as_before(case, net):
    given, message = BAD[case]
    net.train()
    given = {
        "images": torch.rand(2, 3, 8, 8),
        "labels": torch.tensor([0, 1]),
        "model": lambda net: net,
        **given,
    }
    model = given.pop("model")(net)
    images, labels = given.pop("images"), given.pop("labels")
    with pytest.raises(InputError, match=message):
        craft(model, images, labels, **given)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Objective("hinge"),
        lambda: InteractionObjective(weight=-1),
        lambda: InteractionObjective(mix="sum"),
        lambda: Momentum(-1),
        lambda: Momentum(normalize="L3"),
        lambda: VarianceTuning(0),
        lambda: VarianceTuning(beta=-1),
        lambda: TranslationInvariance(4),
        lambda: TranslationInvariance(sigma=0),
        lambda: RandomNoise(copies=0),
        lambda: RandomNoise(-1),
        lambda: RandomNoise(kind="cauchy"),
        lambda: ScaleInvariance(0),
        lambda: InputDiversity(0),
        lambda: InputDiversity(probability=1.5),
        lambda: GroupReduction(draws=0),
        lambda: GroupReduction(size=0),
        lambda: PartitionReduction(blocks=1),
        lambda: TransferAttack("net"),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize("form", ["groups", "partition"])
def test_costs_of_the_parts_add_up(form):
    rows = {"forward": 0, "backward": 0}

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = CIFARThinResNet(8)

        def forward(self, x):
            rows["forward"] += len(x)
            out = self.net(x)
            if out.requires_grad:
                out.register_hook(lambda g: rows.__setitem__("backward", rows["backward"] + 1))
            return out

    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    grid = GridPlayers(4, 4)
    reduction = GroupReduction(grid, 5, 3) if form == "groups" else PartitionReduction(grid, 5)
    ir = InteractionObjective(reduction=reduction)
    parts = [
        SkipGradient(0.5),
        RandomNoise(copies=4),
        InputDiversity(),
        TranslationInvariance(5),
        Momentum(),
    ]
    craft(Counting(), images, labels, steps=1, objective=ir)
    assert rows["forward"] == 2 * 11
    rows["forward"] = 0
    craft(Counting(), images, labels, steps=1, objective=ir, parts=parts)
    assert rows["forward"] == 2 * (11 + 4)


def test_presets():
    net = CIFARThinResNet(8)
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    settings = {"steps": 2, "grid": 4, "draws": 2, "size": 3}
    ir = IRAttack(net, **settings, decay=1.0)
    hybrid = HybridIRAttack(net, **settings, samples=2)
    explicit = TransferAttack(
        net, steps=2, parts=[Momentum()],
        objective=InteractionObjective(
            ir.objective.loss,
            mix=ir.objective.mix,
            reduction=GroupReduction(GridPlayers(4, 4), 2, 3),
        ),
    )  # fmt: skip
    assert torch.equal(ir(images, labels), explicit(images, labels))
    assert not torch.equal(hybrid(images, labels), ir(images, labels))
    with pytest.raises(InputError, match="residual"):
        HybridIRAttack(ConvNet(), grid=4, size=3)(torch.rand(1, 3, 8, 8), torch.tensor([0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HybridIRAttack(ConvNet(), grid=4, size=3, gamma=1, steps=1)(
            torch.rand(1, 3, 8, 8), torch.tensor([0])
        )


@pytest.mark.parametrize("preset", [IRAttack, HybridIRAttack])
def test_presets_show_all_their_settings(preset):
    shown = inspect.signature(preset).parameters
    assert {"norm", "random_start", "seed", "chunk_size", "eps", "grid"} <= shown.keys()
    assert not {"objective", "parts", "common"} & shown.keys()  # the preset sets these itself
    assert shown["norm"].default == "Linf"


def test_parts_that_masked_images_do_not_see_are_named(net, batch):
    parts = [RandomNoise(), InputDiversity(), ScaleInvariance(2), Momentum()]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        craft(net, *batch, objective=MaskedObjective("margin", GROUPS), parts=parts)
        craft(net, *batch, objective=MaskedObjective("margin", GROUPS), parts=[InputDiversity()])
    (text,) = (str(w.message) for w in said if "masked images" in str(w.message))
    assert text.endswith("without RandomNoise, ScaleInvariance")


def test_a_compiled_ensemble_averages_losses(batch):
    other = ConvNet()
    with torch.no_grad():
        other.body[-1].weight.mul_(-30)
    members = [ConvNet(), other]
    plain = craft(Ensemble(members, "losses"), *batch, norm="L2")
    compiled = torch.compile(Ensemble(members, "losses"), backend="eager")
    assert torch.equal(craft(compiled, *batch, norm="L2"), plain)
    assert not torch.equal(craft(Ensemble(members, "logits"), *batch, norm="L2"), plain)
