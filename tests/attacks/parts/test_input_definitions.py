"""Masks, spectrum, block shuffle, warp and Admix, each against its definition in plain loops."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.fft
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates

import interaction_train as it
from interaction_train.attacks import (
    Admix,
    BlockShuffle,
    RandomMask,
    RandomWarp,
    ScaleInvariance,
    SpectrumScaling,
)
from interaction_train.attacks.parts.blocks import random_cuts
from interaction_train.errors import InputError
from tests.attacks.parts.steps import bounds, images, network, step_of

COPIES = torch.arange(2)


def rows_of(x, copies=2):
    return x.unsqueeze(1).repeat(1, copies, 1, 1, 1)


def test_whole_cells_of_the_perturbation_are_left_out_at_the_wanted_rate():
    clean = images(300, 2, 8, 8)
    changed = rows_of(clean) + 1
    found = RandomMask(0.7, it.GridPlayers(4, 2)).vary(changed, COPIES, step_of(clean))
    kept = (found == changed).unfold(3, 2, 2).unfold(4, 4, 4)  # cells of 2 × 4 pixels
    assert torch.equal(found != changed, found == rows_of(clean))
    cells = kept.flatten(5)[:, :, 0]
    assert torch.equal(cells.any(-1), cells.all(-1))
    assert torch.equal(kept[:, :, 0], kept[:, :, 1])  # the channels agree
    rate = cells.all(-1).double().mean((0, 1))
    assert (rate - 0.7).abs().max() < 0.08
    assert abs(float(rate.mean()) - 0.7) < 0.02


def test_the_keep_rate_is_drawn_between_its_bounds():
    clean = images(200, 1, 16, 16)
    part = RandomMask((0.2, 0.6), it.GridPlayers(16, 16))
    found = part.vary(rows_of(clean) + 1, COPIES, step_of(clean))
    rate = (found > 1).double().mean((2, 3, 4)).flatten().sort().values
    uniform = torch.linspace(0.2, 0.6, 400, dtype=torch.float64)
    assert (rate - uniform).abs().max() < 0.07


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 7, 10)])
def test_the_spectrum_is_scaled_as_scipy_does_it(shape):
    x, eps = images(2, *shape), 0.1
    step = step_of(x, eps=eps)
    found = SpectrumScaling(0.4, 1.5).vary(rows_of(x), COPIES, step)
    size = x[0].numel()
    noise = step.draws.normal("spectrum noise", COPIES, size).view(found.shape).numpy()
    unit = step.draws.uniform("spectrum", COPIES, size).view(found.shape).numpy()
    scale = 0.6 + 0.8 * unit
    waves = scipy.fft.dctn(rows_of(x).numpy() + 1.5 * eps * noise, axes=(3, 4))
    want = scipy.fft.idctn(waves * scale, axes=(3, 4))
    assert np.abs(found.numpy() - want).max() < 1e-6


def shuffled(line, order):
    """Blocks of a line as (first, end), in the new order."""
    edges = bounds(line)
    pairs = list(pairwise(edges))
    return [pairs[i] for i in np.argsort(order)]


@pytest.mark.parametrize(("angle", "blocks"), [(0, 2), (0, 3), (24, 2), (90, 3), (180, 1)])
def test_blocks_change_places_and_turn(angle, blocks):
    x = images(3, 2, 15, 11)
    step = step_of(x)
    found = BlockShuffle(blocks, angle).vary(rows_of(x), COPIES, step)
    units = 2 * step.draws.uniform("shuffle angles", COPIES, 1, blocks, blocks)[:, :, 0] - 1
    lines = {}
    for stream, side in (("shuffle rows", 15), ("shuffle columns", 11)):
        cuts = random_cuts(step.draws.bits(stream, COPIES, side - 1), blocks).block
        ranks = step.draws.bits(f"{stream} order", COPIES, blocks)
        lines[stream] = cuts, ranks
    for b in range(3):
        for k in range(2):
            (rows, up), (cols, left) = ((c[b, k], r[b, k]) for c, r in lines.values())
            strips = []
            for top, bottom in shuffled(rows.tolist(), up.numpy()):
                strip = []
                for first, end in shuffled(cols.tolist(), left.numpy()):
                    block = x[b, :, top:bottom, first:end].numpy()
                    unit = units[b, k, rows[top], cols[first]]
                    strip.append(turned(block, np.radians(angle) * float(unit)))
                strips.append(np.concatenate(strip, 2))
            want = np.concatenate(strips, 1)
            assert np.abs(found[b, k].numpy() - want).max() < 1e-6


def turned(block, angle):
    """Channels of a block turned around its middle, 0 where nothing comes to lie."""
    height, width = block.shape[1:]
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    y, x = np.tensordot(back, np.stack([y, x]), 1)
    places = np.stack([y + (height - 1) / 2, x + (width - 1) / 2])
    read = [map_coordinates(channel, places, order=1, mode="nearest") for channel in block]
    return np.stack(read) * ((np.abs(y) <= height / 2) & (np.abs(x) <= width / 2))


@pytest.mark.parametrize(("shape", "points"), [((2, 12, 12), 3), ((1, 9, 14), 5)])
def test_the_warp_is_a_thin_plate_spline_through_the_moved_points(shape, points):
    x = images(2, *shape)
    step = step_of(x)
    found = RandomWarp(points, 0.8).vary(rows_of(x), COPIES, step)
    inner = points - 2
    units = 2 * step.draws.uniform("warp", COPIES, inner**2, 2).double().numpy() - 1
    sides = np.array(shape[1:])
    line = np.linspace(0, 1, points)
    controls = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    pixels = np.stack(np.mgrid[: sides[0], : sides[1]], -1).reshape(-1, 2)
    for b in range(2):
        for k in range(2):
            moves = np.zeros((points, points, 2))
            moves[1:-1, 1:-1] = units[b, k].reshape(inner, inner, 2) * 0.8 / (points - 1)
            spline = RBFInterpolator(
                controls.reshape(-1, 2), moves.reshape(-1, 2), kernel="thin_plate_spline", degree=1
            )
            places = (pixels + spline(pixels / (sides - 1)) * (sides - 1)).T
            for channel, seen in zip(x[b].numpy(), found[b, k].numpy(), strict=True):
                want = map_coordinates(channel, places, order=1, mode="grid-constant")
                assert np.abs(seen.flatten() - want).max() < 1e-4


def recognised(found, x, others, share, scales):
    """Which (other image, scale) a row was made of, by trying all."""
    for i in range(scales):
        for j, other in enumerate(others):
            if torch.allclose(found, (x + share * other) / 2**i):
                return j, i
    raise AssertionError("not a mixture")


@pytest.mark.parametrize("source", ["batch", "targeted", "pool", "pool without labels"])
def test_admix_mixes_in_images_of_other_classes(source):
    x, y = images(5, 2, 4, 4), torch.tensor([0, 0, 1, 2, 2])
    pool, pool_y = images(4, 2, 4, 4, seed=3), torch.tensor([2, 1, 0, 0])
    part = {
        "pool": Admix(0.3, 2, pool, pool_y),
        "pool without labels": Admix(0.3, 2, pool),
    }.get(source, Admix(0.3, 2))
    step = step_of(x, y)
    step.targeted = source == "targeted"
    found = part.vary(rows_of(x, 40), torch.arange(40), step)
    others = pool if source.startswith("pool") else x
    for b in range(5):
        seen = {recognised(row, x[b], others, 0.3, 2) for row in found[b]}
        allowed = {
            "batch": [j for j in range(5) if y[j] != y[b]],
            "targeted": [j for j in range(5) if j != b],
            "pool": [j for j in range(4) if pool_y[j] != y[b]],
            "pool without labels": range(4),
        }[source]
        assert {j for j, _ in seen} == set(allowed)
        assert {i for _, i in seen} == {0, 1}


def test_admix_as_published_means_over_all_scales_of_the_same_images():
    x, y, net = images(3), torch.arange(3), network().double()
    seen = []
    hook = net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    parts = [Admix(0.2, 1, copies=2), ScaleInvariance(3)]
    it.TransferAttack(net, steps=1, parts=parts)(x, y)
    hook.remove()
    rows = torch.cat([part.unflatten(0, (3, -1)) for part in seen], 1)
    assert rows.shape[1] == 6
    for b in range(3):
        pairs = [recognised(row, x[b], x, 0.2, 3) for row in rows[b]]
        assert [i for _, i in pairs] == [0, 0, 1, 1, 2, 2]
        assert pairs[0][0] == pairs[2][0] == pairs[4][0] != b


@pytest.mark.parametrize(
    ("labels", "part", "message"),
    [
        ([1], Admix(), "images: got a batch of one.*a pool"),
        ([1, 1], Admix(), "images: got a batch with one class"),
        ([1, 0], Admix(pool=images(2), pool_labels=torch.tensor([1, 1])), "pool_labels: got"),
    ],
)
def test_admix_without_another_class(labels, part, message):
    net = network().double()
    with pytest.raises(InputError, match=message):
        it.TransferAttack(net, steps=1, parts=[part])(images(len(labels)), torch.tensor(labels))
