"""Stateless draws: where they agree, and that they are random where they must differ."""

import itertools
import math

import pytest
import torch

from interaction_train.errors import InputError
from interaction_train.sampling.random import Draws, content_hash, to_uniform


def draws_of(batch=4, seed=0, name="term", step=0):
    return Draws(content_hash(torch.arange(float(batch))[:, None]), seed, name, step)


def score(observed, expected):
    """Chi-square in standard deviations above its mean, for counts and their expectations."""
    observed = observed.double().flatten()
    expected = torch.as_tensor(expected, dtype=torch.float64).expand_as(observed)
    assert expected.min() >= 5
    freedom = len(observed) - 1
    return (float(((observed - expected) ** 2 / expected).sum()) - freedom) / (2 * freedom) ** 0.5


def unbits(words):
    """``(..., 64)`` single bits."""
    return words.unsqueeze(-1) >> torch.arange(64) & 1


def agreement(a, b):
    """How far the share of equal bits is from a half, in standard deviations."""
    equal = (unbits(a) == unbits(b)).double()
    return abs(float(equal.mean()) - 0.5) * 2 * equal.numel() ** 0.5


class TestSameDraws:
    def test_order_and_subset_of_the_batch(self):
        draws, order = draws_of(6), torch.tensor([4, 1, 5])
        whole = draws.bits("s", 3, 2)
        assert whole.shape == (6, 3, 2)
        assert whole.dtype == torch.int64
        part = Draws(draws.content[order], draws.seed, draws.name, draws.step)
        assert torch.equal(part.bits("s", 3, 2), whole[order])

    def test_equal_samples_draw_equally(self):
        x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
        draws = Draws(content_hash(x[[0, 1, 0]]))
        bits = draws.bits("s", 5)
        assert torch.equal(bits[0], bits[2])
        assert not torch.equal(bits[0], bits[1])

    def test_repeated_calls(self):
        assert torch.equal(draws_of().bits("s", 7), draws_of().bits("s", 7))

    def test_longer_axes_begin_alike(self):
        short, long = draws_of().bits("s", 3, 4), draws_of().bits("s", 9, 11)
        assert torch.equal(short, long[:, :3, :4])

    def test_parts_of_an_axis(self):
        whole = draws_of().bits("s", 10, 6)
        assert torch.equal(draws_of().bits("s", range(3, 7), 6), whole[:, 3:7])
        assert torch.equal(draws_of().bits("s", range(1, 10, 4), range(2, 5)), whole[:, 1::4, 2:5])
        index = torch.tensor([8, 0, 0, 5])
        assert torch.equal(draws_of().bits("s", index, 6), whole[:, index])
        assert torch.equal(draws_of().bits("s", 10, index.clamp(max=5)), whole[..., [5, 0, 0, 5]])

    def test_no_axes(self):
        assert draws_of(3).bits("s").shape == (3,)

    def test_uniform_reads_the_low_24_bits(self):
        bits = draws_of().bits("s", 100)
        values = draws_of().uniform("s", 100)
        assert values.dtype == torch.float32
        expected = [[(b % 2**24) / 2**24 for b in row] for row in bits.tolist()]
        assert values.double().tolist() == expected

    def test_uniform_stays_below_one(self):
        extremes = torch.tensor([0, -1, 2**24 - 1, -(2**63), 2**63 - 1])
        assert to_uniform(extremes).tolist() == [0, 1 - 2**-24, 1 - 2**-24, 0, 1 - 2**-24]

    def test_values_are_pinned(self):
        # Runs must be repeatable across releases: change these only on purpose.
        draws = Draws(torch.tensor([0, 123456789]), seed=1, name="a", step=2)
        assert draws.bits("s", 2).tolist() == PINNED_BITS
        assert content_hash(torch.tensor([[1.0, 2.0], [0.0, 0.0]])).tolist() == PINNED_HASHES

    def test_global_random_state_is_untouched(self):
        before = torch.get_rng_state()
        draws = draws_of(8)
        draws.bits("s", 10)
        draws.uniform("u", 10)
        assert torch.equal(torch.get_rng_state(), before)

    def test_global_seed_is_not_read(self):
        torch_state = torch.get_rng_state()
        try:
            torch.manual_seed(1)
            first = draws_of().bits("s", 5)
            torch.manual_seed(2)
            assert torch.equal(draws_of().bits("s", 5), first)
        finally:
            torch.set_rng_state(torch_state)


