"""Symmetric 2-bit weights: three values, zero below half of the largest."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gracile.quantize.qat.weights import Symmetric2


@given(hnp.arrays("float32", 12, elements=st.floats(-8, 8, width=32)).filter(lambda a: abs(a).max() > 1e-30))
def test_what_lies_below_half_of_the_largest_weight_is_zero(array: object) -> None:
    weight = torch.as_tensor(array)
    a = float(weight.abs().max())
    clear = ((weight.abs() / a) - 0.5).abs() > 1e-6  # ties may fall either way
    expected = torch.where(weight.abs() > a / 2, a * weight.sign(), torch.zeros(12))
    assert torch.equal(Symmetric2(2)(weight)[clear], expected[clear])


def test_more_than_seventy_percent_of_gaussian_weights_are_zero() -> None:
    weight = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    assert float((Symmetric2(2).integers(weight) == 0).float().mean()) > 0.7
