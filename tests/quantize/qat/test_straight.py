"""Straight-through helpers: exact values, gradients as said."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gracile.quantize.qat.straight import keep_parameters, round_straight, scale_gradient, straight

floats = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20)


@given(floats)
def test_rounding_is_exact_and_its_gradient_is_one(values: list[float]) -> None:
    x = torch.tensor(values, requires_grad=True)
    y = round_straight(x)
    assert torch.equal(y, torch.round(x))
    y.backward(torch.arange(1.0, len(values) + 1))
    assert x.grad is not None
    assert x.grad.tolist() == list(range(1, len(values) + 1))


@given(floats, st.floats(2**-20, 10, width=32))
def test_a_scaled_gradient_leaves_the_value_to_the_last_bit(values: list[float], factor: float) -> None:
    x = torch.tensor(values, requires_grad=True)
    y = scale_gradient(x, factor)
    assert torch.equal(y, x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, factor))


def test_the_value_of_straight_gets_no_gradient() -> None:
    value, x = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    straight(value, x).sum().backward()
    assert value.grad is None
    assert x.grad is not None


def test_what_straight_returns_may_be_changed_in_place() -> None:
    value, x = torch.randn(3), torch.randn(3, requires_grad=True)
    before = value.clone()
    straight(value, x).add_(1).sum().backward()
    assert torch.equal(value, before)


def test_parameters_that_do_nothing_get_a_gradient_of_zero() -> None:
    module = nn.PReLU(3)
    x = torch.randn(2, 3, requires_grad=True)
    y = keep_parameters(x, module)
    assert torch.equal(y, x)
    y.sum().backward()
    assert module.weight.grad is not None
    assert torch.equal(module.weight.grad, torch.zeros(3))
    assert keep_parameters(x, module.eval()) is x
