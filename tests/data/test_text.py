import json
import warnings
from itertools import islice

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from interaction_train.callbacks.samples import fetch, first_loader, population
from interaction_train.data import BucketSampler, TextDataModule, Vocabulary
from interaction_train.models import TextTransformer
from interaction_train.training.module import InteractionClassifier
from tests.data.files import raises

WORDS = ["good", "bad", "film", "very", "not", "a"]


def write(path, count=60, labels=("neg", "pos"), text="text", label="label"):
    """Sentences of 1 to 20 words; the first word says the class."""
    rows = [
        {text: " ".join([WORDS[k % 2], *[WORDS[2 + k % 4]] * (7 * k % 20)]), label: labels[k % 2]}
        for k in range(count)
    ]
    frame = pd.DataFrame(rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    return frame


def sentences(module, name):
    ids, y = module.parts[name].__getitems__(list(range(len(module.parts[name]))))
    words = [[w for w in module.vocabulary.decode(row) if w != "[PAD]"] for row in ids.tolist()]
    return [(" ".join(w), module.class_names[k]) for w, k in zip(words, y.tolist(), strict=True)]


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("labels", [("neg", "pos"), (0, 1)], ids=str)
def test_every_sentence_and_label_of_a_file_is_there(tmp_path, suffix, labels):
    frame = write(tmp_path / f"a.{suffix}", 60, labels, "review", "mood")
    module = TextDataModule(tmp_path / f"a.{suffix}", text="review", label="mood")
    module.setup()
    found = [pair for name in ("train", "val", "test") for pair in sentences(module, name)]
    written = zip(frame["review"], frame["mood"].astype(str), strict=True)
    assert sorted(found) == sorted(written)
    assert {name: len(part) for name, part in module.parts.items()} == {
        "train": 43, "val": 5, "test": 12,
    }  # fmt: skip
    assert module.class_names == tuple(map(str, labels))
    assert module.num_classes == 2


def test_train_and_dev_files_keep_their_samples(tmp_path):
    write(tmp_path / "train.tsv")
    dev = write(tmp_path / "dev.tsv", 10)
    module = TextDataModule(tmp_path / "train.tsv", test=tmp_path / "dev.tsv")
    module.setup()
    assert module.texts["test"] == dev["text"].tolist()
    assert [text for text, _ in sentences(module, "test")] == dev["text"].tolist()
    assert (len(module.parts["train"]), len(module.parts["val"])) == (54, 6)


def test_a_quotation_mark_of_a_tsv_is_a_character(tmp_path):
    rows = ['" unclosed\t0\n', "a\t1\n", "b\t0\n", 'c "\t1\n'] * 5
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(rows))
    module = TextDataModule(tmp_path / "a.tsv")
    module.setup()
    assert sum(map(len, module.parts.values())) == 20
    assert '"' in module.vocabulary.tokens


def test_real_phrases_and_sentences(project_data, tmp_path):
    with (project_data / "sst2_train.tsv").open() as lines:
        (tmp_path / "a.tsv").write_text("".join(islice(lines, 3001)))
    module = TextDataModule(
        tmp_path / "a.tsv", test=project_data / "sst2_dev.tsv", text="sentence", max_vocabulary=2000
    )
    module.setup()
    sizes = {name: len(part) for name, part in module.parts.items()}
    assert sizes == {"train": 2700, "val": 300, "test": 872}
    assert int(module.parts["test"].labels.sum()) == 444
    assert module.texts["test"][0] == "it 's a charming and often affecting journey . "
    assert len(module.vocabulary) == 2000


@pytest.mark.parametrize(
    ("arguments", "content", "error"),
    [
        ({"text": "body"}, "text,label\na,0\nb,1\n", ("text", "'body'", "text, label")),
        ({"label": "mood"}, "text,label\na,0\nb,1\n", ("label", "'mood'", "text, label")),
        ({}, "text,label\na,0\n ,1\n", ("text", "' '", "row 2", "train")),
        ({}, "text,label\na,0\nb,\n", ("label", "row 2")),
        ({}, "text,label\na,0.5\nb,1\n", ("label", "float")),
        ({}, "text,label\na,1\nb,1\n", ("label", "'1'", "two classes")),
        ({}, "text,label\n", ("source", "without rows")),
        ({}, "", ("source", "readable csv")),
        ({}, "text,label\n" + "a, so good,0\nb, so bad,1\n" * 20, ("source", "loss of data")),
        (
            {"max_length": 2},
            "text,label\n" + "a b c,0\nb,1\n" * 20,
            ("max_length", "2", "3 tokens"),
        ),
    ],
    ids=str,
)
def test_bad_files_are_named(tmp_path, arguments, content, error):
    (tmp_path / "a.csv").write_text(content)
    with raises(*error):
        TextDataModule(tmp_path / "a.csv", **arguments).setup()


