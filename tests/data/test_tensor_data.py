"""In-memory data: the vectorised path against one image at a time."""

from __future__ import annotations

import pytest
import torch

from gracile.data import TensorData
from gracile.errors import DataError
from gracile.observe import Batches

MEAN, STD = (0.4, 0.5), (0.2, 0.3)


def make(count: int = 20) -> TensorData:
    images = torch.randint(0, 256, (count, 2, 6, 6), dtype=torch.uint8)
    return TensorData(images, torch.arange(count) % 5, mean=MEAN, std=STD)


def test_prepared_is_scaled_less_mean_by_std() -> None:
    data = make()
    mean, std = torch.tensor(MEAN).view(1, 2, 1, 1), torch.tensor(STD).view(1, 2, 1, 1)
    by_hand = (data.images / 255 - mean) / std
    got = torch.cat([images for images, _ in data.batches(7)])
    torch.testing.assert_close(got, by_hand, rtol=1e-5, atol=1e-6)
    assert got.dtype == torch.float32


def test_batches_and_items_agree() -> None:
    data = make()
    images, labels = next(data.batches(20))
    for i in range(20):
        assert torch.equal(images[i], data[i][0])
        assert labels[i] == data[i][1]


def test_shuffling_keeps_labels_with_images_and_repeats() -> None:
    data = make()
    data.images[:] = data.labels.to(torch.uint8).view(-1, 1, 1, 1)
    orders = []
    for _ in range(2):
        batches = list(data.batches(6, shuffle=True, generator=torch.Generator().manual_seed(2)))
        for images, labels in batches:
            stored = (images[:, 0, 0, 0] * STD[0] + MEAN[0]) * 255
            assert torch.equal(stored.round().long(), labels)
        orders.append(torch.cat([labels for _, labels in batches]))
    assert torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0].sort().values, data.labels.sort().values)
    assert not torch.equal(orders[0], data.labels)


def test_augmented_border_is_black() -> None:
    data = TensorData(
        torch.full((50, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(50), mean=(0.5,), std=(0.5,), padding=2
    )
    images, _ = next(data.batches(50, augment=True, generator=torch.Generator().manual_seed(0)))
    assert images.unique().tolist() == [-1.0, 1.0]
    assert next(data.batches(50))[0].unique().tolist() == [1.0]


def test_subset_is_a_copy_with_the_same_preparation() -> None:
    data = make()
    part = data.subset([3, 1, 1])
    assert isinstance(part, Batches)
    assert len(part) == 3
    assert torch.equal(part[0][0], data[3][0])
    part.images.zero_()
    assert data.images[3].sum() > 0


def test_counts_and_channels_must_fit() -> None:
    images = torch.zeros(3, 2, 4, 4)
    with pytest.raises(DataError, match=r"found images \(3, 2, 4, 4\) and 2 labels"):
        TensorData(images, torch.zeros(2), mean=MEAN, std=STD)
    with pytest.raises(DataError, match="wanted a mean and a std for each of 2 channels, found 1 means"):
        TensorData(images, torch.zeros(3), mean=(0.5,), std=STD)
