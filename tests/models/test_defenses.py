"""Defended networks against their definitions, sample by sample, and as sources of attacks."""

import pytest
import torch
from torch import nn

from interaction_train.attacks import TransferAttack
from interaction_train.errors import InputError
from interaction_train.models import (
    BitDepthDefense,
    DigitsNet,
    JPEGDefense,
    ResizePadDefense,
    SmoothingDefense,
    pretrained,
)
from interaction_train.sampling.random import Draws, content_hash


class Seen(nn.Module):
    """Shows what a network gets, as logits."""

    def forward(self, x):
        return x.flatten(1)


def images(count=5, channels=3, height=16, width=24, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator).to(dtype)


def all_defenses(model):
    return [
        JPEGDefense(model),
        BitDepthDefense(model),
        ResizePadDefense(model, 0.8),
        SmoothingDefense(model, 0.1, 5),
        SmoothingDefense(model, 0.1, 5, "logits"),
    ]


@pytest.mark.filterwarnings("ignore:The image decoding and encoding")
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_another_binding(channels):
    io = pytest.importorskip("torchvision.io")
    if not hasattr(io, "encode_jpeg"):
        pytest.skip("torchvision has given up its codec")
    x = images(2, channels)
    found = JPEGDefense(Seen(), quality=60)(x).view_as(x)
    for image, ours in zip(x, found, strict=True):
        data = io.encode_jpeg((image * 255).round().to(torch.uint8), 60)
        # Codecs may differ in a rounding.
        assert (ours * 255 - io.decode_jpeg(data)).abs().max() < 3


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_what_is_smooth_and_loses_noise(channels):
    ramp = torch.linspace(0.1, 0.9, 32).expand(2, channels, 32, 32)
    noise = images(2, channels, 32, 32)
    errors = [
        float((JPEGDefense(Seen(), quality)(x).view_as(x) - x).abs().mean())
        for x, quality in ((ramp, 90), (noise, 90), (noise, 10))
    ]
    assert errors[0] < 0.01 < errors[1] < 0.9 * errors[2]


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bits(bits):
    x = images()
    found = BitDepthDefense(Seen(), bits)(x).view_as(x)
    levels = torch.linspace(0, 1, 2**bits)
    nearest = levels[(x.unsqueeze(-1) - levels).abs().argmin(-1)]
    torch.testing.assert_close(found, nearest)
    assert len(found.unique()) == min(2**bits, len(nearest.unique()))


def resized_and_padded(image, seed, rate):
    """By the definition: F.interpolate to the size drawn, then zeros around."""
    draws = Draws(content_hash(image[None]), seed, "resize and pad")
    scale, *places = draws.uniform("defense", 3)[0].tolist()
    sizes, pads = [], []
    for size, place in zip(image.shape[-2:], places, strict=True):
        other = round(size * rate)
        low, canvas = min(size, other), max(size, other)
        sizes.append(low + int(scale * (canvas - low + 1)))
        first = int(place * (canvas - sizes[-1] + 1))
        pads.append((first, canvas - sizes[-1] - first))
    small = nn.functional.interpolate(image[None], tuple(sizes), mode="nearest-exact")
    return nn.functional.pad(small, (*pads[1], *pads[0]))[0]


@pytest.mark.parametrize("rate", [331 / 299, 1.5, 0.7, 1.0])
def test_resizing_and_padding(rate):
    x, seen = images(8), []
    probe = nn.Identity()
    probe.register_forward_hook(lambda *args: seen.append(args[2]))
    ResizePadDefense(probe, rate, seed=3)(x)
    expected = [resized_and_padded(image, 3, rate) for image in x]
    torch.testing.assert_close(seen[0], torch.stack(expected), rtol=0, atol=0)
    if rate != 1:
        assert len({tuple((image[0] == 0).all(1).tolist()) for image in seen[0]}) > 2


