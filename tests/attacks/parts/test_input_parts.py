"""What all parts that change the input keep: bounds, independence of the batch, no trace."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.attacks import (
    AdaptiveWarp,
    Admix,
    BlockShuffle,
    InteractionObjective,
    Momentum,
    RandomMask,
    RandomNoise,
    RandomWarp,
    ScaleInvariance,
    SpectrumScaling,
    StructureInvariance,
)
from interaction_train.errors import InputError
from tests.attacks.parts.steps import images, network
from tests.attacks.test_boundaries import NoFloat64

POOL = images(5, seed=9)
PARTS = [
    RandomMask(0.5, it.GridPlayers(3, 4)),
    RandomMask((0.2, 0.8), copies=2),
    StructureInvariance(),
    StructureInvariance(3, copies=3),
    SpectrumScaling(copies=2),
    BlockShuffle(3, copies=2),
    RandomWarp(4, copies=2),
    AdaptiveWarp(rate=0.6, need=0.0, copies=2),
    Admix(pool=POOL, copies=3),
]
SETTINGS = [{}, {"norm": "L2", "eps": 0.5, "alpha": 0.2}]
NAMES = [f"{type(part).__name__} {part.copies}" for part in PARTS]


def craft(net, x, y, targeted=False, **settings):
    attack = it.TransferAttack(net, **{"eps": 0.05, "alpha": 0.02, "steps": 3, **settings})
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(x, y)


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
@pytest.mark.parametrize("more", SETTINGS, ids=["Linf", "L2"])
def test_batches_and_chunks_do_not_matter_and_bounds_hold(part, more):
    x, y, net = images(), torch.arange(4), network().double()
    rng = torch.get_rng_state()
    together = craft(net, x, y, parts=[part], **more)
    assert torch.equal(torch.get_rng_state(), rng)
    alone = [craft(net, x[i : i + 1], y[i : i + 1], parts=[part], **more) for i in range(4)]
    assert (together - torch.cat(alone)).abs().max() < 1e-12
    chunked = craft(net, x, y, parts=[part], chunk_size=4, **more)
    assert (together - chunked).abs().max() < 1e-12
    delta = (together - x).flatten(1)
    size = delta.norm(dim=1) if more else delta.abs().amax(1)
    assert bool((size <= (0.5 if more else 0.05) + 1e-9).all())
    assert bool((size > 0.02).all())
    assert not torch.equal(together, craft(net, x, y, **more))


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_targeted_with_other_parts_ensembles_and_interactions(part):
    x, y = images(), torch.arange(4)
    nets = [network(seed=seed).double() for seed in (0, 1)]
    groups = it.GroupReduction(it.GridPlayers(3, 3), 2, 3)
    objective = InteractionObjective(weight=0.5, reduction=groups)
    parts = [RandomNoise(copies=2), part, Momentum()]
    found = craft(it.Ensemble(nets, "losses"), x, y, True, objective=objective, parts=parts)
    plain = craft(it.Ensemble(nets, "losses"), x, y, True, objective=objective, parts=parts[::2])
    assert not torch.equal(found, plain)
    for net in nets:
        assert (net(found) - net(x)).gather(1, y[:, None]).mean() > 0


@pytest.mark.parametrize("part", PARTS[:-1], ids=NAMES[:-1])
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 9, 14)])
def test_channels_sides_and_devices_without_float64(part, shape):
    if isinstance(part, RandomMask) and part.players.rows > shape[1]:
        return
    x, y, net = images(3, *shape).float(), torch.arange(3), network(*shape)
    plain = craft(net, x, y, parts=[part])
    with NoFloat64():
        assert torch.equal(craft(net, x, y, parts=[part]), plain)


@pytest.mark.parametrize("part", PARTS[2:-1], ids=NAMES[2:-1])
def test_parts_for_images_say_so(part):
    with pytest.raises(InputError, match=rf"images: got shape \(4, 12\).*{type(part).__name__}"):
        craft(nn.Linear(12, 5), torch.rand(4, 12), torch.arange(4), parts=[part])


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: RandomMask(0.0), "keep"),
        (lambda: RandomMask(1.5), "keep"),
        (lambda: RandomMask((0.9, 0.5)), "keep"),
        (lambda: RandomMask((0.1, 0.5, 0.9)), "keep"),
        (lambda: StructureInvariance(0), "blocks"),
        (lambda: StructureInvariance(changes="scale"), "changes"),
        (lambda: StructureInvariance(changes=[]), "changes"),
        (lambda: StructureInvariance(changes=["blur"]), "changes"),
        (lambda: SpectrumScaling(-1), "rho"),
        (lambda: SpectrumScaling(radius=-1), "radius"),
        (lambda: BlockShuffle(0), "blocks"),
        (lambda: BlockShuffle(angle=200), "angle"),
        (lambda: RandomWarp(2), "points"),
        (lambda: RandomWarp(radius=True), "radius"),
        (lambda: RandomWarp(radius=float("nan")), "radius"),
        (lambda: Admix(-0.1), "share"),
        (lambda: Admix(scales=0), "scales"),
        (lambda: Admix(pool=torch.zeros(0, 3, 8, 8)), "pool"),
        (lambda: Admix(pool=torch.zeros(2, 3, 8, 8).long()), "pool"),
        (lambda: Admix(pool_labels=torch.arange(2)), "pool_labels"),
        (lambda: Admix(pool=POOL, pool_labels=torch.arange(2)), "pool_labels"),
        *((lambda part=part: part(copies=0), "copies") for part in {type(p) for p in PARTS}),
        *((lambda part=part: part(copies=1.5), "copies") for part in {type(p) for p in PARTS}),
    ],
)
def test_bad_settings(make, argument):
    with pytest.raises(InputError, match=f"^{argument}: got"):
        make()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (StructureInvariance(13), "blocks: got 13 along a side of 12 pixels"),
        (BlockShuffle(13), "blocks: got 13 along a side of 12 pixels"),
        (RandomMask(players=it.GridPlayers(16, 16)), "a grid of 16 x 16 cells"),
        (Admix(pool=torch.rand(3, 3, 8, 8)), r"pool: got images \(3, 8, 8\)"),
    ],
)
def test_parts_that_do_not_fit_the_images(part, message):
    with pytest.raises(InputError, match=message):
        craft(network().double(), images(), torch.arange(4), parts=[part])


@pytest.mark.parametrize("before", [StructureInvariance(), ScaleInvariance(2), Admix(pool=POOL)])
def test_masks_put_clean_pixels_into_images_that_are_not_transformed(before):
    x, y = images(), torch.arange(4)
    with pytest.raises(InputError, match=r"^parts: got RandomMask after"):
        craft(network().double(), x, y, parts=[before, RandomMask()])
    craft(network().double(), x, y, parts=[RandomNoise(), RandomMask(), before])


def test_a_pool_is_shown_by_its_shape():
    assert "pool=(5, 3, 10, 12)" in repr(Admix(pool=torch.rand(5, 3, 10, 12)))
