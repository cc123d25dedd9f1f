"""Uniform affine quantization, against numpy and against ONNX's own definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gracile.nn import dequantize, fake_quantize, quantize

values = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40)
scales = st.floats(0.015625, 4.0, width=32)


@given(values, scales, st.integers(0, 255))
def test_within_half_a_step_inside_the_range(x: list[float], scale: float, zero_point: int) -> None:
    s, z = torch.tensor(scale), torch.tensor(zero_point)
    inside = torch.tensor(x).clamp((0 - zero_point) * scale, (255 - zero_point) * scale)
    error = (fake_quantize(inside, s, z, 0, 255) - inside).abs().max()
    assert float(error) <= 0.5 * scale * (1 + 1e-4)


@given(values, scales, st.integers(0, 15))
def test_rounding_twice_is_rounding_once(x: list[float], scale: float, zero_point: int) -> None:
    s, z = torch.tensor(scale), torch.tensor(zero_point)
    once = fake_quantize(torch.tensor(x), s, z, 0, 15)
    assert torch.equal(fake_quantize(once, s, z, 0, 15), once)


@given(values, scales, st.integers(-8, 7))
def test_the_definition_written_out(x: list[float], scale: float, zero_point: int) -> None:
    s, z = torch.tensor(scale), torch.tensor(zero_point)
    ours = quantize(torch.tensor(x), s, z, -8, 7)
    slow = [min(max(round(float(np.float32(v) / np.float32(scale))) + zero_point, -8), 7) for v in x]
    assert ours.tolist() == slow
    assert torch.allclose(dequantize(ours, s, z), torch.tensor([scale * (q - zero_point) for q in slow]))


@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_has_its_own_scale(axis: int) -> None:
    x = torch.randn(3, 4, 2)
    scale = torch.rand(x.shape[axis]) + 0.1
    zero = torch.zeros_like(scale)
    found = fake_quantize(x, scale, zero, -7, 7, axis)
    for i, s in enumerate(scale):
        part = fake_quantize(x.select(axis, i), s, torch.tensor(0.0), -7, 7)
        assert torch.equal(found.select(axis, i), part)
