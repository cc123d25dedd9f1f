"""Predictions of modules and of runners."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gracile.data import load_data
from gracile.errors import BadArgument, DataError, NonFiniteError, UnsupportedOperation
from gracile.measure import accuracy, outputs, predictions
from gracile.zoo import load_model


def pairs(count: int = 10, classes: int = 4) -> list[tuple[Tensor, int]]:
    """Images that are logits already: image ``i`` says class ``i % classes``."""
    eye = torch.eye(classes)
    return [(eye[i % classes], (i + i // 5) % classes) for i in range(count)]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_module_and_runner_agree_with_the_data(batch_size: int) -> None:
    for model in (nn.Identity(), lambda x: x):
        predicted, labels = predictions(model, pairs(), batch_size)
        assert predicted.tolist() == [i % 4 for i in range(10)]
        assert labels.tolist() == [(i + i // 5) % 4 for i in range(10)]
        assert predicted.dtype == labels.dtype == np.int64


def test_outputs_are_the_logits() -> None:
    logits, _ = outputs(nn.Linear(4, 5), pairs(), batch_size=4)
    assert logits.shape == (10, 5)
    assert logits.dtype == np.float32


def test_evaluation_mode_is_used_and_the_old_mode_comes_back() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(4).eval())
    first, _ = outputs(model, pairs())
    second, _ = outputs(model, pairs())
    assert np.array_equal(first, second)
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_the_mode_comes_back_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(5, 2))
    with pytest.raises(RuntimeError):
        predictions(model, pairs())
    assert model.training


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    predictions(nn.Identity(), pairs(), 4, on_batch=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_outputs(bad: float) -> None:
    data = pairs()
    data[5] = (torch.full((4,), bad), 0)
    with pytest.raises(
        NonFiniteError, match=r"Identity, images 3 to 5: .*found NaN or infinity for 1 of 3 images"
    ):
        predictions(nn.Identity(), data, 3)
    with pytest.raises(NonFiniteError, match="runtime, images 3 to 5"):
        predictions(lambda x: x, data, 3)


def test_outputs_of_another_shape() -> None:
    with pytest.raises(
        UnsupportedOperation, match=r"wanted outputs of shape \(10, classes\), found shape \(10,\)"
    ):
        predictions(lambda x: x[:, 0], pairs())

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(UnsupportedOperation, match="Two: wanted one tensor as output, found a tuple"):
        predictions(Two(), pairs())


def test_labels_beyond_the_outputs() -> None:
    with pytest.raises(
        DataError, match="wanted labels from 0 to 1, one for each output, found labels from 0 to 3"
    ):
        predictions(lambda x: x[:, :2], pairs())


def test_nothing_to_predict() -> None:
    with pytest.raises(DataError, match="wanted examples to predict, found none"):
        predictions(nn.Identity(), [])
    with pytest.raises(BadArgument, match="batch_size: wanted at least 1"):
        predictions(nn.Identity(), pairs(), 0)


def test_published_weights_on_the_shared_images(data_root: Path) -> None:
    file = data_root / "weights" / "cifar10_resnet56.safetensors"
    model = load_model("gracile:resnet56", weights=file)
    result = accuracy(*predictions(model, load_data("cifar10", data_root).test))
    assert result.n == 1000
    assert result.percent == pytest.approx(92.6, abs=0.11)  # one image may tip by rounding


class Remembers(nn.Module):
    """Makes a table in its first pass and uses it in all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(4, 4), None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0, 1, 4)
        return self.layer(x * self.table)


def test_a_model_that_keeps_tensors_can_be_trained_afterwards() -> None:
    model = Remembers()
    predictions(model, pairs())
    model(torch.ones(2, 4, requires_grad=True)).sum().backward()
    assert model.layer.weight.grad is not None


def test_images_take_the_type_of_the_model() -> None:
    logits, _ = outputs(nn.Linear(4, 5).bfloat16(), pairs())
    assert logits.dtype == np.float32
    indices = [(torch.tensor([1, 2]), 0)] * 3
    model = nn.Sequential(nn.Embedding(3, 4), nn.Flatten()).bfloat16()
    assert outputs(model, indices)[0].shape == (3, 8)
