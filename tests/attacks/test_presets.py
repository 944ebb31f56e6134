"""Presets: what they are made of, and that they fool other networks as they are meant to."""

import inspect

import pytest
import torch
import torchattacks

import interaction_train as it
from interaction_train.attacks import presets
from interaction_train.attacks.run import counted_passes

PRESETS = {"Fast": 10, "Strong": 80, "Best": 400, "Targeted": 400}
EPS = 0.15


@pytest.fixture(scope="module")
def digits():
    nets = {"cnn": it.models.DigitsNet(), "mlp": it.models.DigitsMLP()}
    nets = {name: it.pretrained(net, f"digits_{name}").eval() for name, net in nets.items()}
    data = it.DigitsDataModule()
    data.setup()
    x, y = (torch.cat(parts)[:120] for parts in zip(*data.test_dataloader(), strict=True))
    return nets["cnn"], nets["mlp"], x, y


@pytest.mark.parametrize(("name", "steps"), PRESETS.items())
def test_a_preset_has_one_pass_a_step_and_steps_in_proportion(name, steps):
    made = getattr(presets, name)
    attack = made(torch.nn.Identity(), eps=0.1)
    assert (attack.steps, attack.eps) == (steps, 0.1)
    assert attack.alpha == pytest.approx(0.1 * max(0.2, 3 / steps))
    assert all(part.copies == 1 for part in attack.parts)
    shown = inspect.signature(made).parameters
    assert {"eps", "alpha", "steps", "norm", "seed", "chunk_size"} <= shown.keys()
    assert not {"objective", "parts", "common"} & shown.keys()
    assert made(torch.nn.Identity(), alpha=0.5, steps=7, norm="L2").alpha == 0.5


def test_fast_fools_a_target_more_often_than_mi_with_four_times_its_passes(digits):
    source, target, x, y = digits
    mi = torchattacks.MIFGSM(source, EPS, EPS / 10, 40)

    def fooled(attack):
        with counted_passes(source) as passes:
            crafted = attack(x, y)
        assert float((crafted - x).abs().max()) <= EPS + 1e-6
        with torch.no_grad():
            rate = (target(crafted).argmax(1) != y).float().mean()
        return float(rate), passes["forwards"] / len(x)

    (ours, cost), (theirs, more) = fooled(presets.Fast(source, EPS)), fooled(mi)
    assert (cost, more) == (10, 40)
    assert ours > theirs + 0.05


def test_targeted_reaches_the_classes_it_aims_at(digits):
    source, target, x, y = digits
    attack = presets.Targeted(source, 0.3, steps=40)
    aims = attack.get_target_label(x, y)
    assert bool((aims != y).all())
    with torch.no_grad():
        crafted = attack(x, y)
        white = (source(crafted).argmax(1) == aims).float().mean()
        black = (target(crafted).argmax(1) == aims).float().mean()
        before = (target(x).argmax(1) == aims).float().mean()
    assert float(white) > 0.8
    assert float(black) > float(before) + 0.2


@pytest.mark.parametrize(("side", "blocks"), [(15, False), (16, True)])
def test_strong_changes_blocks_of_16_pixels_or_more_and_resizes_smaller_images(side, blocks):
    x = torch.rand(2, 1, side, 20, generator=torch.Generator().manual_seed(side))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side * 20, 4))
    y = torch.tensor([0, 3])
    shifts = ["vertical shift", "horizontal shift"]
    changes = [*shifts, "horizontal flip", "scale", "noise", "dropout"]
    change = it.attacks.StructureInvariance(changes=changes)
    change = change if blocks else it.attacks.InputDiversity()
    noise, momentum = it.attacks.RandomNoise(), it.attacks.Momentum()
    parts = [it.attacks.AdaptiveWarp(), change, noise, momentum]
    objective = it.attacks.Objective("margin")
    plain = it.TransferAttack(net, EPS, EPS * 0.6, 5, objective=objective, parts=parts)
    assert torch.equal(presets.Strong(net, EPS, steps=5)(x, y), plain(x, y))


@pytest.mark.parametrize("name", PRESETS)
def test_no_steps(name):
    with pytest.raises(it.InputError, match=r"^steps: got 0"):
        getattr(presets, name)(torch.nn.Identity(), steps=0)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(AttributeError, match=r"no preset .Huge.; there are Fast, Strong"):
        _ = presets.Huge