def test_votes_and_mean_logits():
    model, x = pretrained(DigitsNet(), "digits_cnn"), images(6, 1, 8, 8)
    draws = Draws(content_hash(x), 2, "smoothing").normal("noise", 40, 64).view(6, 40, 1, 8, 8)
    votes = SmoothingDefense(model, 0.3, 40, seed=2)(x)
    mean = SmoothingDefense(model, 0.3, 40, "logits", seed=2)(x)
    for i, image in enumerate(x):
        with torch.no_grad():
            logits = model(image + 0.3 * draws[i])
        counts = logits.argmax(1).bincount(minlength=10)
        torch.testing.assert_close(votes[i].exp(), (counts + 1) / 50)
        torch.testing.assert_close(mean[i], logits.mean(0), rtol=1e-4, atol=1e-4)
    assert len(votes.unique()) > 5


def test_the_gradient_of_votes_is_that_of_the_mean_probabilities():
    model, x = pretrained(DigitsNet(), "digits_cnn"), images(2, 1, 8, 8).requires_grad_()
    draws = Draws(content_hash(x), 0, "smoothing").normal("noise", 7, 64).view(2, 7, 1, 8, 8)
    soft = model((x.unsqueeze(1) + 0.2 * draws).flatten(0, 1)).softmax(1).view(2, 7, 10).mean(1)
    (expected,) = torch.autograd.grad(soft.log()[:, 3].sum(), x)
    (found,) = torch.autograd.grad(SmoothingDefense(model, 0.2, 7)(x)[:, 3].sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("k", range(5))
def test_a_sample_depends_on_nothing_else(k):
    model = pretrained(DigitsNet(), "digits_cnn").double()
    defended, x = all_defenses(model)[k], images(7, 1, 8, 8, torch.float64)
    together = defended(x)
    torch.manual_seed(1)
    alone = torch.cat([defended(image) for image in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", range(5))
def test_a_defended_source_is_attacked(k):
    """The gradient passes, and what it leads to fools the defended network more than noise."""
    model = pretrained(DigitsNet(), "digits_cnn")
    defended, x = all_defenses(model)[k], images(12, 1, 8, 8)
    labels = defended(x).argmax(1)
    adversarial = TransferAttack(defended, eps=0.2, alpha=0.05, steps=8)(x, labels)
    noise = (x + 0.2 * images(12, 1, 8, 8).flip(0).sub(0.5).sign()).clamp(0, 1)
    fooled, at_random = ((defended(y).argmax(1) != labels).sum() for y in (adversarial, noise))
    assert fooled > max(int(at_random), 6)


def test_straight_through():
    x = images(2, 1, 8, 8).requires_grad_()
    for defended in (JPEGDefense(Seen()), BitDepthDefense(Seen())):
        weights = torch.rand(2, 64, generator=torch.Generator().manual_seed(3))
        (gradient,) = torch.autograd.grad((defended(x) * weights).sum(), x)
        torch.testing.assert_close(gradient.flatten(1), weights)


def test_what_lies_beyond_is_clamped():
    x = images(2, 1, 8, 8)
    for defended in all_defenses(Seen())[:3]:
        torch.testing.assert_close(defended(2 * x - 0.5), defended((2 * x - 0.5).clamp(0, 1)))


def test_bad_input():
    model = DigitsNet()
    for wrong in (
        lambda: JPEGDefense(model, 0),
        lambda: JPEGDefense("digits_cnn"),
        lambda: JPEGDefense(model, 75.5),
        lambda: BitDepthDefense(model, 9),
        lambda: BitDepthDefense(model, 2.5),
        lambda: SmoothingDefense(model, float("inf")),
        lambda: SmoothingDefense(model, n_samples=2.5),
        lambda: ResizePadDefense(model, 0),
        lambda: SmoothingDefense(model, -1),
        lambda: SmoothingDefense(model, n_samples=0),
        lambda: SmoothingDefense(model, average="mean"),
        lambda: JPEGDefense(model)(torch.rand(2, 4, 8, 8)),
        lambda: BitDepthDefense(model)(torch.rand(2, 64)),
    ):
        with pytest.raises(InputError):
            wrong()
