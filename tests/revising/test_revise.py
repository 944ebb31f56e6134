"""Revisions against features whose dividends are known, and what they may not do."""

import copy

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as F

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.revising import revise_image, revisions_figure
from interaction_train.revising.changes import LIMITS, ColourChange, turned

GRID = it.GridPlayers(2, 2)
INDEX = {k: i for i, k in enumerate(LIMITS)}


def images(batch=2, channels=1, size=6, seed=0):
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


def cell_means(x):
    """Of one channel in 2 × 2 cells, ``(B, 4)``."""
    return x.unflatten(-1, (2, -1)).unflatten(-3, (2, -1)).mean((1, 3, 5)).flatten(1)


class Products(nn.Module):
    """A feature of two products of cells' means, and one of their sum; logits that sum them up.

    With absent cells at 0 the dividends of {0, 1}, {2, 3} are the products, those of single cells
    their means, and all others are 0.
    """

    def __init__(self):
        super().__init__()
        self.feature, self.head = nn.Identity(), nn.Linear(3, 2)

    def forward(self, x):
        a, b, c, d = cell_means(x).unbind(1)
        return self.head(self.feature(torch.stack([4 * a * b, c * d, a + b + c + d], 1)))


class Additive(nn.Module):
    def __init__(self):
        super().__init__()
        self.feature, self.head = nn.Linear(36, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.feature(x.flatten(1)))


def revise(model=None, x=None, players=GRID, strengthen=1, weaken=2, **options):
    options = {"layer": "feature", "baseline": 0.0, "steps": 6, **options}
    layer = options.pop("layer")
    x = images() if x is None else x
    return revise_image(model or Products(), layer, x, players, strengthen, weaken, **options)


def rgb():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return it.models.DigitsNet(
            in_channels=3, width=4, mean=(0.4, 0.5, 0.6), std=(0.3, 0.3, 0.3)
        )


@pytest.mark.parametrize("change", ["colour", "pixels"])
def test_known_feature_is_found_and_strengthened_at_every_step(change):
    x = 0.3 + 0.1 * images(batch=3)
    found = revise(x=x, change=change, weaken=0)
    assert found.strengthened.int().tolist() == [[[1, 1, 0, 0]]] * 3
    means = cell_means(x)
    products = torch.stack([4 * means[:, 0] * means[:, 1], means[:, 2] * means[:, 3]], 1)
    assert torch.allclose(found.strengths[:, [3, 12]], products, atol=1e-6)
    assert (found.history[..., 0].diff() > 0).all()
    assert torch.equal(found.history[:, 0, 0], found.strengths[:, 3])
    assert torch.allclose(found.history[:, -1, 0], found.revised_strengths[:, 3])
    assert torch.allclose(found.image[..., 3:, :], x[..., 3:, :], atol=1e-3)  # cells of no set
    assert not torch.equal(found.image[..., :3, :], x[..., :3, :])
    assert found.image.min() >= 0
    assert found.image.max() <= 1


def test_weight_zero_only_weakens():
    x = 0.3 + 0.1 * images()
    found = revise(x=x, weaken=10, weight=0.0, change="pixels")
    assert (found.history[..., 1].diff() < 0).all()
    assert found.weakened.shape == (2, 10, 4)
    assert torch.allclose(found.image[..., :3, :], x[..., :3, :], atol=1e-3)  # against 6 · .05
    assert (found.image[..., 3:, :] + 0.1 < x[..., 3:, :]).all()


def test_additive_network_has_no_prototypical_sets():
    x = images()
    with pytest.warns(UserWarning, match="no two cells interact.*the samples 0, 1"):
        found = revise(Additive(), x)
    assert torch.equal(found.image, x)
    sizes = it.all_coalitions(4).sum(1)
    assert found.strengths[:, sizes > 1].max() < 1e-5 * found.strengths[:, sizes == 1].min()
    assert torch.equal(found.logits, found.revised_logits)


