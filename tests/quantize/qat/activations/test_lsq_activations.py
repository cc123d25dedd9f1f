"""Learned step size of activations: the factor of its gradient, signed ranges, and Brevitas."""

from __future__ import annotations

import pytest
import torch

from gracile.quantize.qat.activations import LSQActivation


def test_gradients_are_equations_3_and_5() -> None:
    quantizer = LSQActivation(2)
    quantizer.start_(0.0, 6.0)  # step 2
    x = torch.tensor([[0.2, 1.6, 9.0], [-3.0, 3.4, 5.0]], requires_grad=True)
    g = torch.tensor([[1.0, 2.0, 3.0], [5.0, 7.0, 11.0]])
    y = quantizer(x)
    assert y.tolist() == [[0, 2, 6], [0, 4, 4]]
    (y * g).sum().backward()
    by_hand = 1 * (0 - 0.1) + 2 * (1 - 0.8) + 3 * 3 + 0 + 7 * (2 - 1.7) + 11 * (2 - 2.5)
    assert x.grad is not None
    assert quantizer.learned_scale.grad is not None
    assert x.grad.tolist() == [[1, 2, 0], [0, 7, 11]]
    factor = (3 * 3) ** -0.5  # three values an example, qmax 3
    assert float(quantizer.learned_scale.grad) == pytest.approx(by_hand * factor, rel=1e-5)


def test_the_size_of_the_batch_does_not_change_the_step_of_a_mean_loss() -> None:
    x = torch.rand(4, 10)
    gradients = []
    for batch in (x, x.repeat(5, 1)):
        quantizer = LSQActivation(3)
        quantizer.start_(0.0, 0.8)
        quantizer(batch).sum(1).mean().backward()
        gradients.append(quantizer.learned_scale.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_ranges_with_negative_values_get_signed_integers(bits: int) -> None:
    quantizer = LSQActivation(bits)
    quantizer.start_(-1.0, 0.5)
    scale, zero_point, _, qmax = quantizer.grid()
    assert zero_point == 2 ** (bits - 1)
    assert -zero_point * scale == pytest.approx(-1.0) or (qmax - zero_point) * scale == pytest.approx(0.5)
    assert quantizer(torch.tensor([-0.9])).item() < 0


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (-1.0, 3.0, [0, 0, 3, 3]),
        (-3.0, 3.0, [0, 0, 3, 3]),
        (-3.0, 1.0, [-3, -3, 0, 0]),
        (-2.0, 0.0, [-2] * 2 + [0] * 2),
    ],
)
def test_one_bit_keeps_the_side_of_zero_that_reaches_further(
    low: float, high: float, values: list[float]
) -> None:
    quantizer = LSQActivation(1)
    quantizer.start_(low, high)
    assert quantizer(torch.tensor([-3.0, -2.0, 2.0, 3.0])).tolist() == values


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_signed_integers_that_fall_to_one_bit_keep_their_positive_side(bits: int) -> None:
    quantizer = LSQActivation(bits)
    quantizer.start_(-1.0, 1.0)
    quantizer.change_bits_(1)
    scale, zero_point, _, _ = quantizer.grid()
    assert zero_point == 0
    assert scale > 0.4


@pytest.mark.parametrize("signed", [False, True])
def test_brevitas_gives_the_same_values_and_gradients(signed: bool) -> None:
    quant = pytest.importorskip("brevitas.core.quant")
    function_wrapper = pytest.importorskip("brevitas.core.function_wrapper")
    torch.manual_seed(0)
    quantizer = LSQActivation(4)
    quantizer.start_(-2.0 if signed else 0.0, 1.9)
    step = quantizer.learned_scale.detach()
    low, high = (-8, 7) if signed else (0, 15)
    x = 2 * torch.randn(1, 300)
    ratio = x / step  # it clips after rounding
    x = x[((ratio > low) & (ratio < high)) | (ratio < low - 0.5) | (ratio > high + 0.5)].reshape(1, -1)
    peer = quant.IntQuant(narrow_range=False, signed=signed, input_view_impl=function_wrapper.Identity())
    ours, theirs, s = x.clone().requires_grad_(), x.clone().requires_grad_(), step.clone().requires_grad_()
    g = torch.randn(x.shape)
    mine, other = quantizer(ours), peer(s, torch.tensor(0.0), torch.tensor(4.0), theirs)
    torch.testing.assert_close(mine, other)
    (mine * g).sum().backward()
    (other * g).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert quantizer.learned_scale.grad is not None
    assert s.grad is not None
    unscaled = quantizer.learned_scale.grad * (x.numel() * high) ** 0.5
    torch.testing.assert_close(unscaled, s.grad, rtol=1e-4, atol=1e-4)
