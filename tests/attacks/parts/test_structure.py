"""SIA against its definition, block by block."""

from collections import Counter

import pytest
import scipy.fft
import torch
import torch.nn.functional as F

from interaction_train.attacks.parts.blocks import blocks_along, random_cuts
from interaction_train.attacks.parts.structure import CHANGES, StructureInvariance
from interaction_train.sampling.random import to_uniform
from tests.attacks.parts.steps import bounds, images, step_of


def plain(block, change, amount, noise, dropped, eps):
    """One block ``(C, h, w)``, changed as the paper and its code define it."""
    height, width = block.shape[1:]
    if change == "vertical shift":
        return block.roll(int(amount * height), 1)
    if change == "horizontal shift":
        return block.roll(int(amount * width), 2)
    if change == "vertical flip":
        return block.flip(1)
    if change == "horizontal flip":
        return block.flip(2)
    if change == "rotation":
        return block.rot90(2, (1, 2))
    if change == "scale":
        return block * amount
    if change == "noise":
        return block + eps * noise
    if change == "resize":
        small = (int(height * 0.8) + 1, int(width * 0.8) + 1)
        less = F.interpolate(block[None], small, mode="bilinear", align_corners=False)
        return F.interpolate(less, (height, width), mode="bilinear", align_corners=False)[0]
    if change == "low pass":
        waves = scipy.fft.dctn(block.numpy(), axes=(1, 2))
        waves[:, height - int(0.4 * height) :] = 0
        waves[:, :, width - int(0.4 * width) :] = 0
        return torch.from_numpy(scipy.fft.idctn(waves, axes=(1, 2)))
    return block * (~dropped)[:, None, None] / 0.9


@pytest.mark.parametrize("change", [*CHANGES, None])
@pytest.mark.parametrize(("shape", "blocks"), [((3, 16, 16), 2), ((1, 21, 13), 3), ((3, 4, 9), 4)])
def test_every_block_is_changed_as_published(change, shape, blocks):
    x = images(6, *shape)
    part = StructureInvariance(blocks, CHANGES if change is None else [change], copies=2)
    step, copy = step_of(x, eps=0.3), torch.arange(2)
    rows = x.unsqueeze(1).expand(-1, 2, *shape)
    found = part.vary(rows, copy, step)
    sizes = shape[1] - 1, shape[2] - 1, (2 + shape[0]) * blocks**2
    rows, columns, bits = step.draws.bits("structure", copy, sum(sizes)).split(sizes, 2)
    up, left = random_cuts(rows, blocks).block, random_cuts(columns, blocks).block
    draws = to_uniform(bits).view(6, 2, 2 + shape[0], blocks, blocks)
    noise = step.noise("structure noise", copy)
    seen = set()
    for b in range(6):
        for k in range(2):
            tops, sides = bounds(up[b, k].tolist()), bounds(left[b, k].tolist())
            assert len(tops) == len(sides) == blocks + 1
            for i in range(blocks):
                for j in range(blocks):
                    inside = (
                        slice(None),
                        slice(tops[i], tops[i + 1]),
                        slice(sides[j], sides[j + 1]),
                    )
                    kind, amount, *channels = draws[b, k, :, i, j]
                    name = part.changes[int(kind * len(part.changes))]
                    seen.add(name)
                    dropped = torch.stack(channels) < 0.1
                    unit = noise[b, k][inside].double()
                    want = plain(x[b][inside], name, amount, unit, dropped, 0.3)
                    assert (found[b, k][inside] - want).abs().max() < 1e-6, name
    assert seen == set(part.changes)


def test_gradients_go_back_where_the_pixels_came_from():
    x = images(2, 2, 7, 5)
    part, step = StructureInvariance(2), step_of(x, eps=0.1)
    rows = x.unsqueeze(1).repeat(1, 6, 1, 1, 1).requires_grad_()

    def changed(rows):
        return part.vary(rows, torch.arange(6), step)

    assert torch.autograd.gradcheck(changed, rows, fast_mode=True)
    assert torch.autograd.gradgradcheck(changed, rows, fast_mode=True)


def test_cuts_are_uniform_over_all_ways_to_cut():
    x = images(400, 1, 2, 2)
    cuts = random_cuts(step_of(x).draws.bits("cuts", 5, 4), 3)
    ways = Counter(tuple(line) for line in cuts.block.flatten(0, 1).tolist())
    assert len(ways) == 6  # two of the four places between five pixels
    assert all(abs(count / 2000 - 1 / 6) < 0.04 for count in ways.values())
    for line, start, length in zip(cuts.block[0], cuts.start[0], cuts.length[0], strict=True):
        edges = bounds(line.tolist())
        firsts = [max(e for e in edges if e <= i) for i in range(5)]
        assert start.tolist() == firsts
        assert length.tolist() == [edges[edges.index(f) + 1] - f for f in firsts]


def test_the_number_of_blocks_suits_the_side():
    assert [blocks_along(side, None) for side in (1, 8, 32, 64, 65, 224)] == [1, 2, 2, 2, 3, 3]