@pytest.mark.parametrize("change", ["colour", "pixels"])
def test_pixels_stay_in_range_and_the_network_as_it_was(change):
    model = rgb().train()
    x = images(channels=3, size=8)
    x[:, :, :4] = x[:, :, :4].round()  # black and full colours
    before, names = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        found = revise(
            model, x, layer="features.5", strengthen=3, weaken=5, change=change, step_size=0.4,
            baseline=None,
        )  # fmt: skip
        assert torch.equal(torch.get_rng_state(), state)
    assert found.image.min() >= 0
    assert found.image.max() <= 1
    assert torch.isfinite(found.image).all()
    assert [m.training for m in model.modules()] == names
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    net = model.eval()
    assert torch.equal(found.revised_logits, net(found.image).detach())


def test_strengths_are_those_of_the_game_at_the_layer():
    model, x = rgb().double(), images(channels=3, size=8).double()
    found = revise(model, x, layer="features.5", strengthen=3, weaken=5, baseline=0.2)
    for image, strengths in ((x, found.strengths), (found.image, found.revised_strengths)):
        masks = GRID.mask(it.all_coalitions(4), x.shape[1:])
        rows = torch.where(masks, image[:, None], torch.tensor(0.2).double()).flatten(0, 1)
        values = model.features(model.normalize(rows)).detach().flatten(1).unflatten(0, (2, 16))
        norms = it.dividends(values.movedim(1, -1)).norm(dim=1)
        assert torch.allclose(strengths, norms, atol=1e-10)
    several = it.all_coalitions(4).sum(1) > 1
    order = found.strengths[0, several].argsort(descending=True)
    sets = it.all_coalitions(4)[several]
    assert torch.equal(found.strengthened[0], sets[order[:3]])
    assert torch.equal(found.weakened[0], sets[order[-5:]])
    assert torch.allclose(found.ratio, found.history[..., 0] / found.history[..., 1])


@pytest.mark.parametrize("sets", ["prototypical", "random"])
def test_no_result_depends_on_the_batch_or_the_chunk(sets):
    model, x = rgb().double(), images(3, 3, 8).double()
    options = {"layer": "features.5", "strengthen": 3, "weaken": 4, "sets": sets, "seed": 1}
    together = revise(model, x, **options)
    with torch.no_grad():  # as in a validation
        alone = revise(model, x[1:2], chunk_size=7, **options)
    assert torch.equal(together.strengthened[1:2], alone.strengthened)
    assert torch.allclose(together.image[1:2], alone.image, atol=1e-8)
    assert torch.allclose(together.history[1:2], alone.history)


def test_random_sets_are_drawn_from_what_is_not_weakened():
    x = images(64, 3, 8)
    chosen = [revise(rgb(), x, layer="features.5", strengthen=3, weaken=5, steps=1, sets=sets,
                     seed=seed) for sets, seed in (("random", 0), ("random", 1),
                                                   ("prototypical", 0))]  # fmt: skip
    first, _, strongest = chosen
    weights = 1 << torch.arange(4)
    sets = [(one.strengthened * weights).sum(-1) for one in chosen]
    weak = (strongest.weakened * weights).sum(-1)
    assert torch.equal(first.weakened, strongest.weakened)
    for some in sets:
        assert (some.sort(1).values.diff() > 0).all()  # no set twice
        assert not (some[:, :, None] == weak[:, None]).any()
    assert not torch.equal(sets[0], sets[1])
    # Three of the six that are left: of the strongest three half on average.
    shared = (sets[0][:, :, None] == sets[2][:, None]).sum((1, 2)).double().mean()
    assert 1.2 < shared < 1.8


def test_colours_do_what_torchvision_does():
    x, players = images(1, 3, 6), it.GridPlayers(1, 1)
    change = ColourChange(x, players)
    done = {
        "sharpness": F.adjust_sharpness,
        "brightness": F.adjust_brightness,
        "saturation": F.adjust_saturation,
    }
    assert torch.equal(change.images(change.start), x)
    for name, adjust in done.items():
        for part in (-1.0, 0.7):
            parameters = change.start.clone()
            parameters[..., INDEX[name]] = part
            expected = adjust(x, 1 + part * LIMITS[name])
            assert torch.allclose(change.images(parameters), expected, atol=1e-6), name
    third = torch.full((1, 1, 6, 6), 1 / 3)
    assert torch.allclose(turned(x, third), F.adjust_hue(x, 1 / 3), atol=1e-5)
    # To the first order both turn by the same side, and grey stays grey.
    assert torch.allclose(turned(x.mean(1, keepdim=True).expand_as(x), third), x.mean(1), atol=1e-6)
    grey = ColourChange(x[:, :1], players)
    assert grey.start.shape == (1, 1, 2)


