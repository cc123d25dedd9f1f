"""XNOR weights: least squares, and the gradient of the product."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gracile.quantize.qat.weights import XNOR

arrays = hnp.arrays("float32", (3, 5), elements=st.floats(-2, 2, width=32))


@given(arrays, st.floats(0.01, 3), st.lists(st.booleans(), min_size=15, max_size=15))
def test_no_other_signs_and_factor_come_nearer(array: object, factor: float, signs: list[bool]) -> None:
    weight = torch.as_tensor(array)
    best = (XNOR(1)(weight) - weight).square().sum()
    other = factor * torch.where(torch.tensor(signs).reshape(3, 5), 1.0, -1.0)
    assert best <= (other - weight).square().sum() + 1e-4


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bounded", [False, True])
def test_gradients_are_the_product_rule(bounded: bool, axis: int | None) -> None:
    weight = torch.tensor([[0.3, -0.7, 2.0], [-1.5, 0.2, 0.4]], requires_grad=True)
    g = torch.tensor([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]])
    quantizer = XNOR(1, axis=axis, channels=None if axis is None else 2, bounded=bounded)
    (quantizer(weight) * g).sum().backward()
    signs, w = weight.detach().sign(), weight.detach()
    over = {"dim": 1, "keepdim": True} if axis == 0 else {}
    inside = (w.abs() <= 1) if bounded else torch.ones_like(w, dtype=torch.bool)
    count = 3 if axis == 0 else 6
    expected = w.abs().mean(**over) * g * inside + signs / count * (g * signs).sum(**over)
    torch.testing.assert_close(weight.grad, expected)
