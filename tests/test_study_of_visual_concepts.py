"""The study of visual concepts: what its images are, what it measures, and what it concludes."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))

import common
import stimuli
import visual_concepts as study


def test_images_differ_in_nothing_but_their_class():
    found = stimuli.stimuli(40, seed=0, training=True)
    assert found.x.shape == (360, 1, 18, 18)
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    for k in range(9):
        own = found.x[found.y == k]
        torch.testing.assert_close(own.mean((1, 2, 3)), torch.full((40,), 0.5), rtol=0, atol=0.02)
        torch.testing.assert_close(own.std((1, 2, 3)), torch.full((40,), 0.14), rtol=0, atol=0.02)
        assert (own.mean(0) - 0.5).abs().mean() < 0.05  # neither a place nor a way round of its own
    again = stimuli.stimuli(40, seed=0, training=True)
    assert torch.equal(again.x, found.x)
    assert not torch.equal(stimuli.stimuli(40, seed=0, training=False).x, found.x)


def test_a_circle_is_as_large_as_it_is_said_to_be():
    radius = torch.tensor([3.5, 5.0, 7.5])
    drawn = stimuli.outlines(radius, 0, torch.Generator().manual_seed(0))
    ink = drawn.sum((1, 2))  # two pixels wide, edges included
    torch.testing.assert_close(ink / radius, torch.full((3,), 2 * 2 * torch.pi), rtol=0.05, atol=0)
    assert (drawn.amax((1, 2)) == 1).all()


def test_textures_are_alike_in_all_quarters_and_outlines_are_not():
    found = stimuli.stimuli(200, seed=1, training=True)
    contrast = found.x.unfold(2, 9, 9).unfold(3, 9, 9).std((-1, -2)).flatten(1)
    uneven = contrast.std(1) / contrast.mean(1)
    mean = [float(uneven[found.y == k].mean()) for k in range(9)]
    assert max(mean[:3]) < min(mean[3:])


def test_measures_of_a_class():
    strength = torch.eye(8)[[0, 0, 7, 7, 7, 7]].double() * torch.arange(1, 7)[:, None]
    far = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    told = study.measures(strength, far, torch.tensor([9.0, 8, 7, 6, 5, 4]))
    assert told["low"] == pytest.approx(1 / 3)
    assert told["high"] == pytest.approx(2 / 3)
    assert told["mean order"] == pytest.approx(14 / 3)
    assert told["shape"] == pytest.approx([3 / 21, 0, 0, 0, 0, 0, 0, 18 / 21])
    assert (told["low near"], told["low far"]) == (1, 0)
    assert (told["high near"], told["high far"]) == (0, 1)
    assert (told["high small"], told["high large"]) == (1, 0)
    assert "high small" not in study.measures(strength, far, torch.full((6,), torch.nan))


@pytest.mark.parametrize(("sign", "kind"), [(1, "holds"), (-1, "does not hold here")])
def test_the_verdict_follows_from_the_numbers(sign, kind):
    def told(name: str, seed: int) -> dict[str, float]:
        texture, noise = sign * (name in stimuli.TEXTURES), 0.001 * seed * len(name)
        measured = dict.fromkeys(("flexibility", "fine flexibility", "between networks"), texture)
        measured |= {"mean order": -texture, "low near": sign, "high far": sign}
        measured |= {"low far": 0, "high near": 0, "high small": 0, "high large": sign}
        return {key: value + noise * (value != 0) for key, value in measured.items()}

    found = {
        f"seed_{seed}": {"classes": {name: told(name, seed) for name in stimuli.CLASSES}}
        for seed in range(3)
    }
    part = common.Part(
        common.Study("x", "smoke", ("textures",), None, False, Path()), "textures", (0, 1, 2)
    )
    checks = study.checks(found, part)
    part.verdict(checks)
    assert part._verdict["kind"] == kind
    assert len(checks) == 15


def test_distance_between_networks():
    shapes = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    found = {str(k): {"classes": {"a": {"shape": shape}}} for k, shape in enumerate(shapes)}
    assert study.between(found, "a") == pytest.approx([0.5, 0.5, 0])