def test_a_cell_changes_by_its_own_settings_alone():
    """Alike pixels with alike surroundings stay alike, and other cells as they are."""
    x = images(1, 3, 1, seed=3).expand(2, 3, 8, 8).clone()
    x[1] = images(1, 3, 8, seed=4)
    change = ColourChange(x, GRID)
    parameters = change.start.clone()
    parameters[:, 1] = 2 * torch.rand(4, generator=torch.Generator().manual_seed(5)) - 1
    image = change.images(parameters)
    cell = GRID.cells((3, 8, 8)) == 1
    assert torch.equal(image[..., ~cell], x[..., ~cell])
    plain = image[0][:, cell]
    assert torch.allclose(plain, plain[:, :1], atol=1e-6)
    assert (plain - x[0][:, cell]).abs().max() > 1e-3
    own = it.SegmentPlayers(GRID.cells((3, 8, 8)).expand(2, -1, -1))  # a map for each image
    assert torch.equal(ColourChange(x, own).images(parameters), image)
    leaves = (0.5 * torch.rand(2, 4, 4, dtype=torch.float64)).requires_grad_()
    inside = ColourChange(0.3 + 0.2 * x.double(), GRID)
    assert torch.autograd.gradcheck(inside.images, leaves)


def test_figure_has_a_column_for_each_pair_of_counts():
    x = images(2, 3, 8)
    grid = [revise(rgb(), x, layer="features.5", strengthen=m2, weaken=m1, steps=1)
            for m1, m2 in ((0, 2), (4, 2))]  # fmt: skip
    figure = revisions_figure(grid, ["class 1", "class 2"], "Revised")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "class 1"
    assert titles[1] == "m₁ = 0, m₂ = 2"
    first, last = grid[1].ratio[1, [0, -1]].tolist()
    assert titles[5] == f"m₁ = 4, m₂ = 2\nratio {first:.2g} → {last:.2g}"
    shown = figure.axes[4].images[0].get_array()
    assert torch.allclose(torch.as_tensor(shown.data), grid[0].image[1].movedim(0, -1))
    other = revise(rgb(), 0.5 * x, layer="features.5", steps=1)
    for wrong, message in (([], "none"), ([grid[0], other], "one of other images at 1")):
        with pytest.raises(InputError, match=f"revisions: got {message}"):
            revisions_figure(wrong)


class Cut(Products):
    def forward(self, x):
        return super().forward(x.detach())


class CutBeforeWeights(Additive):
    def forward(self, x):
        return self.head(self.feature(x.detach().flatten(1)).square())


def test_inference_mode_changes_nothing():
    expected = revise()
    with torch.inference_mode():
        assert torch.equal(revise(x=images()).image, expected.image)


@pytest.mark.filterwarnings("ignore:revise_image. in 'feature' no two cells")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "fature"}, "layer: got 'fature', .*feature"),
        ({"strengthen": 0}, "strengthen: got 0"),
        ({"strengthen": 12}, "strengthen: got 12"),
        ({"weaken": 11}, "weaken: got 11 besides 1 to strengthen, expected 0 to 10"),
        ({"weaken": -1}, "weaken: got -1"),
        ({"weaken": 1.5}, "weaken: got 1.5, expected a whole number"),
        ({"steps": 0}, "steps: got 0"),
        ({"steps": 2.5}, "steps: got 2.5, expected a whole number"),
        ({"weight": "a"}, "weight: got 'a', expected a number"),
        ({"weight": -1.0}, "weight: got -1.0"),
        ({"step_size": 0.0}, "step_size: got 0.0"),
        ({"change": "hue"}, "change: got 'hue'"),
        ({"sets": "weak"}, "sets: got 'weak'"),
        ({"x": images() + 1}, "x: got values from"),
        ({"x": images(channels=2)}, "x: got shape"),
        ({"players": it.UnitPlayers("channel")}, "players: got 1 player"),
        ({"model": Cut()}, "layer: got 'feature', whose output has no gradient"),
        ({"model": CutBeforeWeights()}, "layer: got 'feature', whose output has no gradient"),
        ({"baseline": None}, "baseline: got None"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        revise(**options)
