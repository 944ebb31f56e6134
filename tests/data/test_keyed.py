import pickle

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from interaction_train.data import DigitsDataModule, ImageDataModule, KeyedSampler
from interaction_train.data.keyed import as_is
from tests.data.files import epoch_of, rows, write_npz


def test_order_is_a_shuffle_keyed_by_seed_and_epoch():
    data = range(1000)

    def order(seed, epoch):
        sampler = KeyedSampler(data, seed)
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {e for e, _ in keys} == {epoch}
        return [index for _, index in keys]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o) == list(data) for o in orders)
    assert len({tuple(o) for o in orders}) == 4
    assert order(1, 1) == orders[3]


def test_two_ranks_cover_an_epoch_once_when_it_divides():
    data = range(10)
    ranks = [KeyedSampler(data, seed=3, num_replicas=2, rank=rank) for rank in (0, 1)]
    for epoch in (0, 1):
        for sampler in ranks:
            sampler.set_epoch(epoch)
        keys = [list(sampler) for sampler in ranks]
        assert sorted(keys[0] + keys[1]) == [(epoch, index) for index in data]
        single = KeyedSampler(data, seed=3)
        single.set_epoch(epoch)
        assert [key for pair in zip(*keys, strict=True) for key in pair] == list(single)


def test_two_ranks_repeat_samples_only_to_equal_length():
    ranks = [list(KeyedSampler(range(7), num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert [len(keys) for keys in ranks] == [4, 4]
    assert {index for _, index in ranks[0] + ranks[1]} == set(range(7))


def test_one_process_sees_every_sample_once():
    module = DigitsDataModule(batch_size=100)
    x, _ = epoch_of(module, 0)
    assert len(x) == len(module.parts["train"]) == 1294
    assert rows(x) == rows(module.parts["train"].__getitems__(list(range(1294)))[0])


@pytest.mark.parametrize("transform", [None, v2.RandomErasing(p=0.5)])
def test_batches_do_not_depend_on_workers_history_or_the_global_generator(tmp_path, transform):
    write_npz(tmp_path / "a.npz")
    arguments = {"source": tmp_path / "a.npz", "batch_size": 16, "transform": transform}
    plain, workers = ImageDataModule(**arguments), ImageDataModule(**arguments, num_workers=2)
    loader = workers.train_dataloader()
    assert loader.persistent_workers
    seen = []
    for epoch in range(3):
        # A fresh module for each epoch, as after a resume, against one that went through all.
        torch.manual_seed(epoch)
        before = torch.get_rng_state()
        expected = epoch_of(plain, epoch)
        assert torch.equal(torch.get_rng_state(), before)
        found = epoch_of(workers, epoch, loader)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        seen.append(expected[0])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("transform", [None, v2.RandomErasing(p=0.5)])
def test_augmentation_depends_on_seed_epoch_and_sample_alone(tmp_path, transform):
    write_npz(tmp_path / "a.npz")
    parts = []
    for seed in (0, 1):
        module = ImageDataModule(tmp_path / "a.npz", seed=seed, transform=transform)
        module.setup()
        parts.append(module.parts["train"])
    n = len(parts[0])
    x, y = parts[0].__getitems__([(4, i) for i in range(n)])
    alone = [parts[0][4, i] for i in reversed(range(n))][::-1]
    assert torch.equal(x, torch.stack([a for a, _ in alone]))
    assert y.tolist() == [int(b) for _, b in alone]
    assert not torch.equal(x, parts[0].__getitems__([(5, i) for i in range(n)])[0])
    assert not torch.equal(x, parts[1].__getitems__([(4, i) for i in range(n)])[0])
    assert not torch.equal(x, parts[0].__getitems__(list(range(n)))[0])  # by plain index: as it is


@pytest.mark.parametrize("augment", [False, True])
def test_modules_and_datasets_survive_pickling(augment):
    module = DigitsDataModule(augment=augment, seed=2)
    x, y = epoch_of(module, 1)
    again = epoch_of(pickle.loads(pickle.dumps(module)), 1)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    assert pickle.loads(pickle.dumps(module.train_dataloader().collate_fn)) is as_is


@pytest.mark.slow  # seven seconds of imports in the new process
def test_spawned_workers_give_the_same_batches():
    module = DigitsDataModule(augment=True, batch_size=500)
    expected = epoch_of(module, 1)
    part = module.parts["train"]
    loader = DataLoader(
        part,
        batch_size=500,
        sampler=KeyedSampler(part),
        num_workers=1,
        collate_fn=as_is,
        multiprocessing_context="spawn",
    )
    found = epoch_of(module, 1, loader)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
