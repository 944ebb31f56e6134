"""What all parts of gradients and steps keep: batches, bounds, devices, norms, their passes."""

import pytest
import torch
from torch import nn

from interaction_train.attacks import (
    EnhancedMomentum,
    Ensemble,
    ExpectedFlatness,
    FlipDecay,
    GlobalMomentum,
    GradientRelevance,
    InputDiversity,
    InteractionObjective,
    MaskedObjective,
    Momentum,
    Nesterov,
    Part,
    PenalizedGradient,
    RandomNoise,
    ReversePerturbation,
    StepSchedule,
    TransferAttack,
    VarianceTuning,
)
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.losses.reduction import GroupReduction
from tests.attacks.test_boundaries import NoFloat64

EPS = 8 / 255
GROUPS = GroupReduction(GridPlayers(3, 3), draws=2, size=2)
PARTS = {
    "EMI": [EnhancedMomentum(copies=3)],
    "EMI at random": [EnhancedMomentum(copies=2, sampling="uniform")],
    "RAP": [ReversePerturbation(iterations=2, late_start=0.3)],
    "PGN": [PenalizedGradient(2), Momentum()],
    "PGN of one": [PenalizedGradient(1)],
    "MEF": [ExpectedFlatness(3), Momentum(0.5)],
    "GRA": [GradientRelevance(2), Momentum(), FlipDecay(0.5)],
    "GI": [GlobalMomentum(2, 4.0), Nesterov()],
    "cosine": [StepSchedule("cosine", 1), FlipDecay()],
    "many": [
        RandomNoise(copies=2),
        InputDiversity(0.7, 0.8),
        VarianceTuning(2),
        RandomNoise(0.5, "normal"),
        ReversePerturbation(iterations=1),
        PenalizedGradient(2),
        GradientRelevance(2),
        EnhancedMomentum(copies=2),
        FlipDecay(),
        StepSchedule("linear"),
        GlobalMomentum(1),
    ],
}
WAYS = {
    "L∞": {},
    "targeted": {},
    "L2": {"norm": "L2", "eps": 0.5, "alpha": 0.2},
    "interactions": {"objective": InteractionObjective("cross_entropy", reduction=GROUPS)},
    "masks": {"objective": MaskedObjective(reduction=GROUPS)},
    "start": {"random_start": True},
}


class Sine(nn.Module):
    def forward(self, x):
        return x.sin()


def network(channels: int = 3, size: tuple[int, int] = (6, 9), seed: int = 0) -> nn.Module:
    """Smooth and so curved that the gradient's signs tell near points apart."""
    torch.manual_seed(seed)
    first = nn.Conv2d(channels, 6, 3, padding=1)
    with torch.no_grad():
        first.weight *= 10
    last = nn.Linear(6 * size[0] * size[1], 5)
    return nn.Sequential(first, Sine(), nn.Flatten(), last).eval()


def batch(channels: int = 3, size: tuple[int, int] = (6, 9)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, channels, *size, generator=generator), torch.tensor([0, 1, 2, 3])


def attack(net: nn.Module, parts: list[Part], way: str = "L∞", **more) -> TransferAttack:
    settings = {"eps": EPS, "alpha": EPS / 4, "steps": 4, "parts": parts, **WAYS[way], **more}
    made = TransferAttack(net, **settings)
    if way == "targeted":
        made.set_mode_targeted_by_label(quiet=True)
    return made


@pytest.mark.filterwarnings("ignore:.*takes masked images as they are")
@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, way) for name in PARTS for way in ("L∞", "L2", "interactions")),
        *(("many", way) for way in ("targeted", "masks", "start")),
    ],
)
def test_a_batch_gives_what_single_images_give_within_bounds(name, way):
    net, (x, y) = network().double(), batch()
    x = x.double()
    rng = torch.get_rng_state()
    together = attack(net, PARTS[name], way)(x, y)
    assert torch.equal(torch.get_rng_state(), rng)
    for i in (0, 3):
        alone = attack(net, PARTS[name], way)(x[i : i + 1], y[i : i + 1])
        assert (together[i] - alone).abs().max() < 1e-12
    chunked = attack(net, PARTS[name], way, chunk_size=4)(x, y)
    assert (together - chunked).abs().max() < 1e-12
    delta = (together - x).flatten(1)
    size = delta.norm(dim=1) if way == "L2" else delta.abs().amax(1)
    eps = WAYS[way].get("eps", EPS)
    assert bool((size <= eps + 1e-12).all())
    assert bool((size > eps / 4).all())
    assert 0 <= together.min() <= together.max() <= 1
    plain = attack(net, [], way)(x, y)
    assert not torch.equal(together, plain)


@pytest.mark.parametrize("name", PARTS)
def test_targets_come_nearer_and_labels_recede(name):
    net, (x, y) = network(), batch()
    found = [attack(net, PARTS[name], way, steps=8)(x, y) for way in ("L∞", "targeted")]
    away, aimed = (net(images).log_softmax(1)[range(4), y] for images in found)
    clean = net(x).log_softmax(1)[range(4), y]
    assert bool((away < clean).all())
    assert bool((aimed > clean).all())


