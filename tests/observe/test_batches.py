"""The adaptor from any dataset to whole batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gracile.errors import BadArgument
from gracile.observe.batches import Batches, DatasetBatches, as_batches, batch_order


class Counting(Dataset[tuple[Tensor, int]]):
    """Image ``i`` is full of ``i``; its label is ``i``."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((1, 2, 2), float(index)), index


def test_every_example_comes_once_with_its_own_label() -> None:
    generator = torch.Generator().manual_seed(3)
    seen = []
    for images, labels in DatasetBatches(Counting()).batches(3, shuffle=True, generator=generator):
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
        seen += labels.tolist()
    assert sorted(seen) == list(range(7))
    assert seen != list(range(7))


def test_a_seed_repeats_an_epoch() -> None:
    first, second = (
        [
            labels.tolist()
            for _, labels in DatasetBatches(Counting()).batches(
                3, shuffle=True, generator=torch.Generator().manual_seed(3)
            )
        ]
        for _ in range(2)
    )
    assert first == second


def test_drop_last_leaves_out_only_the_short_batch() -> None:
    assert [len(i) for i in batch_order(7, 3, drop_last=True)] == [3, 3]
    assert [len(i) for i in batch_order(6, 3, drop_last=True)] == [3, 3]
    assert [len(i) for i in batch_order(7, 3)] == [3, 3, 1]


def test_subset_keeps_the_asked_order() -> None:
    subset = DatasetBatches(Counting()).subset([4, 1, 4])
    assert [subset[i][1] for i in range(len(subset))] == [4, 1, 4]
    assert next(subset.batches(3))[1].tolist() == [4, 1, 4]


def test_augmentation_is_applied_only_when_asked() -> None:
    data = DatasetBatches(Counting(), lambda images, _: images + 100)
    assert next(data.batches(7))[0].max() == 6
    assert next(data.batches(7, augment=True))[0].min() == 100
    assert next(data.subset([0]).batches(1, augment=True))[0].min() == 100


def test_augmentation_that_is_not_there_is_an_error() -> None:
    with pytest.raises(
        BadArgument, match="augment: wanted a dataset with a batch augmentation, found a plain Counting"
    ):
        next(DatasetBatches(Counting()).batches(2, augment=True))


def test_batch_size_below_one_is_an_error() -> None:
    with pytest.raises(BadArgument, match="batch_size: wanted at least 1, found batch_size=0"):
        next(DatasetBatches(Counting()).batches(0))


def test_as_batches_wraps_only_what_needs_it() -> None:
    wrapped = as_batches(Counting())
    assert isinstance(wrapped, DatasetBatches)
    assert isinstance(wrapped, Batches)
    assert as_batches(wrapped) is wrapped
