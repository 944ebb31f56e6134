"""Learned embeddings of absent words, against the sentences' own games by hand."""

import pytest
import torch
from lightning import Trainer
from torch import nn

import interaction_train as it
from interaction_train.baselines import compare_baselines, learn_baseline
from interaction_train.data import TextDataModule
from interaction_train.errors import InputError
from interaction_train.game.tokens import TokenPlayers
from interaction_train.indices.exact import all_coalitions
from interaction_train.models import TextTransformer
from interaction_train.models.tokens import TokenNetwork
from interaction_train.training.baseline import BaselineLearning
from tests.words import WordNet, sentences

PAD, CLS, MASK = 0, 1, 2
IDS = torch.tensor([[CLS, 5, 6, 7, PAD], [CLS, 8, 5, 9, 4], [CLS, 3, 7, PAD, PAD]])
LABELS = torch.tensor([0, 1, 1])
FAST = {"layer": "embedding", "steps": 5, "contexts": 20, "lr": 0.3}


def network():
    torch.manual_seed(0)
    sizes = {"width": 8, "heads": 2, "layers": 1, "kept_ids": (PAD, CLS)}
    return TextTransformer(20, 2, max_length=9, **sizes).double()


def values(net, row, label, absent):
    """v of a sentence's words, by hand: what is absent shows an embedding, nothing is padded."""
    net.eval()
    row = row[row != PAD]
    whole = net.embed(row[None])
    found = []
    for present in all_coalitions(len(row) - 1):
        shown = torch.cat([torch.ones(1, dtype=torch.bool), present])[:, None]  # [CLS] always is
        logits = net.encode(torch.where(shown, whole, absent), torch.ones(1, len(row)))
        found.append((logits[0, label] - logits[0, 1 - label]).detach())
    return torch.stack(found)


def expected(net, absent):
    """Effect, Σ|I| and k90 over the sentences."""
    effects, strengths, most = [], [], []
    for row, label in zip(IDS, LABELS, strict=True):
        v = values(net, row, label, absent)
        interactions = it.dividends(v)[1:].abs()
        effects.append(float((v[-1] - v[0]).abs()))
        strengths.append(float(interactions.sum()))
        order = interactions.sort(descending=True).values.cumsum(0)
        most.append(int((order < 0.9 * order[-1]).sum()) + 1)
    return [sum(one) / len(one) for one in (effects, strengths, most)]


def test_games_of_the_learned_embedding_are_those_by_hand():
    net = network().train()
    found = learn_baseline(net, (IDS, LABELS), TokenPlayers(), **FAST)
    assert net.training
    assert found.value.shape == (8,)
    assert found.after.loss_over_effect < found.before.loss_over_effect
    words = net.embed(IDS)[IDS > CLS]
    torch.testing.assert_close(
        learn_baseline(net, (IDS, LABELS), TokenPlayers(), start=words.mean(0), **FAST).value,
        found.value,
    )
    for absent, told in ((words.mean(0), found.before), (found.value, found.after)):
        effect, strength, k90 = expected(net, absent)
        assert told.effect == pytest.approx(effect)
        assert told.strength == pytest.approx(strength)
        assert told.k90 == pytest.approx(k90)


def test_as_the_mask_s_embedding_it_is_what_masked_ids_show():
    net = network()
    found = learn_baseline(net, (IDS, LABELS), TokenPlayers(), **FAST)
    with torch.no_grad():
        net.embedding.weight[MASK] = found.value
    absent = it.input_baseline(net, None, IDS)
    v = it.exact_values(it.MaskedGame(net, IDS, absent, TokenPlayers(), "log_odds", LABELS))
    assert float((v[:, -1] - v[:, 0]).abs().mean()) == pytest.approx(found.after.effect)
    strength = it.dividends(v)[:, 1:].abs().sum(-1).mean()
    assert float(strength) == pytest.approx(found.after.strength)


def test_batches_of_other_lengths_are_the_same_sentences():
    net = network()
    whole = learn_baseline(net, (IDS, LABELS), TokenPlayers(), batch_size=3, **FAST)
    batches = [(IDS[2:, :3], LABELS[2:]), (IDS[:2], LABELS[:2])]
    parts = learn_baseline(net, batches, TokenPlayers(), batch_size=3, **FAST)
    torch.testing.assert_close(parts.value, whole.value)
    table = compare_baselines(
        net, batches, TokenPlayers(), {"mine": whole, "0": 0.0}, layer="embedding"
    )
    assert table.loc["mine", "strength"] == pytest.approx(whole.after.strength)
    effect, strength, _ = expected(net, torch.zeros(8).double())
    assert table.loc["0", "effect"] == pytest.approx(effect)
    assert table.loc["0", "strength"] == pytest.approx(strength)


def test_the_embedding_layer_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=2, pad_token_id=PAD,
    )  # fmt: skip
    bert = transformers.BertForSequenceClassification(config).double().eval()
    net = TokenNetwork(bert, MASK, PAD, [CLS])
    layer = "bert.embeddings.word_embeddings"
    found = learn_baseline(net, (IDS, LABELS), TokenPlayers(), **FAST | {"layer": layer})
    with torch.no_grad():
        bert.get_submodule(layer).weight[MASK] = found.value
    absent = it.input_baseline(net, None, IDS)
    v = it.exact_values(it.MaskedGame(net, IDS, absent, TokenPlayers(), "log_odds", LABELS))
    strength = it.dividends(v)[:, 1:].abs().sum(-1).mean()
    assert float(strength) == pytest.approx(found.after.strength)


@pytest.mark.parametrize("layer", ["layers.0.mlp", "layers.0.norm1"])
def test_what_goes_round_a_layer_is_refused(layer):
    with pytest.raises(InputError, match=r"^layer: got"):
        learn_baseline(network(), (IDS, LABELS), TokenPlayers(), **FAST | {"layer": layer})


def test_a_network_whose_padding_is_not_known_is_refused():
    ids = sentences(2, 4)  # WordNet has no pad_id, and looks at the ids for it
    with pytest.raises(InputError, match=r"^layer: got 'embedding', after which"):
        learn_baseline(WordNet(), (ids, LABELS[:2]), TokenPlayers(), **FAST)


def test_lightning_learns_on_sentences_of_different_lengths(tmp_path):
    path = tmp_path / "some.csv"
    texts = ["a good one", "bad", "not so bad at all", "good"]
    path.write_text("text,label\n" + "".join(f"{t},{k % 2}\n" for k, t in enumerate(texts * 6)))
    data = TextDataModule(path, batch_size=4)
    data.setup()
    net = TextTransformer(data.vocabulary_size, 2, width=8, heads=2, layers=1)
    module = BaselineLearning(net, TokenPlayers(), layer="embedding", contexts=2, samples=4)
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert module.learned.value.shape == (8,)
    assert isinstance(module.learned.value, torch.Tensor)
    assert not torch.equal(module.learned.value, module.shared.start)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in net.parameters())
