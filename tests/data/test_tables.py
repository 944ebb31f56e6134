import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_wine

from interaction_train.data import TableDataModule
from interaction_train.game.tabular import FeaturePlayers
from tests.data.files import raises


def census(count=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, count),
            "work": np.array(["farm", "office", "none at all"])[np.arange(count) % 3],
            "hours": rng.normal(40, 5, count),
            "rich": np.array(["no", "yes"])[np.arange(count) % 2],
        }
    )


def rows_of(module):
    return torch.cat([module.parts[name].rows for name in ("train", "val", "test")])


@pytest.mark.parametrize(
    ("name", "load"), [("breast_cancer", load_breast_cancer), ("wine", load_wine)]
)
def test_bunches_are_the_real_ones_on_their_own_scales(name, load):
    module, bunch = TableDataModule(name), load()
    module.setup()
    x, order = rows_of(module), np.lexsort(bunch.data.T)
    found = np.lexsort(x.double().numpy().T)
    assert np.allclose(x.numpy()[found], bunch.data[order], rtol=1e-6)
    labels = torch.cat([module.parts[name].labels for name in ("train", "val", "test")])
    assert np.array_equal(labels.numpy()[found], bunch.target[order])
    assert module.class_names == tuple(bunch.target_names)
    assert module.feature_names == tuple(bunch.feature_names)
    train = module.parts["train"].rows.double()
    assert torch.allclose(module.feature_mean.double(), train.mean(0))
    assert torch.allclose(module.feature_std.double(), train.std(0, correction=0), rtol=1e-5)
    ids, _ = next(iter(module.train_dataloader()))
    assert (ids.dtype, ids.shape) == (torch.float32, (32, len(bunch.feature_names)))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_strings_become_columns_of_one_player(tmp_path, suffix):
    frame = census()
    frame.to_csv(tmp_path / f"a.{suffix}", sep="," if suffix == "csv" else "\t", index=False)
    module = TableDataModule(tmp_path / f"a.{suffix}", label="rich", test=tmp_path / f"a.{suffix}")
    module.setup()
    names = ("age", "work=farm", "work=none at all", "work=office", "hours")
    assert module.feature_names == names
    assert module.groups == {"age": [0], "work": [1, 2, 3], "hours": [4]}
    x = module.parts["test"].rows
    expected = pd.get_dummies(frame[["age", "work", "hours"]], prefix_sep="=", dtype=float)
    assert np.allclose(x.numpy(), expected[list(names)].to_numpy(), rtol=1e-6)
    assert module.class_names == ("no", "yes")
    assert module.parts["test"].labels.tolist() == [0, 1] * 30
    players = FeaturePlayers(module.groups)
    assert players.names((5,)) == ("age", "work", "hours")
    mask = players.mask(torch.tensor([False, True, False]), (5,))
    assert mask.tolist() == [False, True, True, True, False]


def test_columns_are_chosen_and_a_constant_has_a_std_of_one(tmp_path):
    census().assign(one=1.0).to_csv(tmp_path / "a.csv", index=False)
    module = TableDataModule(tmp_path / "a.csv", label="rich", columns=["one", "age"])
    module.setup()
    assert module.feature_names == ("one", "age")
    assert float(module.feature_std[0]) == 1
    assert float(module.feature_mean[0]) == 1


def test_bad_tables_are_named(tmp_path):
    def module(frame, **arguments):
        frame.to_csv(tmp_path / "a.csv", index=False)
        return TableDataModule(tmp_path / "a.csv", **{"label": "rich", **arguments})

    frame = census()
    with raises("source", "'nowhere.csv'", "breast_cancer"):
        TableDataModule("nowhere.csv")
    with raises("label", "'class'", "age, work, hours, rich"):
        module(frame, label="class").setup()
    with raises("columns", "'size'", "age, work, hours, rich"):
        module(frame, columns=["size"]).setup()
    hole = frame.astype({"age": float})
    hole.loc[[3, 5], "age"] = np.nan
    with raises("column 'age'", "2 missing"):
        module(hole).setup()
    hole = frame.copy()
    hole.loc[4, "work"] = None
    with raises("column 'work'", "1 missing"):
        module(hole).setup()
    with raises("column 'id'", "80 different strings"):
        module(census(80).assign(id=[f"n{k}" for k in range(80)])).setup()
    with raises("label", "one label", "'no'"):
        module(frame.assign(rich="no")).setup()
    with raises("column 'age'", "infinite"):
        module(frame.assign(age=1e300)).setup()
    for columns in (["age", "age"], ["age", "rich"]):
        with raises("columns", ", ".join(columns), "others than 'rich', each once"):
            module(frame, columns=columns).setup()
    with raises("columns", "none"):
        module(frame[["rich"]]).setup()
    frame.to_csv(tmp_path / "numbered.csv")  # with the rows' numbers, as pandas does
    with raises("column 'Unnamed: 0'", "no name"):
        TableDataModule(tmp_path / "numbered.csv", label="rich").setup()
    with raises("val", "'new.csv'", "split off 'wine'"):
        TableDataModule("wine", val="new.csv")
    with raises("label", "'alcohol'", "no column of wine"):
        TableDataModule("wine", label="alcohol").setup()
    frame.assign(work="moon").to_csv(tmp_path / "new.csv", index=False)
    with raises("column 'work'", "'moon'", "test", "farm, none at all, office"):
        module(frame, test=tmp_path / "new.csv").setup()
    frame.assign(rich="maybe").to_csv(tmp_path / "new.csv", index=False)
    with raises("label", "'maybe'", "val", "'no', 'yes'"):
        module(frame, val=tmp_path / "new.csv").setup()
    state = module(frame)
    state.setup()
    with raises("feature_names", "age, hours", "work=farm"):
        module(frame, columns=["age", "hours"]).load_state_dict(state.state_dict())
