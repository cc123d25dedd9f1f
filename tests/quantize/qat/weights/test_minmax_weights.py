"""Min-max weights against the post-training grid, and Brevitas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gracile.quantize import MinMax
from gracile.quantize.qat.weights import MinMaxWeights

arrays = hnp.arrays("float32", (4, 6), elements=st.floats(-8, 8, width=32))


@given(arrays, st.sampled_from([2, 3, 5, 8]), st.sampled_from([None, 0]))
def test_it_is_the_post_training_grid_of_the_extremes(array: object, bits: int, axis: int | None) -> None:
    weight = torch.as_tensor(array)
    rows = weight.reshape(1, -1) if axis is None else weight
    weight = torch.where(rows.abs().amax(1, keepdim=True) > 1e-30, rows, 1.0).reshape(4, 6)
    quantizer = MinMaxWeights(bits, axis=axis, channels=None if axis is None else 4)
    expected = MinMax()(weight, bits=bits, signed=True, symmetric=True, axis=axis).round(weight, axis)
    assert torch.equal(quantizer(weight), expected)


def test_the_gradient_passes_straight() -> None:
    weight = torch.randn(10, requires_grad=True)
    g = torch.randn(10)
    (MinMaxWeights(2)(weight) * g).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, g)


def test_the_step_follows_the_weights_of_each_pass() -> None:
    quantizer, weight = MinMaxWeights(4), torch.tensor([0.3, -1.4])
    assert float(quantizer.scale(weight)) == pytest.approx(0.2)
    assert float(quantizer.scale(10 * weight)) == pytest.approx(2)


def test_brevitas_gives_the_same_values() -> None:
    quant = pytest.importorskip("brevitas.quant.scaled_int")
    layers = pytest.importorskip("brevitas.nn")
    layer = layers.QuantLinear(
        16, 8, bias=False, weight_quant=quant.Int8WeightPerTensorFloat, weight_bit_width=4
    )
    weight = layer.weight.detach()
    torch.testing.assert_close(MinMaxWeights(4)(weight), layer.quant_weight().value.detach())
