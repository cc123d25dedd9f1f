"""Input shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gracile.zoo import example_inputs, input_shape, load_model


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("gracile:resnet20", (3, 32, 32)),
        ("gracile:lenet", (1, 28, 28)),
        ("gracile:demo_net", (1, 8, 8)),
        ("gracile:sad", (13, 41)),
        ("gracile:wrn28_10", (3, 32, 32)),
        ("torchvision:resnet18", (3, 224, 224)),
        ("torchvision:inception_v3", (3, 299, 299)),
        ("mine.py:build", None),
        ("gracile:nothing", None),
    ],
)
def test_by_specification(spec: str, shape: tuple[int, ...] | None) -> None:
    assert input_shape(spec) == shape


def test_timm_by_specification_and_by_model() -> None:
    pytest.importorskip("timm")
    assert input_shape("timm:tf_efficientnet_lite0") == (3, 224, 224)
    assert input_shape("timm:tf_efficientnet_lite1") == (3, 240, 240)
    assert input_shape("timm:nothing") is None
    assert input_shape(load_model("timm:test_byobnet")) == input_shape("timm:test_byobnet")


def test_a_module_tells_its_own() -> None:
    model = nn.Flatten()
    assert input_shape(model) is None
    model.input_shape = (1, 5, 6)  # type: ignore[assignment]
    assert input_shape(model) == (1, 5, 6)


def test_example_inputs_repeat() -> None:
    assert torch.equal(example_inputs((1, 8, 8))[0], example_inputs((1, 8, 8))[0])
    assert not torch.equal(example_inputs((1, 8, 8))[0], example_inputs((1, 8, 8), seed=1)[0])
