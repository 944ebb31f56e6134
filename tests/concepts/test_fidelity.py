"""What a few concepts explain, against definitions; objective explanations."""

import pytest
import torch

from interaction_train.concepts.fidelity import fidelity, same_interactions, strength_by_order
from interaction_train.concepts.selection import select_concepts
from interaction_train.errors import InputError
from interaction_train.indices.exact import all_coalitions
from tests.concepts.games import exact_game, made_of, only_dividends, random_game, row


def test_the_exact_game():
    """Strengths 2, 1.5, 1, .75, .5, of 5.75 in all; signed from the third on: −1.25."""
    found = fidelity(*exact_game(), counts=[1, 2, 5, 512])
    assert found.counts == (1, 2, 5, 512)
    shares = torch.tensor([[2 / 5.75, 3.5 / 5.75, 1, 1]]).double()
    torch.testing.assert_close(found.explained_share, shares)
    ratios = torch.tensor([[2 / (2 + 0.25), 3.5 / (3.5 + 1.25), 1, 1]]).double()
    torch.testing.assert_close(found.explain_ratio, ratios)
    assert found.k90.tolist() == [4]  # 5.25 of 5.75
    assert found.salient.tolist() == [5]
    torch.testing.assert_close(found.r2[0, 2:], torch.ones(2).double())


def test_the_exact_game_looks_dense_to_dividends():
    found = fidelity(only_dividends(exact_game()[1]), exact_game()[1], [5])
    assert found.salient.tolist() == [21]
    assert float(found.r2) < 0.5 < 0.99 < float(fidelity(*exact_game(), [5]).r2)


def test_each_count_is_that_of_its_selection():
    concepts, v = random_game(5)
    counts = [1, 7, 20]
    found = fidelity(concepts, v, counts)
    for c, count in enumerate(counts):
        raw = select_concepts(concepts, v, count=count, refit=False)
        torch.testing.assert_close(found.r2[:, c], raw.r2)
        refitted = select_concepts(concepts, v, count=count)
        torch.testing.assert_close(found.r2_refitted[:, c], refitted.r2)
    assert bool((found.r2_refitted[:, 1:] > found.r2_refitted[:, :-1]).all())


def test_k90_and_salient_by_definition():
    concepts, v = random_game(5)
    found = fidelity(concepts, v, [3])
    for b in range(3):
        both = torch.cat([concepts.and_[b], concepts.or_[b]]).abs().sort(descending=True).values
        slow = next(k for k in range(64) if both[:k].sum() >= 0.9 * both.sum())
        assert int(found.k90[b]) == slow
        assert int(found.salient[b]) == sum(x > 0.05 * both[0] for x in both)


def test_a_tenth_exactly_left_out_is_left_out():
    """11.7 of 13, which rounding puts below .9 * 13."""
    concepts, v = made_of(row({(0,): 5.8, (1,): 5.9, (0, 1): 1.3}, 2), torch.zeros(4).double())
    assert fidelity(concepts, v, [1]).k90.tolist() == [2]


def test_one_sample_without_a_batch():
    concepts, v = random_game(4)
    alone, w = made_of(concepts.and_[1], concepts.or_[1], concepts.constant[1])
    assert fidelity(alone, w, [2]).r2.shape == (1, 1)
    torch.testing.assert_close(fidelity(alone, w, [2]).r2[0], fidelity(concepts, v, [2]).r2[1])


def test_a_game_without_interactions():
    v = torch.full((2, 8), 0.5)
    found = fidelity(only_dividends(v), v, [1, 2])
    assert found.k90.tolist() == found.salient.tolist() == [0, 0]
    nan = [found.r2, found.r2_refitted, found.explained_share, found.explain_ratio]
    assert all(bool(t.isnan().all()) for t in nan)


def test_all_interactions_are_objective_and_a_few_are_not():
    concepts, v = random_game(5)
    assert same_interactions(concepts.values(), v, 1e-9).tolist() == [True] * 3
    everything = select_concepts(concepts, v, count=64, refit=False)
    assert same_interactions(everything(all_coalitions(5)), v, 1e-9).tolist() == [True] * 3
    few = select_concepts(concepts, v, count=20)
    assert same_interactions(few(all_coalitions(5)), v, 1e-2).tolist() == [False] * 3


def test_sameness_is_by_sample_and_tolerance():
    v = random_game(4)[1]
    u = v.clone()
    u[1, 0b0110] += 0.25  # moves the dividends of its four supersets by as much
    assert same_interactions(u, v, 0.2).tolist() == [True, False, True]
    assert same_interactions(u, v, 0.25 + 1e-9).tolist() == [True] * 3


def test_bad_input_is_refused():
    concepts, v = random_game(3)
    for counts in ([], [0], [3, 17]):
        with pytest.raises(InputError, match="counts: got"):
            fidelity(concepts, v, counts)
    with pytest.raises(InputError, match="v: got"):
        fidelity(concepts, v[:2], [1])
    for u, w, tol in ((v[:1], v, 1), (v[:, :7], v, 1), (v, v[:, :7], 1), (v, v, -1)):
        with pytest.raises(InputError):
            same_interactions(u, w, tol)


def test_strength_by_order():
    interactions = torch.tensor([5.0, 1.0, -2.0, -4.0, 0.5, 0.0, 3.0, -7.0]).expand(2, -1)
    assert strength_by_order(interactions).tolist() == [[3.5, 7.0, 7.0]] * 2