PINNED_BITS = [
    [-2080698546476558331, -5234871867711255895],
    [-6398363729347018390, -9063231200118023013],
]
PINNED_HASHES = [-117759426224367762, 3031542296647496346]

OTHERS = {
    "seed": draws_of(64, seed=1).bits("s", 64),
    "negative seed": draws_of(64, seed=-1).bits("s", 64),
    "name": draws_of(64, name="other").bits("s", 64),
    "step": draws_of(64, step=1).bits("s", 64),
    "stream": draws_of(64).bits("t", 64),
    "content": draws_of(64).bits("s", 64).roll(1, 0),
    "draw": draws_of(64).bits("s", 64).roll(1, 1),
    "deeper axis": draws_of(64).bits("s", 64, 1)[..., 0],
}


class TestIndependence:
    @pytest.mark.parametrize("what", OTHERS)
    def test_bits_of_different_draws_agree_by_half(self, what):
        assert agreement(draws_of(64).bits("s", 64), OTHERS[what]) < 4

    @pytest.mark.parametrize("what", OTHERS)
    def test_correlation_of_uniform_numbers(self, what):
        a, b = to_uniform(draws_of(64).bits("s", 64)), to_uniform(OTHERS[what])
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(float(correlation)) < 4 / 64

    @pytest.mark.parametrize("what", OTHERS)
    def test_joint_distribution_of_uniform_numbers(self, what):
        a, b = to_uniform(draws_of(64).bits("s", 64)), to_uniform(OTHERS[what])
        cell = (a * 16).long() * 16 + (b * 16).long()
        assert abs(score(cell.flatten().bincount(minlength=256), 64 * 64 / 256)) < 4

    def test_neighbouring_contents(self):
        # Raw counters as content: the hash must spread even those.
        bits = Draws(torch.arange(4096)).bits("s", 2)
        assert agreement(bits[1:], bits[:-1]) < 4
        assert agreement(bits[..., 0], bits[..., 1]) < 4

    def test_names_and_streams_do_not_run_together(self):
        content = torch.arange(3)
        first = Draws(content, 0, "a|1", 2).bits("s", 2)
        second = Draws(content, 0, "a", 1).bits("2|s", 2)
        assert not torch.equal(first, second)
        assert not torch.equal(
            Draws(content, 1, "1", 1).bits("s"), Draws(content, 11, "", 1).bits("s")
        )

    def test_content_and_root_are_not_merely_added(self):
        # Two seeds must not give the same rows in another order.
        a = Draws(torch.arange(512), seed=0).bits("s")
        b = Draws(torch.arange(512), seed=1).bits("s")
        assert len(set(a.tolist()) & set(b.tolist())) == 0

    def test_no_two_cells_are_equal(self):
        bits = Draws(torch.arange(100)).bits("s", 50, 20).flatten()
        assert len(bits.unique()) == len(bits)


class TestDistribution:
    bits = Draws(torch.arange(256)).bits("s", 256)

    def test_every_bit_is_fair(self):
        counts = unbits(self.bits).double().mean((0, 1))
        assert float((counts - 0.5).abs().max()) * 2 * 256 < 4.5

    @pytest.mark.parametrize("shift", range(0, 64, 8))
    def test_every_byte_is_uniform(self, shift):
        counts = (self.bits >> shift & 255).flatten().bincount(minlength=256)
        assert abs(score(counts, 256)) < 4

    def test_bits_of_a_number_are_uncorrelated(self):
        table = torch.corrcoef(unbits(self.bits).double().flatten(0, 1).T)
        table.fill_diagonal_(0)
        assert float(table.abs().max()) < 5 / 256

    def test_uniform_numbers(self):
        values = to_uniform(self.bits)
        assert abs(score((values * 64).long().flatten().bincount(minlength=64), 1024)) < 4
        assert abs(float(values.mean()) - 0.5) < 4 / 12**0.5 / 256
        assert abs(float(values.var()) - 1 / 12) < 0.003

    def test_neighbours_along_both_axes(self):
        values = (to_uniform(self.bits) * 16).long()
        for a, b in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
            cells = (a * 16 + b).flatten()
            assert abs(score(cells.bincount(minlength=256), len(cells) / 256)) < 4


