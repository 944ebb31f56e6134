"""Words as players, what is always present, and what an absent word shows."""

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.errors import InputError
from interaction_train.game.absence import input_baseline
from interaction_train.game.masked import MaskedGame
from interaction_train.game.tokens import TokenPlayers
from interaction_train.indices.exact import all_coalitions, dividends, exact_values
from interaction_train.sampling.random import Draws
from tests.words import CLS, MASK, PAD, WordNet, sentences


class TestTokenPlayers:
    def test_positions_of_ids_and_embeddings(self):
        players, masks = TokenPlayers(), torch.tensor([[True, False, True]])
        assert torch.equal(players.mask(masks, (3,)), masks)
        assert torch.equal(players.mask(masks, (3, 5)), masks[..., None])
        assert players.background((3,)) is None

    def test_groups_and_background(self):
        players = TokenPlayers([[3, 1], [4]])
        assert players.count((6,)) == 2
        expected = torch.tensor([True, False, True, False, True, True])
        assert torch.equal(players.mask(torch.tensor([False, True]), (6,)), expected)
        always = torch.tensor([True, False, True, False, False, True])
        assert torch.equal(players.background((6,)), always)
        assert torch.equal(players.background((6, 4)), always[:, None])

    def test_the_background_is_always_present(self):
        ids, shown = sentences(2, 5), []

        def network(rows):
            shown.append(rows)
            return torch.stack([rows.sum(1), rows[:, 0]], 1).double()

        game = MaskedGame(network, ids, MASK, TokenPlayers([[1], [3]]), "all")
        game(all_coalitions(2))
        rows = torch.cat(shown).view(2, 4, 5)
        assert torch.equal(rows[:, :, [0, 2, 4]], ids[:, None, [0, 2, 4]].expand(-1, 4, -1))
        assert (rows[:, 0, [1, 3]] == MASK).all()
        assert torch.equal(rows[:, 3], ids)

    def test_names(self):
        assert TokenPlayers().names((2,)) == ("token 0", "token 1")
        words = ["not", "good", "##ish"]
        assert TokenPlayers([[0], [1, 2]], names=words).names((3,)) == ("not", "good ##ish")

    @pytest.mark.parametrize(
        ("groups", "match"),
        [
            ([[0, 1], [1]], "groups: got position 1 2 times"),
            ([[0], [7]], "groups: got position 7, expected positions 0 … 4 of the sample"),
            ([[0], []], "groups: got"),
            (3, "groups: got 3"),
        ],
    )
    def test_bad_groups(self, groups, match):
        with pytest.raises(InputError, match=match):
            TokenPlayers(groups).count((5,))


