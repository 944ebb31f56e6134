"""Sparse decompositions, against linear programmes solved by HiGHS and games of known concepts."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from interaction_train.concepts.sparse import joint_concepts, shared, sparse_concepts
from interaction_train.concepts.transforms import values_from_and_or
from interaction_train.errors import InputError
from interaction_train.indices import all_coalitions, dividends

from .test_operators import matrix


def place(*players: int) -> int:
    return sum(1 << player for player in players)


def known_game() -> torch.Tensor:
    """Five concepts of eight players."""
    i_and, i_or = torch.zeros(2, 256, dtype=torch.float64)
    i_and[place(0, 1, 2)], i_and[place(3, 4)], i_and[place(0)] = 2, -1, 0.5
    i_or[place(4, 5, 6, 7)], i_or[place(1, 2)] = 1.5, -0.75
    return values_from_and_or(i_and, i_or)


def random_games(n: int, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(count, 1 << n, dtype=torch.float64, generator=generator)


def optimum(v: torch.Tensor, noise: float) -> float:
    """Σ|I_and| + Σ|I_or| at its least, the constant free within the bound."""
    n = v.shape[-1].bit_length() - 1
    k, cost = matrix(n).numpy(), np.ones(2 << n)
    cost[0] = 0
    bound = noise * abs(float(v[-1] - v[0]))
    both, price = np.hstack([k, -k]), np.concatenate([cost, cost])
    if bound == 0:
        return linprog(price, A_eq=both, b_eq=v.numpy()).fun
    limits = np.concatenate([v.numpy() + bound, bound - v.numpy()])
    return linprog(price, A_ub=np.vstack([both, -both]), b_ub=limits).fun


def test_the_known_concepts_come_back():
    v = known_game()
    assert int((dividends(v).abs() > 1e-9).sum()) == 21
    assert float(dividends(v).abs().sum()) == pytest.approx(28.25)
    found = sparse_concepts(v, noise=0)
    assert float(found.objective) == pytest.approx(5.75, abs=1e-9)
    expected_and, expected_or = torch.zeros(2, 256, dtype=torch.float64)
    expected_and[place(0, 1, 2)], expected_and[place(3, 4)], expected_and[place(0)] = 2, -1, 0.5
    expected_or[place(4, 5, 6, 7)], expected_or[place(1, 2)] = 1.5, -0.75
    torch.testing.assert_close(found.and_, expected_and, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.or_, expected_or, rtol=0, atol=1e-9)
    assert int((found.and_ != 0).sum() + (found.or_ != 0).sum()) == 5


def test_the_known_concepts_come_back_under_noise():
    generator = torch.Generator().manual_seed(1)
    noise = 0.02 * torch.randn(4, 256, dtype=torch.float64, generator=generator)
    v = known_game() + noise
    bound = 0.06 / (v[:, -1] - v[:, 0]).abs()
    for game, share in zip(v, bound, strict=True):
        found = sparse_concepts(game, noise=float(share))
        large = torch.stack([found.and_, found.or_]).abs() > 0.1
        assert int(large.sum()) == 5
        assert bool(large[0, [place(0, 1, 2), place(3, 4), place(0)]].all())


@pytest.mark.parametrize("n", [2, 4, 6, 8])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_the_certificate_holds(n, noise):
    v = random_games(n)
    found = sparse_concepts(v, noise)
    best = torch.tensor([optimum(game, noise) for game in v], dtype=torch.float64)
    assert bool(found.converged.all())
    assert bool((found.objective <= 1.01 * best + 1e-9).all())
    assert bool((found.lower_bound <= best * (1 + 1e-6) + 1e-9).all())
    reach = (v[:, -1] - v[:, 0]).abs()
    assert bool((found.violation <= 1e-6 * reach).all())
    off = (found.values() - v).abs().amax(-1)
    torch.testing.assert_close((off - noise * reach).clamp(min=0), found.violation)
    total = found.and_.abs().sum(-1) + found.or_.abs().sum(-1)
    torch.testing.assert_close(total, found.objective)
    single = all_coalitions(n).sum(-1) <= 1
    assert not found.or_[:, single].any()
    assert not found.and_[:, 0].any()


def test_samples_do_not_depend_on_their_batch():
    v = random_games(6, 16)
    together = sparse_concepts(v)
    for at in (0, 7, 15):
        alone = sparse_concepts(v[at])
        assert int(alone.steps) == int(together.steps[at])
        torch.testing.assert_close(alone.and_, together.and_[at], atol=1e-6, rtol=0)
        torch.testing.assert_close(alone.lower_bound, together.lower_bound[at])
    nested = sparse_concepts(v.view(4, 2, 2, -1))
    assert nested.and_.shape == (4, 2, 2, 64)
    assert nested.converged.shape == nested.constant.shape == (4, 2, 2)
    torch.testing.assert_close(nested.or_.view(16, -1), together.or_, atol=1e-6, rtol=0)


def test_permuting_players_permutes_the_concepts():
    v, order = known_game() + 0.3 * random_games(8, 1)[0], torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    moved = (all_coalitions(8).long()[:, order] << torch.arange(8)).sum(-1)
    # Coalition S of the new game holds player k where S holds player order[k] of the old one.
    plain, permuted = sparse_concepts(v), sparse_concepts(v[moved])
    torch.testing.assert_close(permuted.objective, plain.objective, rtol=0.01, atol=0)
    torch.testing.assert_close(permuted.lower_bound, plain.lower_bound, rtol=0.01, atol=0)
    strong = plain.and_.abs() > 0.3
    inverse = moved.argsort()
    torch.testing.assert_close(permuted.and_[inverse][strong], plain.and_[strong], atol=0.1, rtol=0)


def test_an_additive_game_has_a_concept_for_each_player():
    effects = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25], dtype=torch.float64)
    v = 7 + all_coalitions(5).double() @ effects
    found = sparse_concepts(v, noise=0)
    assert int((found.and_ != 0).sum()) == 5
    assert not found.or_.any()
    torch.testing.assert_close(found.and_[2 ** torch.arange(5)], effects)
    assert float(found.constant) == pytest.approx(7)


def test_a_constant_game_has_none():
    found = sparse_concepts(torch.full((2, 16), 3.0), noise=0)
    assert not found.and_.any()
    assert not found.or_.any()
    assert found.converged.all()
    assert found.constant.tolist() == [3, 3]


def test_scale_and_offset_change_nothing_else():
    v = random_games(5, 1)[0]
    plain, large = sparse_concepts(v), sparse_concepts(1000 * v - 5)
    torch.testing.assert_close(large.objective, 1000 * plain.objective)
    torch.testing.assert_close(large.and_, 1000 * plain.and_, atol=1e-5, rtol=0)


def test_values_of_single_precision():
    v = known_game().float()
    found = sparse_concepts(v)
    assert found.and_.dtype == found.objective.dtype == torch.float32
    assert float(found.violation) <= 1e-6 * float(v.abs().max())


def test_too_few_steps_are_said():
    v = random_games(6)
    with pytest.warns(UserWarning, match=r"3 of 3 samples have not converged .* largest gap is"):
        found = sparse_concepts(v, max_steps=5)
    assert not found.converged.any()
    assert found.steps.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": -0.1}, r"noise: got -0.1, expected in \[0, 1\)"),
        ({"noise": 1.0}, "noise: got 1.0"),
        ({"noise": float("nan")}, "noise: got nan"),
        ({"tolerance": 0.0}, "tolerance: got 0.0"),
        ({"max_steps": 0}, "max_steps: got 0"),
        ({"v": torch.zeros(3)}, "v: got"),
        ({"v": torch.zeros(8, dtype=torch.int64)}, "v: got"),
        ({"v": torch.zeros(0, 8)}, "v: got shape"),
        ({"v": torch.zeros(1)}, "v: got"),
        ({"v": torch.tensor([0.0, float("inf"), 1.0, 2.0])}, "v: got values that are not finite"),
        ({"v": torch.ones(4)}, r"v: got v\(N\) = v\(∅\) = 1 in sample 0, expected another value"),
    ],
)
def test_bad_input(change, message):
    settings = {"v": random_games(3, 1)[0], **change}
    with pytest.raises(InputError, match=message):
        sparse_concepts(settings.pop("v"), **settings)


def pair_of_games() -> torch.Tensor:
    """Two networks that share {0, 1} and {2, 3, 4}; each has one of its own."""
    i_and = torch.zeros(2, 1, 64, dtype=torch.float64)
    i_or = torch.zeros_like(i_and)
    i_and[:, 0, place(0, 1)] = torch.tensor([1.0, 0.8], dtype=torch.float64)
    i_or[:, 0, place(2, 3, 4)] = torch.tensor([-0.6, -0.9], dtype=torch.float64)
    i_and[0, 0, place(1, 5)] = 0.7
    i_and[1, 0, place(0, 2, 5)] = 0.5
    return values_from_and_or(i_and, i_or)


@pytest.mark.parametrize("noise", [0.5, 0.7])
def test_where_a_constant_nearly_does(noise):
    """The optimum is 0, or small beside the values: each as HiGHS has it, proven."""
    sizes = all_coalitions(4).sum(1).double()
    tails = torch.Generator().manual_seed(3)
    heavy = (4 * torch.randn(4, 16, dtype=torch.float64, generator=tails)).exp()
    v = torch.cat([random_games(4), heavy, sizes[None], (sizes > 2).double()[None]])
    found = sparse_concepts(v, noise=noise)
    best = torch.tensor([optimum(one, noise) for one in v])
    assert float(best.min()) == 0 < float(best.max())
    assert found.converged.all()
    assert (found.objective <= 1.02 * best + 1e-9).all()
    assert (found.lower_bound <= best * (1 + 1e-9) + 1e-9).all()
    assert (found.violation <= 1e-6 * v.abs().amax(-1)).all()
    assert (found.objective[best == 0] == 0).all()


def test_shared_concepts_are_found():
    found = joint_concepts(pair_of_games(), noise=0)
    i_and, i_or = shared(found)
    assert i_and.nonzero().tolist() == [[0, place(0, 1)]]
    assert i_or.nonzero().tolist() == [[0, place(2, 3, 4)]]
    assert found.and_.shape == (2, 1, 64)
    assert found.objective.tolist() == pytest.approx([0.5 * (1 + 0.9 + 1.2) + 0.5 * 4.5])


def joint_optimum(vs: torch.Tensor, alpha: float) -> float:
    """The joint programme of one sample as HiGHS solves it."""
    n = vs.shape[-1].bit_length() - 1
    k, m, size = matrix(n).numpy(), len(vs), 2 << n
    each = 2 * size  # x = p − q of every network, and then the largest of them
    cost = np.concatenate([np.full(m * each, alpha), np.full(size, 1 - alpha)])
    cost[[*range(0, m * each, size), m * each]] = 0
    equal = np.zeros((m << n, len(cost)))
    largest = np.zeros((m * size, len(cost)))
    for at in range(m):
        rows = slice(at << n, (at + 1) << n)
        equal[rows, at * each : (at + 1) * each] = np.hstack([k, -k])
        rows = slice(at * size, (at + 1) * size)
        largest[rows, at * each : (at + 1) * each] = np.hstack([np.eye(size), np.eye(size)])
        largest[rows, m * each :] = -np.eye(size)
    return linprog(
        cost, A_ub=largest, b_ub=np.zeros(m * size), A_eq=equal, b_eq=vs.flatten().numpy()
    ).fun


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_joint_certificate(alpha):
    vs = random_games(4, 3).view(3, 1, 16)
    found = joint_concepts(vs, noise=0, alpha=alpha)
    best = joint_optimum(vs[:, 0], alpha)
    assert float(found.objective) <= 1.01 * best
    assert float(found.lower_bound) <= best * (1 + 1e-6)
    torch.testing.assert_close(found.values(), vs, atol=1e-6, rtol=0)


def test_one_network_or_full_price_is_each_by_itself():
    v = random_games(5, 2)
    alone, joint = sparse_concepts(v), joint_concepts(v.unsqueeze(0), alpha=0.2)
    torch.testing.assert_close(joint.and_[0], alone.and_)
    torch.testing.assert_close(joint.objective, alone.objective)
    both = joint_concepts(v.unsqueeze(1), alpha=1.0)
    assert float(both.objective) == pytest.approx(float(alone.objective.sum()), rel=0.01)


def test_joint_bad_input():
    with pytest.raises(InputError, match=r"vs: got shape .* networks first"):
        joint_concepts(random_games(4))
    with pytest.raises(InputError, match="alpha: got 2"):
        joint_concepts(random_games(4).unsqueeze(1), alpha=2)


def test_arrays_are_no_tensors():
    with pytest.raises(InputError, match="v: got ndarray"):
        sparse_concepts(random_games(4).numpy())


def test_interactions_beyond_the_dtype():
    v = torch.tensor([0, 6e4, -6e4, 6e4, 6e4, -6e4, 6e4, 6e4])
    assert sparse_concepts(v).objective > 1e5
    with pytest.raises(InputError, match=r"beyond torch\.float16"):
        sparse_concepts(v.half())
