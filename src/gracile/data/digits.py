"""Handwritten digits, 8x8, that come with scikit-learn: no download.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository
(1998); scikit-learn carries its 1,797 test images.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from .bundle import DataBundle
from .tensor_data import TensorData


def digits() -> DataBundle:
    """The digits, with every fourth image of each class in the test part: 1,352 and 445 images.

    Pixels are 0..16 in the file and 0..1 when prepared.

    Example:
        >>> data = digits()
        >>> len(data.train), len(data.test), data.input_shape
        (1352, 445, (1, 8, 8))
    """
    content = load_digits()
    images = torch.from_numpy(content.images).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(content.target).long()
    occurrence = torch.zeros_like(labels)  # 0 for the first image of a class, 1 for the second
    for label in range(10):
        places = (labels == label).nonzero().flatten()
        occurrence[places] = torch.arange(len(places))
    in_test = occurrence % 4 == 3
    train, test = (
        TensorData(images[part], labels[part], mean=(0.0,), std=(1.0,), scale=16.0, padding=1, flip=False)
        for part in (~in_test, in_test)
    )
    return DataBundle(
        name="digits", train=train, test=test, classes=10, input_shape=(1, 8, 8), mean=(0.0,), std=(1.0,)
    )