REAL_TYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


class TestContentHash:
    def images(self, dtype=torch.float32, batch=6):
        x = torch.rand(batch, 3, 5, 4, generator=torch.Generator().manual_seed(0))
        return x > 0.5 if dtype == torch.bool else (x * 100).to(dtype)

    @pytest.mark.parametrize("dtype", REAL_TYPES)
    def test_dtypes(self, dtype):
        x = self.images(dtype)
        hashes = content_hash(x)
        assert hashes.shape == (6,)
        assert hashes.dtype == torch.int64
        assert len(hashes.unique()) == 6
        assert torch.equal(content_hash(x.clone()), hashes)
        assert torch.equal(content_hash(x[2:4]), hashes[2:4])

    @pytest.mark.parametrize("dtype", REAL_TYPES)
    def test_one_changed_element_changes_the_hash(self, dtype):
        x = self.images(dtype)
        hashes = content_hash(x)
        for place in itertools.product(range(3), range(5), range(4)):
            changed = x.clone()
            at = (slice(None), *place)
            changed[at] = ~changed[at] if dtype == torch.bool else changed[at] + 1
            assert (content_hash(changed) != hashes).all()

    def test_least_changes_of_a_float(self):
        x = self.images()
        up = x.clone()
        up[:, 0, 0, 0] = torch.nextafter(x[:, 0, 0, 0], torch.tensor(math.inf))
        assert (content_hash(up) != content_hash(x)).all()
        signed = torch.zeros(1, 4)
        assert content_hash(signed) != content_hash(-signed)  # exact bytes, so -0 is not 0

    @pytest.mark.parametrize("dtype", REAL_TYPES)
    def test_order_of_elements_matters(self, dtype):
        x = torch.eye(8).to(dtype)  # the same elements in each row
        assert len(content_hash(x).unique()) == 8

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_signs_matter(self, dtype):
        # All 2^10 sign patterns of a sample; a linear hash of the words loses pairs of signs.
        signs = 1 - 2 * (torch.arange(1024)[:, None] >> torch.arange(10) & 1)
        assert len(content_hash((signs * 0.5).to(dtype)).unique()) == 1024

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_small_integers_as_floats(self, dtype):
        # Their words end in many zero bits. 4^7 different samples, and no collision.
        values = torch.arange(4**7)[:, None] >> torch.arange(0, 14, 2) & 3
        assert len(content_hash(values.to(dtype)).unique()) == 4**7

    def test_hashes_are_uniform(self):
        values = (torch.arange(4096)[:, None] >> torch.arange(12) & 1).double()
        hashes = content_hash(values)
        for shift in (0, 20, 56):
            counts = (hashes >> shift & 63).bincount(minlength=64)
            assert abs(score(counts, 64)) < 4

    def test_memory_layout_does_not_matter(self):
        x = self.images()
        hashes = content_hash(x)
        assert torch.equal(content_hash(x.to(memory_format=torch.channels_last)), hashes)
        assert torch.equal(content_hash(x.transpose(2, 3).contiguous().transpose(2, 3)), hashes)
        wide = torch.stack([x, -x], -1).flatten(-2)[..., ::2]
        assert not wide.is_contiguous()
        assert torch.equal(content_hash(wide), hashes)
        assert torch.equal(content_hash(x[:1].expand(3, -1, -1, -1)), hashes[:1].expand(3))

    def test_transposed_content_is_other_content(self):
        x = self.images()
        assert (content_hash(x.transpose(2, 3)) != content_hash(x)).all()

    def test_number_of_elements_matters(self):
        lengths = [content_hash(torch.zeros(1, k)).item() for k in range(5)]
        assert len(set(lengths)) == 5

    def test_flat_and_empty_batches(self):
        assert len(content_hash(torch.arange(5)).unique()) == 5
        assert content_hash(torch.zeros(0, 3, 2)).shape == (0,)

    def test_no_gradient(self):
        x = self.images().requires_grad_()
        assert torch.equal(content_hash(x), content_hash(x.detach()))

    @pytest.mark.parametrize("x", [torch.tensor(1.0), torch.zeros(2, 3, dtype=torch.complex64)])
    def test_refuses(self, x):
        with pytest.raises(InputError, match=r"x: got .* expected a real batch"):
            content_hash(x)
