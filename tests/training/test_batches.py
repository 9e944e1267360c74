"""The fast loader's order, and what loaders may yield."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lasps.training.batches import BatchLoader, as_loader, checked_loader, iterate, set_epoch
from tests.training.tiny import TinyDataset


def labels_of(loader):
    return torch.cat([batch[3] for batch in loader])


def test_every_sample_comes_once_per_epoch_and_the_last_batch_may_be_short():
    loader = BatchLoader(TinyDataset(50), 16, shuffle=True, seed=3)
    sizes = [len(batch[3]) for batch in loader]
    assert (len(loader), sizes) == (4, [16, 16, 16, 2])
    assert sorted(loader.order(0)) == list(range(50))


def test_the_order_hangs_on_seed_and_epoch_alone():
    loader, other = (BatchLoader(TinyDataset(50), 16, shuffle=True, seed=3) for _ in range(2))
    first, second = labels_of(loader), labels_of(loader)
    assert not torch.equal(first, second)
    torch.manual_seed(99)
    np.random.default_rng(99)
    other.set_epoch(1)
    assert torch.equal(labels_of(other), second)
    assert not np.array_equal(loader.order(0), BatchLoader(TinyDataset(50), 16, shuffle=True, seed=4).order(0))


def test_epochs_of_fewer_samples_go_through_every_shuffled_pass_one_after_the_other():
    loader = BatchLoader(TinyDataset(50), 16, shuffle=True, seed=3, epoch_samples=20)
    epochs = [loader.order(epoch) for epoch in range(5)]
    whole = BatchLoader(TinyDataset(50), 16, shuffle=True, seed=3)
    assert np.array_equal(np.concatenate(epochs), np.concatenate([whole.order(0), whole.order(1)]))
    assert len(loader) == 2 and [len(batch[3]) for batch in loader] == [16, 4]


def test_an_epoch_is_never_longer_than_the_data():
    assert np.array_equal(
        BatchLoader(TinyDataset(50), 16, True, 3, epoch_samples=60).order(1),
        BatchLoader(TinyDataset(50), 16, True, 3).order(1),
    )


@pytest.mark.parametrize("options", [{"epoch_samples": 0, "shuffle": True}, {"epoch_samples": 10}])
def test_an_epoch_of_no_samples_or_of_an_ordered_pass_is_refused(options):
    with pytest.raises(ValueError, match="epoch_samples"):
        BatchLoader(TinyDataset(50), 16, **options)


def test_without_shuffling_the_order_is_the_datasets():
    dataset = TinyDataset(50)
    assert torch.equal(labels_of(BatchLoader(dataset, 16)), dataset.labels)


def test_tuples_and_dicts_of_any_loader_become_the_same_batches():
    dataset = TinyDataset(20)
    keys = ("time_series", "chart_image", "sector_id", "label")
    items = [dict(zip(keys, dataset[i], strict=True)) for i in range(20)]
    tuples, dicts = iterate(DataLoader(dataset, batch_size=8), "cpu"), iterate(DataLoader(items, batch_size=8), "cpu")
    for one, other in zip(tuples, dicts, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("batch", [torch.zeros(3), [torch.zeros(1)] * 3, {"x": torch.zeros(1)}])
def test_a_batch_of_another_form_is_an_error_that_says_what_to_do(batch):
    with pytest.raises(ValueError, match="batch 0: .*stock_collate_fn"):
        next(iterate([batch], "cpu"))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_an_error_naming_the_batch(label):
    dataset = TinyDataset(40)
    dataset.labels[20] = label
    with pytest.raises(ValueError, match="batch 1: expected labels"):
        list(iterate(BatchLoader(dataset, 16), "cpu"))


def test_a_dataset_becomes_an_ordered_loader_and_an_empty_one_an_error():
    assert torch.equal(labels_of(as_loader(TinyDataset(30), 7)), TinyDataset(30).labels)
    with pytest.raises(ValueError, match="at least one sample"):
        as_loader(TinyDataset(0), 7)
    with pytest.raises(ValueError, match="val: .* empty loader"):
        checked_loader([], "val")
    with pytest.raises(ValueError, match="train: expected a DataLoader"):
        checked_loader(iter([]), "train")


def test_a_loader_with_its_own_generator_is_seeded_per_epoch():
    loader = DataLoader(TinyDataset(40), batch_size=8, shuffle=True, generator=torch.Generator())
    orders = []
    for epoch in (2, 3, 2):
        set_epoch(loader, epoch, seed=1)
        orders.append(labels_of(loader))
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="batch_size"):
        BatchLoader(TinyDataset(4), 0)
