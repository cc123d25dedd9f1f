"""Activations in 0..1."""

import pytest
import torch

from gracile.quantize.qat.activations import UnitRange


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_values_are_the_formula(bits: int) -> None:
    x = torch.linspace(-2, 3.01, 211)
    levels = 2**bits - 1
    torch.testing.assert_close(UnitRange(bits)(x), torch.round(x.clamp(0, 1) * levels) / levels)


def test_one_bit_has_two_values_and_a_gradient_between_them() -> None:
    x = torch.tensor([-0.1, 0.2, 0.8, 1.1], requires_grad=True)
    y = UnitRange()(x)
    assert y.tolist() == [0, 0, 1, 1]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_calibration_changes_nothing() -> None:
    quantizer = UnitRange(2)
    before = quantizer.grid()
    quantizer.start_(-5.0, 5.0)
    assert quantizer.grid() == before
    assert not quantizer.state_dict()
