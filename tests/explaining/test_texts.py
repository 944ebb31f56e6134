"""Sentences explained together, each against itself alone; words, pieces and trees."""

import json

import pytest
import torch

import interaction_train as it
from interaction_train.data import TableDataModule, TextDataModule
from interaction_train.data.vocabulary import Vocabulary
from interaction_train.errors import InputError
from interaction_train.explaining.job import explain_samples
from interaction_train.explaining.sentences import read_sentence
from interaction_train.models import TableMLP, TextTransformer, TokenNetwork

TEXTS = ["the film was not very good", "good film", "a hero is hardly so bad"]
WORDS = Vocabulary.build([text.split() for text in TEXTS])


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TextTransformer(len(WORDS), max_length=16, width=16).double()


def pieces(tmp_path):
    """A tokenizer of Hugging Face that splits "goodish" into two pieces."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "not", "good", "##ish", "film", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    return transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))


class TestSentences:
    def test_words_between_spaces(self):
        found = read_sentence("the  film", vocabulary=WORDS)
        assert found.names == ["the", "film"]
        assert found.ids.tolist() == WORDS.encode(["the", "film"])
        assert read_sentence(["the", "film"], vocabulary=WORDS).ids.tolist() == found.ids.tolist()

    def test_own_tokenizer(self):
        found = read_sentence("not-good", lambda text: text.split("-"), WORDS)
        assert found.names == ["not", "good"]

    def test_pieces_of_a_word_are_one_player(self, tmp_path):
        tokenizer = pieces(tmp_path)
        found = read_sentence("not Goodish!", tokenizer)
        assert found.names == ["not", "Goodish", "!"]
        assert found.ids.tolist() == [2, 5, 6, 7, 9, 3]  # [CLS] not good ##ish ! [SEP]
        assert found.players.groups == [[1], [2, 3], [4]]
        assert read_sentence(["not", "goodish", "!"], tokenizer).players.groups == [
            [1],
            [2, 3],
            [4],
        ]

    def test_words_that_the_vocabulary_has_not(self):
        found = read_sentence("the movie is a movie", vocabulary=WORDS)
        assert found.unknown == ("movie",)
        with pytest.warns(UserWarning, match="the movie': not in the vocabulary: movie"):
            it.explain_texts(network(), ["the movie"], vocabulary=WORDS)

    def test_bad_input(self):
        for text, vocabulary, match in (("", WORDS, "texts: got ''"), ("a", None, "vocabulary")):
            with pytest.raises(InputError, match=match):
                read_sentence(text, vocabulary=vocabulary)


class TestExplainTexts:
    def test_as_each_alone(self):
        net = network()
        found = it.explain_texts(net, TEXTS, vocabulary=WORDS, y=[1, 0, 1])
        for text, label, one in zip(TEXTS, (1, 0, 1), found, strict=True):
            ids = torch.tensor([WORDS.encode(text.split())])
            alone = it.explain(net, ids, label, "tokens", names=text.split())
            assert one.names == tuple(text.split())
            torch.testing.assert_close(one.values, alone.values)
            torch.testing.assert_close(one.pairs, alone.pairs)
            assert one.labels.tolist() == [label]

    def test_long_sentences_are_sampled_beside_short_ones(self):
        net = network()
        texts = [TEXTS[1], "the film was not very good " * 2]
        short, long = it.explain_texts(net, texts, vocabulary=WORDS, budget=2000, y=1)
        assert short.exact
        assert not long.exact
        ids = torch.tensor([WORDS.encode(texts[1].split())])
        exact = it.explain(net, ids, 1, "tokens")
        error = (long.shapley - exact.shapley).abs() / long.shapley_stderr
        assert error.max() < 5

    def test_pieces_and_special_tokens(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=8, max_position_embeddings=16, initializer_range=1.0,
        )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config).double()
        net = TokenNetwork(model, mask_id=4, kept_ids=(2, 3)).eval()
        (found,) = it.explain_texts(net, ["not goodish!"], pieces(tmp_path), y=1, payoff="logit")
        absent = torch.tensor([[2, 4, 6, 7, 4, 3]])  # the second word alone
        torch.testing.assert_close(found.values[0, 0b010], net(absent)[0, 1].detach())

    def test_tree(self):
        found, *_ = it.explain_texts(network(), TEXTS, vocabulary=WORDS)
        tree = found.tree()
        own = it.interaction_tree(found.values[0], names=found.names)
        assert tree.nested() == own.nested()
        assert sorted(len(span) for span in tree.spans())[-1] == 6

    def test_tree_of_a_sampled_sentence(self):
        text = "the film was not very good " * 2
        (found,) = it.explain_texts(network(), [text], vocabulary=WORDS, budget=1500)
        assert len(found.tree(contexts=4).merges) == 11

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"texts": "one sentence"}, "texts: got 'one sentence'"),
            ({"texts": []}, "texts"),
            ({"texts": ["good"]}, "sentences of at least 2 words"),
            ({"texts": TEXTS, "y": [0, 1]}, "y: got 2 classes"),
            ({"texts": TEXTS, "budget": 0}, "budget"),
            ({"texts": ["good film " * 9]}, "got sentences of 18 tokens, expected at most 16"),
        ],
    )
    def test_bad_input(self, settings, match):
        with pytest.raises(InputError, match=match):
            it.explain_texts(network(), vocabulary=WORDS, **settings)


ENDS = ("bad", "good")


class TestJob:
    def text_job(self, tmp_path, **settings):
        file = tmp_path / "short.tsv"
        rows = [f"{a} {b} {c}\t{int(c == 'bad')}" for a in "xyzuvw" for b in "pqr" for c in ENDS]
        file.write_text("\n".join(["text\tlabel", *rows]))
        data = TextDataModule(file, max_length=24)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = TextTransformer(128, max_length=24, width=16)
        options = {"out": str(tmp_path / "out"), "accelerator": "cpu", **settings}
        return data, model, explain_samples(model, data=data, **options)

    def test_sentences_of_ones_own(self, tmp_path, capsys):
        texts = ["x p good bad", "y q bad"]
        data, model, found = self.text_job(tmp_path, text=texts)
        again = it.explain_texts(model, texts, vocabulary=data.vocabulary)
        for text, one, direct in zip(texts, found, again, strict=True):
            assert one.names == tuple(text.split())
            torch.testing.assert_close(one.values, direct.values)
        folder = tmp_path / "out" / "sentence1"
        told = json.loads((folder / "tree.json").read_text())
        assert told == json.loads(found[1].tree().to_json())
        assert (folder / "tree.txt").read_text().rstrip("\n") in capsys.readouterr().out
        assert (folder / "tree.svg").stat().st_size > 1000

    def test_a_file_of_sentences(self, tmp_path):
        file = tmp_path / "mine.txt"
        file.write_text("x p good\n\ny q bad bad\n")
        *_, found = self.text_job(tmp_path, text=str(file), count=3)
        assert [one.n for one in found] == [3, 4]

    def test_sentences_of_the_data(self, tmp_path):
        data, _, found = self.text_job(tmp_path, samples=2, count=3)
        assert [" ".join(one.names) for one in found] == data.texts["test"][:2]

    def test_vocabulary_of_the_checkpoint(self, tmp_path):
        words = ["film", "bad", "is", "the"]
        model = TextTransformer(128, max_length=24, width=16)
        state = {"tokens": words, "class_names": ["0", "1"]}
        path = tmp_path / "a.ckpt"
        weights = {f"model.{name}": value for name, value in model.state_dict().items()}
        torch.save({"state_dict": weights, "TextDataModule": state}, path)
        data, _, found = self.text_job(tmp_path, text="the film is bad", ckpt_path=str(path))
        assert data.vocabulary.tokens == tuple(words)
        assert found[0].x.tolist() == [[6, 3, 5, 4]]
        assert found[0].classes == ["0", "1"]

    def test_rows_of_a_table(self, tmp_path):
        file = tmp_path / "mine.csv"
        rows = [f"{k % 7},{'red' if k % 3 else 'blue'},{k % 5},{k % 2}" for k in range(60)]
        file.write_text("\n".join(["size,colour,age,label", *rows]))
        data = TableDataModule(str(file))
        data.setup()
        model = TableMLP(
            len(data.feature_names),
            2,
            mean=data.feature_mean.tolist(),
            std=data.feature_std.tolist(),
        )
        found = explain_samples(
            model, data=data, samples=2, out=str(tmp_path / "out"), accelerator="cpu", count=3
        )
        assert found[0].names == ("size", "colour", "age")
        x = data.parts["test"].inputs(torch.tensor([1]), None)
        direct = it.explain(model, x, players=it.FeaturePlayers(data.groups))
        torch.testing.assert_close(found[1].values, direct.values)
        mean = model(data.feature_mean[None])
        torch.testing.assert_close(direct.empty.float(), mean[:, direct.labels[0]] - mean[
            :, 1 - direct.labels[0]])  # fmt: skip

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"text": "good film", "players": "grid:2x2"}, "players: got 'grid:2x2'"),
            ({"players": "features"}, "players: got 'features'"),
            ({"text": "good"}, "text: got 'good', expected sentences of at least 2"),
            ({"text": " "}, "text: got ' ', expected sentences of at least 2"),
            ({"image": "a.png"}, "image: got image and data"),
        ],
    )
    def test_bad_input(self, tmp_path, settings, match):
        with pytest.raises(InputError, match=match):
            self.text_job(tmp_path, **settings)

    def test_unknown_words_are_told(self, tmp_path, capsys):
        self.text_job(tmp_path, text=["x p good", "x movie bad"], count=3)
        assert "sentence1: not in the vocabulary: movie\n" in capsys.readouterr().err

    def test_text_beside_a_table(self, tmp_path):
        with pytest.raises(InputError, match="text: got sentences, and TableDataModule as data"):
            explain_samples(
                TableMLP(13, 3), text="a film", data=TableDataModule("wine"), out=str(tmp_path)
            )

    def test_text_without_data(self, tmp_path):
        with pytest.raises(InputError, match="text without data"):
            explain_samples(network(), text="a film", out=str(tmp_path))
