"""Networks of Hugging Face, tiny and untrained, in games."""

import json

import pytest
import torch
from torch import nn

import interaction_train as it
from interaction_train.cli.main import main
from interaction_train.errors import InputError
from interaction_train.models import TokenNetwork, hugging_face
from tests.testing import run_cli

transformers = pytest.importorskip("transformers")
CLS, SEP, MASK = 1, 2, 4


def bert(seed=0):
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, num_labels=3, initializer_range=1.0,
    )  # fmt: skip
    torch.manual_seed(seed)
    return transformers.BertForSequenceClassification(config).double()


def wrapped():
    return TokenNetwork(bert(), MASK, kept_ids=(CLS, SEP))


def sentences(batch, length):
    ids = torch.randint(5, 40, (batch, length), generator=torch.Generator().manual_seed(length))
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids


def test_logits_are_the_models_own_and_do_not_depend_on_padding():
    net, ids = wrapped().eval(), sentences(2, 6)
    direct = net.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(net(ids), direct)
    torch.testing.assert_close(net(nn.functional.pad(ids, (0, 4))), direct)
    shown = torch.tensor([[1, 1, 1, 0, 0, 0]] * 2)
    own = net.model(input_ids=ids, attention_mask=shown).logits
    torch.testing.assert_close(net(ids, attention_mask=shown), own)


def test_sentences_of_different_lengths_in_one_call():
    net, games = wrapped(), []
    for length in (5, 8, 11):
        players = it.TokenPlayers([[k] for k in range(1, length - 1)])
        ids, y = sentences(1, length), torch.tensor([1])
        games.append(it.MaskedGame(net, ids, MASK, players, "log_odds", y))
    together = it.exact_values(it.GameBatch(games, pad=net.pad_id))
    for game, values in zip(games, together, strict=True):
        assert values.shape == (1, 2**game.n)
        assert values.std() > 0.01
        torch.testing.assert_close(values, it.exact_values(game))


def test_explain_and_losses():
    net, ids = wrapped(), sentences(2, 7)
    found = it.explain(net, ids, players="tokens")
    assert found.n == 5
    only = torch.where(torch.arange(7) == 3, ids, ids.masked_fill(ids > SEP, MASK))
    with torch.no_grad():
        logits = net.eval()(only)
    own = torch.stack([-torch.log(torch.expm1(-logits.log_softmax(1)[k, y]))
                       for k, y in enumerate(found.labels)])  # fmt: skip
    torch.testing.assert_close(found.values[:, 0b100], own)
    term = it.OrderLoss(0.0, 0.5, players=it.TokenPlayers())
    term(net, ids, torch.tensor([0, 2])).backward()
    weight = net.model.bert.embeddings.word_embeddings.weight
    assert weight.grad[MASK].abs().sum() > 0


def saved(tmp_path):
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{k}" for k in range(35))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    model = bert().float()
    model.save_pretrained(tmp_path)
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    return model


def test_from_a_folder(tmp_path):
    model = saved(tmp_path)
    net = hugging_face(str(tmp_path))
    assert (net.mask_id, net.pad_id, set(net.kept_ids)) == (MASK, 0, {0, CLS, SEP})
    ids = sentences(2, 6)
    torch.testing.assert_close(net.eval()(ids), model.eval()(ids).logits)
    with pytest.raises(InputError, match="name: got"):
        hugging_face(str(tmp_path / "missing"))


def test_bad_input():
    with pytest.raises(InputError, match="model: got Linear"):
        TokenNetwork(nn.Linear(2, 2), 1)
    with pytest.raises(InputError, match="mask_id"):
        TokenNetwork(bert(), -1)
    model = bert()
    model.config.pad_token_id = None
    with pytest.raises(InputError, match="pad_id: got None"):
        TokenNetwork(model, MASK)


def test_by_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    saved(tmp_path / "bert")
    rows = [f"w{k % 30} w{k % 7}\t{k % 3}" for k in range(60)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    named = {"init_args": {"name": "bert"}}
    network = {"class_path": "interaction_train.models.tokens.hugging_face", **named}
    tokenizer = {"class_path": "interaction_train.data.HuggingFaceTokenizer", **named}
    data = {
        "class_path": "TextDataModule",
        "init_args": {"source": "mine.tsv", "tokenizer": tokenizer, "max_length": 16},
    }
    loss = {"class_path": "OrderLoss", "init_args": {"r1": 0.0, "r2": 0.5}}
    loss["init_args"]["players"] = {"class_path": "TokenPlayers"}
    module = {
        "class_path": "InteractionClassifier",
        "init_args": {"num_classes": 3, "model": network, "losses": {"low": {"term": loss}}},
    }
    (tmp_path / "fit.yaml").write_text(json.dumps({"model": module, "data": data}))
    run_cli("fit", "--config", "fit.yaml", "--trainer.fast_dev_run", "2")
    job = {"model": network, "data": data, "text": ["w3 w4 w5"], "count": 3}
    (tmp_path / "explain.yaml").write_text(json.dumps(job))
    main(["explain", "--config", "explain.yaml", "--accelerator", "cpu"])
    assert "all 8 coalitions of 3 players" in capsys.readouterr().out
    assert "w4" in (tmp_path / "explained" / "sentence0" / "tree.txt").read_text()