class TestIds:
    def test_masking_ids_is_masking_embeddings(self):
        net, ids, y = WordNet(), sentences(3, 6), torch.tensor([0, 1, 2])
        by_id = MaskedGame(net, ids, MASK, TokenPlayers(), "log_odds", y)
        shown = torch.ones(3, 6, dtype=torch.bool)
        by_vector = MaskedGame(
            net.encode, net.embedding(ids), net.embedding(torch.tensor(MASK)), TokenPlayers(),
            "log_odds", y, extra={"attention_mask": shown},
        )  # fmt: skip
        torch.testing.assert_close(exact_values(by_id), exact_values(by_vector))

    def test_further_inputs_are_not_masked(self):
        net, ids, y = WordNet(), sentences(2, 5), torch.tensor([0, 1])
        shown = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
        game = MaskedGame(net, ids, MASK, TokenPlayers(), labels=y, extra={"attention_mask": shown})
        one_by_one = []
        for row in all_coalitions(5):
            rows = torch.where(row, ids, MASK)
            logits = net.encode(net.embedding(rows), shown)
            one_by_one.append(logits[[0, 1], y])
        torch.testing.assert_close(exact_values(game), torch.stack(one_by_one, 1))
        game.chunk_size = 3
        torch.testing.assert_close(exact_values(game), torch.stack(one_by_one, 1))

    def test_extra_for_a_layer_is_refused(self):
        net, ids = WordNet(), sentences(2, 5)
        suffix = it.LayerSuffix(net, "head", ids)
        with pytest.raises(InputError, match="extra: got"):
            MaskedGame(
                suffix, torch.rand(2, 6).double(), 0.0, it.UnitPlayers(), "all", extra={"a": ids}
            )
        with pytest.raises(InputError, match="extra: got a of"):
            MaskedGame(net, ids, MASK, TokenPlayers(), "all", extra={"a": ids[:1]})

    @pytest.mark.parametrize("absent", [0.5, torch.tensor(0.5), float("nan"), 2.0**70])
    def test_an_absent_token_is_an_id(self, absent):
        with pytest.raises(InputError, match="absent: got"):
            MaskedGame(WordNet(), sentences(2, 5), absent, TokenPlayers(), "all")

    @pytest.mark.parametrize("absent", [300, torch.tensor([300])])
    def test_an_absent_token_is_not_wrapped_into_another(self, absent):
        with pytest.raises(InputError, match=r"absent: .*torch.uint8"):
            MaskedGame(WordNet(), sentences(2, 5).byte(), absent, TokenPlayers(), "all")

    def test_baseline_of_the_network(self):
        ids = torch.tensor([[CLS, 5, 6, PAD], [CLS, 7, 8, 9]])
        expected = torch.tensor([[CLS, 2, 2, PAD], [CLS, 2, 2, 2]])
        assert torch.equal(input_baseline(WordNet(), None, ids), expected)
        own = torch.tensor([[CLS, 4, 4, PAD], [CLS, 4, 4, 4]])
        assert torch.equal(input_baseline(nn.Sequential(WordNet()), 4, ids), own)
        assert torch.equal(input_baseline(nn.Identity(), 4, ids), torch.full((2, 4), 4))
        for baseline, match in ((None, "no mask_id"), (0.5, "token's id"), ([1, 2], "token's id")):
            with pytest.raises(InputError, match=match):
                input_baseline(nn.Identity(), baseline, ids)

    @pytest.mark.parametrize(
        "term",
        [
            it.OrderLoss(0.0, 0.7, players=TokenPlayers()),
            it.OrderLoss(0.0, 0.7, players=TokenPlayers([[1], [2, 3]])),
            it.BandLoss(0.5, 0.3, players=TokenPlayers()),
            it.InteractionLoss(players=TokenPlayers(), group_fraction=0.2, batch_fraction=1.0),
        ],
    )
    def test_a_padded_batch_trains_as_its_sentences_alone(self, term):
        net, y = WordNet(), torch.tensor([0, 1, 2])
        ids = sentences(3, 5)
        ids[1, 3:], ids[:, 0] = PAD, CLS
        together = term(net, ids, y, step=0)
        alone = [term(net, ids[k : k + 1], y[k : k + 1], step=0) for k in range(3)]
        torch.testing.assert_close(together, torch.stack(alone).mean())
        together.backward()
        assert net.embedding.weight.grad[MASK].abs().sum() > 0

    def test_difference_of_a_padded_sentence_by_hand(self):
        term = it.OrderLoss(0.0, 1.0, players=TokenPlayers())
        net, y, ids = WordNet(), torch.tensor([1]), torch.tensor([[CLS, 5, 6, PAD, PAD]])
        empty, full = net(torch.tensor([[CLS, MASK, MASK, PAD, PAD]])), net(ids)
        expected = nn.functional.cross_entropy(full - empty, y)
        torch.testing.assert_close(term(net, ids, y), expected)


class TestExplain:
    def test_special_tokens_are_no_players(self):
        net, ids = WordNet(), sentences(2, 6)
        ids[:, 0] = CLS
        found = it.explain(net, ids, players="tokens")
        assert found.names == tuple(f"token {k}" for k in range(1, 6))
        game = MaskedGame(net, ids[:, 1:], MASK, TokenPlayers(), "log_odds", found.labels)
        game.model = lambda rows: net(torch.cat([torch.full_like(rows[:, :1], CLS), rows], 1))
        torch.testing.assert_close(found.values, exact_values(game))

    def test_padding_of_one_sample_is_a_dummy(self):
        net, ids = WordNet(), sentences(2, 5)
        ids[0, 3:] = PAD
        found = it.explain(net, ids, players="tokens")
        assert found.n == 5
        assert dividends(found.values[0].double())[8:].abs().max() < 1e-12

    def test_bad_input(self):
        with pytest.raises(InputError, match="special tokens alone"):
            it.explain(WordNet(), torch.full((1, 4), CLS), players="tokens")
        with pytest.raises(InputError, match="baseline: got None"):
            it.explain(lambda ids: ids[:, :2].double(), sentences(1, 4), players="tokens")


def test_draws_depend_on_the_ids_alone():
    ids = sentences(3, 5)
    together = Draws(it.content_hash(ids)).bits("x", 4)
    assert torch.equal(Draws(it.content_hash(ids[1:2])).bits("x", 4)[0], together[1])
