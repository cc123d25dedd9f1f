"""Quantizers as modules: what they round to, what they store, and that gradients pass."""

from __future__ import annotations

import pytest
import torch

from gracile.nn import ActivationQuantizer, QuantizedBias, QuantizedWeight, fake_quantize, quantize


def test_activations_are_rounded_as_the_formula_says() -> None:
    x = torch.randn(1000) * 3
    found = ActivationQuantizer("a", 0.03, 100, 0, 255, 8)(x)
    assert torch.allclose(found, fake_quantize(x, torch.tensor(0.03), torch.tensor(100), 0, 255), atol=0.0301)
    assert (
        quantize(found, torch.tensor(0.03), torch.tensor(100), 0, 255) == found / 0.03 + 100
    ).float().mean() < 2
    assert float((found / 0.03 - (found / 0.03).round()).abs().max()) < 1e-3


def test_fewer_bits_use_fewer_levels() -> None:
    found = ActivationQuantizer("a", 0.5, 0, 0, 3, 2)(torch.linspace(-1, 9, 101))
    assert sorted(set(found.tolist())) == [0.0, 0.5, 1.0, 1.5]


def test_gradients_pass_inside_the_range_and_stop_outside() -> None:
    x = torch.tensor([-1.0, 0.3, 200.0], requires_grad=True)
    ActivationQuantizer("a", 0.5, 0, 0, 255, 8)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("axis", [None, 0])
def test_weights_are_stored_as_bytes_and_come_back(axis: int | None) -> None:
    weight = torch.randn(4, 3, 2, 2)
    scale = [0.02] if axis is None else [0.02, 0.03, 0.04, 0.05]
    module = QuantizedWeight("conv", weight, scale, [0] * len(scale), -127, 127, axis, 8)
    assert module.integers.dtype == torch.int8
    assert module.integers.shape == weight.shape
    steps = torch.tensor(scale).reshape(-1, 1, 1, 1)
    inside = weight.clamp(-127 * steps, 127 * steps)
    assert bool(((module() - inside).abs() <= 0.5001 * steps).all())


def test_bias_is_stored_in_steps_of_the_accumulator() -> None:
    bias, scale = torch.tensor([0.5, -3.0]), torch.tensor([1e-4, 2e-4])
    module = QuantizedBias("conv", bias, scale)
    assert module.integers.dtype == torch.int32
    assert module.integers.tolist() == [5000, -15000]
    assert torch.allclose(module(), bias)


def test_a_bias_too_large_for_32_bits_saturates() -> None:
    module = QuantizedBias("conv", torch.tensor([1e9]), torch.tensor([1e-9]))
    assert module.integers.item() == 2**31 - 1


@pytest.mark.parametrize(
    ("zero_point", "qmin", "qmax"), [(0, 0, 255), (128, 0, 255), (3, 0, 15), (97, 40, 200)]
)
def test_without_a_gradient_every_bit_is_the_same(zero_point: int, qmin: int, qmax: int) -> None:
    """The quick way and PyTorch's own operation, halves of steps and values far outside included."""
    chance = torch.Generator().manual_seed(zero_point)
    for power in range(-6, 4):
        scale = float(torch.rand((), generator=chance) + 0.01) * 10.0**power
        quantizer = ActivationQuantizer("x", scale, zero_point, qmin, qmax, 8)
        x = torch.cat([torch.randn(4000, generator=chance) * 100, torch.arange(-400, 400) + 0.5]) * scale
        with_gradient = quantizer(x.clone().requires_grad_())
        assert torch.equal(quantizer(x), with_gradient.detach())
