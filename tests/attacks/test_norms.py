import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import Tensor

from interaction_train.attacks.norms import exact_bytes, round_to_bytes, to_floats
from interaction_train.errors import InputError

LEVELS = (torch.arange(256) / 255).double()  # what a reader of 8-bit files sees, float32
SHAPE = (3, 1, 4, 5)
seeds = st.integers(0, 2**31)


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def byte_images(seed: int) -> Tensor:
    return (uniform(seed, *SHAPE) * 256).long().clamp(max=255).float() / 255


def within(clean: Tensor, eps: float, seed: int, slack: float = 1.0) -> Tensor:
    """Anywhere in the box, often on its edge; with slack, outside of it too."""
    delta = (uniform(seed, *SHAPE) * 4 - 2).clamp(-1, 1) * eps * slack
    return (clean + delta).clamp(0, 1)


def nearest_allowed(adversarial: Tensor, allowed: Tensor) -> Tensor:
    """Brute force over all levels: the smallest possible distance to the adversarial pixels."""
    distance = (LEVELS - adversarial.double().unsqueeze(-1)).abs()
    return distance.masked_fill(~allowed, math.inf).amin(-1)


@given(seeds, st.integers(0, 255), st.floats(0, 0.999), st.sampled_from([1.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_byte_images_move_by_whole_levels_within_the_bound(seed, whole, part, slack):
    eps = (whole + part) / 255
    levels = math.floor(Fraction(eps) * 255 + Fraction(255, 10**7))
    clean = byte_images(seed)
    adversarial = within(clean, eps, seed + 1, slack)
    rounded = round_to_bytes(adversarial, clean, eps)
    assert rounded.dtype == torch.uint8
    origin = (clean * 255).round().long()
    assert int((rounded.long() - origin).abs().max()) <= levels
    allowed = (torch.arange(256) - origin.unsqueeze(-1)).abs() <= levels
    moved = (to_floats(rounded).double() - adversarial.double()).abs()
    assert torch.allclose(moved, nearest_allowed(adversarial, allowed), atol=1e-7, rtol=0)


@given(seeds, st.floats(1 / 255, 0.5), st.sampled_from([1.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_other_images_stay_in_the_box_too(seed, eps, slack):
    clean = uniform(seed, *SHAPE)
    levels = 255 * clean.double()
    assume(bool(((levels - levels.round()).abs() > 1e-4).all()))  # none that counts as a level
    adversarial = within(clean, eps, seed + 1, slack)
    rounded = round_to_bytes(adversarial, clean, eps)
    values = to_floats(rounded).double()
    assert bool(((values - clean.double()).abs() <= eps).all())
    allowed = (LEVELS - clean.double().unsqueeze(-1)).abs() <= eps
    moved = (values - adversarial.double()).abs()
    assert torch.allclose(moved, nearest_allowed(adversarial, allowed), atol=1e-7, rtol=0)


@pytest.mark.parametrize("eps", [8 / 255, 0.0313725, float(torch.tensor(8 / 255)), 0.03137254])
def test_however_eight_levels_are_written(eps):
    clean = torch.full((1, 1, 1, 1), 100 / 255)
    for sign in (1, -1):
        rounded = round_to_bytes(clean + sign * eps, clean, eps)
        assert int(rounded) - 100 == 8 * sign
    assert int(round_to_bytes(clean + 0.0313, clean, 0.0313)) == 107


@given(seeds, st.floats(0, 3), st.booleans(), st.sampled_from([1.0, 4.0]))
@settings(max_examples=60, deadline=None)
def test_the_l2_ball_is_kept(seed, eps, on_bytes, slack):
    clean = byte_images(seed) if on_bytes else uniform(seed, *SHAPE)
    direction = uniform(seed + 1, *SHAPE) - 0.5
    length = direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    adversarial = (clean + direction / length * eps * slack).clamp(0, 1)
    # Else rounding the clean image itself may leave the ball.
    assume(on_bytes or eps > math.sqrt(20) * 0.5 / 255)
    values = to_floats(round_to_bytes(adversarial, clean, eps, "L2")).double()
    reached = (values - clean.double()).flatten(1).norm(dim=1)
    assert bool((reached <= eps).all())
    wanted = (adversarial - clean).flatten(1).norm(dim=1).clamp(max=eps)
    if eps > 0.3:  # many levels: little is lost
        assert bool((reached > 0.95 * wanted - 0.02).all())


def test_a_bound_that_no_8_bit_image_keeps():
    clean = torch.full((1, 1, 2, 2), 0.5)  # between the levels 127 and 128
    for norm in ("Linf", "L2"):
        with pytest.raises(InputError, match=r"eps: got 0\.001"):
            round_to_bytes(clean, clean, 0.001, norm)
    on_level = torch.full((1, 1, 2, 2), 127 / 255)
    for norm in ("Linf", "L2"):
        assert bool((round_to_bytes(on_level + 0.001, on_level, 0.001, norm) == 127).all())


def test_without_a_bound_to_the_nearest():
    adversarial = uniform(0, *SHAPE)
    rounded = round_to_bytes(adversarial, torch.zeros(SHAPE), None)
    assert torch.equal(rounded, (adversarial.double() * 255).round().to(torch.uint8))


def test_bad_input():
    clean = torch.zeros(SHAPE)
    with pytest.raises(InputError, match="NaN"):
        round_to_bytes(clean + math.nan, clean, 0.1)
    with pytest.raises(InputError, match="norm"):
        round_to_bytes(clean, clean, 0.1, "L1")  # type: ignore[arg-type]


def test_bytes_are_recognised():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(exact_bytes(pixels.float() / 255), pixels)
    assert exact_bytes(pixels.float() / 254.9) is None
    assert exact_bytes(torch.full((1, 1, 1, 1), 3 / 16)) is None
