"""Rounding with the gradients of its range, against a slow version by autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gracile.quantize.qat.activations import round_to_grid
from gracile.quantize.qat.straight import round_straight

settings_ = settings(max_examples=40)


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return 3 * torch.randn(4, 7), torch.randn(4, 7)


@settings_
@given(st.integers(0, 10**6), st.floats(0.1, 2), st.integers(0, 15), st.sampled_from([15, 255]))
def test_the_step_is_that_of_plain_operations(seed: int, size: float, zero: int, qmax: int) -> None:
    x, g = inputs(seed)
    zero_point = torch.tensor(zero, dtype=torch.int32)

    def slow(x: Tensor, scale: Tensor) -> Tensor:
        return round_straight((x / scale).clamp(-zero, qmax - zero)) * scale

    both = []
    for function in (slow, lambda x, scale: round_to_grid(x, scale, zero_point, qmax)):
        own, scale = x.clone().requires_grad_(), torch.tensor(size, requires_grad=True)
        y = function(own, scale)
        (y * g).sum().backward()
        assert own.grad is not None
        assert scale.grad is not None
        both.append((y.detach(), own.grad, scale.grad))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@settings_
@given(st.integers(0, 10**6), st.floats(0.1, 1), st.integers(0, 15))
def test_the_offset_is_that_of_plain_operations(seed: int, size: float, zero: int) -> None:
    x, g = inputs(seed)
    scale, zero_point = torch.tensor(size, requires_grad=True), torch.tensor(zero, dtype=torch.int32)
    offset = (-zero * scale.detach()).requires_grad_()
    (round_to_grid(x, scale, zero_point, 15, offset=offset) * g).sum().backward()
    s, o = scale.detach().clone().requires_grad_(), offset.detach().clone().requires_grad_()
    slow = round_straight(((x - o) / s).clamp(0, 15)) * s + o
    (slow * g).sum().backward()
    torch.testing.assert_close(scale.grad, s.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(offset.grad, o.grad, rtol=1e-4, atol=1e-3)


@settings_
@given(st.integers(0, 10**6), st.floats(0.1, 4))
def test_the_clip_is_that_of_plain_operations(seed: int, end: float) -> None:
    x, g = inputs(seed)
    clip = torch.tensor(end, requires_grad=True)
    zero = torch.tensor(0, dtype=torch.int32)
    (round_to_grid(x, clip.detach() / 15, zero, 15, clip=clip) * g).sum().backward()
    a = clip.detach().clone().requires_grad_()
    (torch.minimum(x.clamp(min=0), a) * g).sum().backward()
    torch.testing.assert_close(clip.grad, a.grad, rtol=1e-4, atol=1e-4)


def test_no_gradient_is_computed_that_nobody_asked_for() -> None:
    x = torch.randn(5, requires_grad=True)
    scale, zero = torch.tensor(0.1), torch.tensor(3, dtype=torch.int32)
    y = round_to_grid(x, scale, zero, 7)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert set(gradient.tolist()) <= {0.0, 1.0}
    assert not round_to_grid(x.detach(), scale, zero, 7).requires_grad


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4, 5)])
def test_any_shape_and_layout(shape: tuple[int, ...]) -> None:
    x, scale, zero = (
        torch.randn(shape),
        torch.tensor(0.1, requires_grad=True),
        torch.tensor(0, dtype=torch.int32),
    )
    if len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    y = round_to_grid(x, scale, zero, 7)
    assert y.shape == x.shape
    y.sum().backward()
    assert scale.grad is not None
    assert bool(torch.isfinite(scale.grad))