def test_bad_sources_and_labels_of_another_task_are_named(tmp_path):
    with raises("tokenizer", "'words'", "class_path"):
        TextDataModule("grammar", tokenizer="words")
    with raises("source", "a.xlsx", ".jsonl"):
        TextDataModule("a.xlsx").setup()
    with raises("source", "a.csv", "readable"):
        TextDataModule(tmp_path / "a.csv").setup()
    with raises("test", "'a.csv'", "split off 'grammar'"):
        TextDataModule("grammar", test="a.csv")
    (tmp_path / "b.jsonl").write_text('{"text": "a", ')
    with raises("source", "b.jsonl", "readable"):
        TextDataModule(tmp_path / "b.jsonl").setup()
    write(tmp_path / "a.csv")
    write(tmp_path / "val.csv", labels=("neg", "neutral"))
    with raises("label", "'neutral'", "row 2", "val", "'neg', 'pos'"):
        TextDataModule(tmp_path / "a.csv", val=tmp_path / "val.csv").setup()


def test_long_sentences_are_cut_if_wanted_and_that_is_said_once(tmp_path):
    write(tmp_path / "a.csv")
    module = TextDataModule(tmp_path / "a.csv", max_length=13, truncate=True)
    with pytest.warns(UserWarning, match="max_length = 13") as said:
        module.test_dataloader()
    assert len([w for w in said if "train" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.val_dataloader()
    whole = [ids.shape[1] for ids, _ in module.test_dataloader()]
    assert max(whole) == 13


# --- tokens ---------------------------------------------------------------------------------------


def test_vocabulary_counts_training_sentences_alone():
    words = Vocabulary.build([["b", "a", "b"], ["c", "c", "d"]], max_size=6, min_count=1)
    assert words.tokens == ("b", "c", "a")
    assert words.encode(["a", "d", "b"]) == [5, 1, 3]
    assert words.decode([0, 1, 2, 3]) == ["[PAD]", "[UNK]", "[MASK]", "b"]
    assert Vocabulary.build([["b", "a", "b"]], min_count=2).tokens == ("b",)
    with raises("tokens", "'a' twice"):
        Vocabulary(["a", "b", "a"])


def test_words_of_a_test_file_are_unknown(tmp_path):
    write(tmp_path / "a.csv")
    (tmp_path / "test.csv").write_text("text,label\ngood grief,pos\n")
    module = TextDataModule(tmp_path / "a.csv", test=tmp_path / "test.csv")
    module.setup()
    assert sentences(module, "test") == [("good [UNK]", "pos")]


class Ids:
    """What a Hugging Face tokenizer looks like."""

    pad_token_id, mask_token_id = 9, 8

    def __len__(self):
        return 40

    def __call__(self, text):
        return {"input_ids": [10 + len(word) for word in text.split()], "attention_mask": None}


def test_a_tokenizer_of_one_s_own_gives_tokens_or_ids(tmp_path):
    frame = write(tmp_path / "a.csv")
    letters = TextDataModule(tmp_path / "a.csv", tokenizer=list, max_length=200)
    letters.setup()
    assert set(letters.vocabulary.tokens) == set("".join(frame["text"]))
    module = TextDataModule(tmp_path / "a.csv", tokenizer=Ids(), test=tmp_path / "a.csv")
    module.setup()
    assert (module.vocabulary, module.vocabulary_size) == (None, 40)
    ids, _ = module.parts["test"].__getitems__([0, 1])
    assert ids.shape == (2, 8)  # one word, and eight
    assert ids[0].tolist() == [14, *[9] * 7]
    assert ids[1].tolist() == [13, *[14] * 7]
    wrong = TextTransformer(40, 2)
    with raises("pad_id", "0", "9"):
        wrong.adapt_to(module)
    TextTransformer(40, 2, pad_id=9, mask_id=8).adapt_to(module)
    module = TextDataModule(tmp_path / "a.csv", tokenizer=lambda text: [len(text)])
    module.setup()
    with raises("tokenizer", "without their number"):
        wrong.adapt_to(module)


# --- batches --------------------------------------------------------------------------------------


def test_training_batches_hold_similar_lengths_and_every_sentence_once():
    module = TextDataModule("grammar", sentences=1000, batch_size=32)
    loader = module.train_dataloader()
    lengths = module.parts["train"].lengths
    orders = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        order = [index for _, index in loader.sampler]
        assert sorted(order) == list(range(720))
        orders.append(order)
        batches = torch.tensor(order[: 720 // 32 * 32]).view(-1, 32)
        spans = lengths[batches].max(1).values - lengths[batches].min(1).values
        assert spans.float().mean() < 1.5
        tops = lengths[batches].max(1).values
        assert not torch.equal(tops, tops.sort().values)
    assert orders[0] != orders[1]
    padded = sum(ids.numel() for ids, _ in loader)
    assert padded < 1.6 * int(lengths.sum())
    for ids, _ in loader:
        assert ids.shape[1] % 8 == 0
    again = TextDataModule("grammar", sentences=1000, batch_size=32).train_dataloader().sampler
    again.set_epoch(1)
    assert [index for _, index in again] == orders[1]


def test_two_ranks_share_an_epoch_in_batches_of_the_same_lengths():
    module = TextDataModule("grammar", sentences=1000)
    module.setup()
    part = module.parts["train"]
    ranks = [[i for _, i in BucketSampler(part, 32, 3, 2, rank)] for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == 360
    assert sorted(ranks[0] + ranks[1]) == list(range(720))
    whole = torch.tensor(ranks)[:, : 360 // 32 * 32].view(2, -1, 32)
    assert (part.lengths[whole].float().mean(2).diff(dim=0).abs() < 1).all()
    later = BucketSampler(part, 32, 3, 2, 0)
    later.skip = 64
    assert [i for _, i in later] == ranks[0][64:]


def test_a_fixed_sample_is_fetched_from_the_loader():
    module = TextDataModule("grammar", sentences=400)
    trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
    trainer.strategy.connect(InteractionClassifier(TextTransformer(128, 2, width=8)))
    for loaders in (module.train_dataloader(), module.val_dataloader()):
        loader = first_loader(loaders)
        places = population(loader)
        assert len(places) == len(loader.dataset)
        ids, y = fetch(trainer, loader, places[:5])
        assert torch.equal(y, loader.dataset.labels[:5])
        assert (ids != 0).sum(1).tolist() == loader.dataset.lengths[:5].tolist()


# --- checkpoints ----------------------------------------------------------------------------------


class SaveAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(module, folder, **trainer):
    torch.manual_seed(0)
    network = TextTransformer(128, 2, width=8, heads=2, layers=1, dropout=0.0, word_dropout=0.0)
    run = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
        **{"max_epochs": 1, **trainer},
    )  # fmt: skip
    return run, InteractionClassifier(network, 2), module


def test_a_resumed_run_keeps_vocabulary_and_order(tmp_path):
    write(tmp_path / "a.csv", 90)
    data = TextDataModule(tmp_path / "a.csv", batch_size=16)
    straight, model, data = fit(data, tmp_path, callbacks=[SaveAt(2, tmp_path / "half.ckpt")])
    straight.fit(model, data)
    rest, late, data = fit(TextDataModule(tmp_path / "a.csv", batch_size=16), tmp_path)
    rest.fit(late, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert straight.global_step == rest.global_step == 5
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, late.state_dict()[name]), name


def test_a_checkpoint_s_vocabulary_and_classes_count_for_other_files(tmp_path):
    write(tmp_path / "a.csv", 90)
    run, model, data = fit(TextDataModule(tmp_path / "a.csv"), tmp_path)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "b.csv").write_text("text,label\n" + "film film film bad,pos\nnew bad,neg\n" * 20)
    module = TextDataModule(tmp_path / "b.csv")
    module.setup()
    assert module.vocabulary.tokens[:2] == ("film", "bad")
    run.validate(model, module, ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False)
    assert module.vocabulary == data.vocabulary
    known = [word for word in ("film", "bad") if word in data.vocabulary.tokens]
    assert known == ["film", "bad"]
    assert ("[UNK] bad", "neg") in sentences(module, "train")
    (tmp_path / "c.csv").write_text("text,label\n" + "a,up\nb,down\n" * 20)
    with raises("label", "'up'", "'neg', 'pos'"):
        run.validate(model, TextDataModule(tmp_path / "c.csv"), ckpt_path=tmp_path / "a.ckpt")
