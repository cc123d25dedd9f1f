"""The bundled digits."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from gracile.data import TensorData, digits


def test_parts_share_nothing_and_hold_everything() -> None:
    data = digits()
    assert isinstance(data.train, TensorData)
    assert isinstance(data.test, TensorData)
    both = torch.cat([data.train.images, data.test.images]).flatten(1)
    original = torch.from_numpy(load_digits().data).to(torch.uint8)
    key = [tuple(row) for row in both.tolist()]
    assert sorted(key) == sorted(tuple(row) for row in original.tolist())


def test_a_quarter_of_each_class_is_tested() -> None:
    test = digits().test
    assert isinstance(test, TensorData)
    in_class = torch.bincount(torch.from_numpy(load_digits().target))
    assert torch.equal(torch.bincount(test.labels), in_class // 4)


def test_pixels_lie_between_zero_and_one() -> None:
    images, _ = next(digits().test.batches(500))
    assert images.min() == 0
    assert images.max() == 1


def test_labels_are_of_their_images() -> None:
    source = load_digits()
    data = digits()
    images, labels = next(data.test.batches(1))
    place = (torch.from_numpy(source.images).float() / 16 == images[0]).flatten(1).all(dim=1).nonzero()[0, 0]
    assert source.target[place] == labels[0]