@pytest.mark.parametrize("name", PARTS)
def test_no_float64_is_needed(name):
    net, (x, y) = network(), batch()
    want = attack(net, PARTS[name])(x, y)
    with NoFloat64():
        assert torch.equal(attack(net, PARTS[name])(x, y), want)


@pytest.mark.parametrize("name", PARTS)
def test_one_channel_rows_of_numbers_and_ensembles(name):
    x, y = batch(1, (7, 4))
    assert attack(network(1, (7, 4)), PARTS[name])(x, y).shape == x.shape
    members = [network(1, (7, 4), seed) for seed in (0, 1)]
    both = attack(Ensemble(members, average="losses"), PARTS[name])(x, y)
    assert not torch.equal(both, attack(members[0], PARTS[name])(x, y))
    if not any(part.spatial for part in PARTS[name]):
        rows = nn.Sequential(nn.Linear(28, 9), nn.Softplus(), nn.Linear(9, 5))
        assert attack(rows, PARTS[name])(x.flatten(1), y).shape == (4, 28)


@pytest.mark.parametrize(
    ("parts", "passes"),
    [
        ([VarianceTuning(3)], 4 * 4),
        ([EnhancedMomentum(copies=3)], 4 * 3),
        ([PenalizedGradient(3)], 4 * 6),
        ([PenalizedGradient(1)], 4 * 2),
        ([ExpectedFlatness(3)], 4 * 3),
        ([ExpectedFlatness(1)], 4),
        ([GradientRelevance(3)], 4 * 4),
        ([ReversePerturbation(iterations=3, late_start=0.5)], 2 + 2 * 4),
        ([RandomNoise(copies=2), PenalizedGradient(3)], 2 * 4 * 6),
        ([GlobalMomentum(2), Momentum()], 4),
    ],
    ids=repr,
)
def test_passes_are_as_told(parts, passes):
    seen = []
    net, (x, y) = network(), batch()
    net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    attack(net, parts)(x, y)
    assert sum(seen) == passes * len(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnhancedMomentum(copies=1), "copies: got 1.*at least 2 with linear"),
        (lambda: EnhancedMomentum(copies=0, sampling="uniform"), "copies: got 0.*at least 1"),
        (lambda: EnhancedMomentum(sampling="log"), "sampling: got 'log'"),
        (lambda: EnhancedMomentum(reach=-1), "reach: got -1"),
        (lambda: PenalizedGradient(0), "samples: got 0"),
        (lambda: PenalizedGradient(weight=1.5), "weight: got 1.5"),
        (lambda: PenalizedGradient(beta=-1), "beta: got -1"),
        (lambda: ExpectedFlatness(decay=float("nan")), "decay: got nan"),
        (lambda: GradientRelevance(samples=0), "samples: got 0"),
        (lambda: ReversePerturbation(late_start=1), "late_start: got 1"),
        (lambda: ReversePerturbation(iterations=0), "iterations: got 0"),
        (lambda: StepSchedule("square"), "decay: got 'square'"),
        (lambda: StepSchedule(warmup=-1), "warmup: got -1"),
        (lambda: FlipDecay(1.1), "factor: got 1.1"),
        (lambda: GlobalMomentum(0), "pre_steps: got 0"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([StepSchedule(warmup=4)], "warmup: got 4, expected less than the attack's 4 steps"),
        ([GlobalMomentum(4), Momentum()], "pre_steps: got 4, expected less than the attack's 4"),
        ([GlobalMomentum(2)], "parts: got GlobalMomentum alone, expected a Momentum"),
    ],
)
def test_settings_that_do_not_fit_the_attack(parts, message):
    with pytest.raises(InputError, match=message):
        attack(network(), parts)(*batch())


def test_confident_networks_have_relevant_gradients():
    """A gradient whose squares are zero in float32 is as relevant as any other."""

    class Faint(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.net, self.scale = network(), scale

        def forward(self, x):
            return self.net(x) * self.scale

    x, y = batch()
    faint, plain = (
        attack(Faint(scale), [GradientRelevance(2)], steps=1, objective=None)
        for scale in (1e-28, 1e-3)
    )
    assert ((faint(x, y) - plain(x, y)).abs() > 1e-6).float().mean() < 0.02


def test_parts_of_one_kind_draw_different_numbers():
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return x.flatten(1)[:, :5]

    x, y = batch(3, (40, 40))
    for radii in ((1, 0), (0, 1), (1, 1)):
        attack(Watching(), [RandomNoise(r) for r in radii], steps=1)(x, y)
    first, second, both = ((s - x) / EPS for s in seen)
    for noise in (first, second):
        assert abs(noise.std() - 3**-0.5) < 0.01
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.03
    assert (both - first - second).abs().max() < 1e-4


def test_one_part_twice_is_refused():
    part = Momentum()
    with pytest.raises(InputError, match="parts: got one object twice"):
        TransferAttack(network(), parts=[part, part])
