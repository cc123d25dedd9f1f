"""What calibrates, what is held out, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gracile.data import DataBundle
from gracile.errors import BadArgument, DataError, NonFiniteError


def pairs(start: int, stop: int) -> list[tuple[Tensor, int]]:
    return [(torch.full((1, 2, 2), float(i)), i % 2) for i in range(start, stop)]


def make(train: list[tuple[Tensor, int]] | None = None) -> DataBundle:
    train = pairs(0, 40) if train is None else train
    return DataBundle(name="toy", train=train, test=pairs(40, 50), classes=2, input_shape=(1, 2, 2))


def values(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].int().tolist()


def test_calibration_takes_different_training_images() -> None:
    chosen = values(make().calibration(30, seed=1))
    assert len(set(chosen)) == 30
    assert max(chosen) < 40
    assert chosen != sorted(chosen)


def test_calibration_repeats_and_grows_by_appending() -> None:
    data = make()
    assert values(data.calibration(10, seed=1)) == values(data.calibration(10, seed=1))
    assert values(data.calibration(20, seed=1))[:10] == values(data.calibration(10, seed=1))
    assert values(data.calibration(10, seed=1)) != values(data.calibration(10, seed=2))


def test_holdout_and_rest_make_up_the_training_part() -> None:
    rest, held = make().split_holdout(0.25, seed=3)
    a, b = ({int(part[i][0][0, 0, 0]) for i in range(len(part))} for part in (rest, held))
    assert (len(rest), len(held)) == (30, 10)
    assert not a & b
    assert a | b == set(range(40))


@pytest.mark.parametrize(("fraction", "sizes"), [(0.001, (39, 1)), (0.999, (1, 39))])
def test_both_parts_get_an_example(fraction: float, sizes: tuple[int, int]) -> None:
    rest, held = make().split_holdout(fraction)
    assert (len(rest), len(held)) == sizes


@pytest.mark.parametrize("n", [0, 41])
def test_calibration_count_out_of_range(n: int) -> None:
    with pytest.raises(BadArgument, match=f"toy: calibration: wanted from 1 to 40 images, found n={n}"):
        make().calibration(n)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_holdout_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(BadArgument, match=f"wanted a fraction between 0 and 1 .*found fraction={fraction}"):
        make().split_holdout(fraction)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_images_are_named(bad: float) -> None:
    train = pairs(0, 40)
    train[17] = (torch.full((1, 2, 2), bad), 0)
    with pytest.raises(NonFiniteError, match="NaN or infinity in 1 of 40, the first at training index 17"):
        make(train).calibration(40)


def test_empty_part() -> None:
    with pytest.raises(DataError, match="toy: wanted images in the train part, found none"):
        make([])


def test_another_shape() -> None:
    with pytest.raises(DataError, match=r"wanted images of shape \(1, 2, 2\), found \(1, 3, 3\) in train"):
        make([(torch.zeros(1, 3, 3), 0)])


def test_one_class() -> None:
    with pytest.raises(DataError, match="wanted at least 2 classes, found classes=1"):
        DataBundle(name="toy", train=pairs(0, 2), test=pairs(2, 4), classes=1, input_shape=(1, 2, 2))
