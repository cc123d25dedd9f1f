"""Learned step size of weights: the paper's gradients, and Brevitas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gracile.quantize.qat.weights import LSQ


def relative_error(rounded: Tensor, weight: Tensor) -> float:
    return float((rounded.detach() - weight).norm() / weight.norm())


def test_gradients_are_equations_3_and_5() -> None:
    weight = torch.tensor([0.2, -0.9, 1.6, -7.0, 9.0], requires_grad=True)
    quantizer = LSQ(3)  # integers -3..3
    quantizer.learned_scale.data.fill_(2.0)
    g = torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0])
    (quantizer(weight) * g).sum().backward()
    # w/s is 0.1, -0.45, 0.8, -3.5, 4.5
    by_hand = 1 * (0 - 0.1) + 2 * (0 + 0.45) + 3 * (1 - 0.8) + 5 * -3 + 7 * 3
    assert weight.grad is not None
    assert quantizer.learned_scale.grad is not None
    assert weight.grad.tolist() == [1, 2, 3, 0, 0]
    assert float(quantizer.learned_scale.grad) == pytest.approx(by_hand / (5 * 3) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_step_follows_the_surrogate(
    bits: int, axis: int | None, slope: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
) -> None:
    """``round`` is replaced by ``x + constant`` with the constant that makes the value right."""
    torch.manual_seed(bits)
    weight, g = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    quantizer = LSQ.of(weight, bits=bits, axis=axis)
    quantizer.learned_scale.data.mul_(0.97)  # the largest weight may lie on the kink at the range's end
    (quantizer(weight) * g).sum().backward()
    at = quantizer.learned_scale.detach()
    ratio = (weight.double() / quantizer.spread(at.double(), weight)).clamp(-quantizer.qmax, quantizer.qmax)
    rest = torch.round(ratio) - ratio

    def surrogate(step: Tensor) -> Tensor:
        s = quantizer.spread(step, weight)
        return (((weight.double() / s).clamp(-quantizer.qmax, quantizer.qmax) + rest) * s * g.double()).sum()

    sharing = weight.numel() / at.numel()
    expected = slope(surrogate, at) / (sharing * quantizer.qmax) ** 0.5
    assert quantizer.learned_scale.grad is not None
    torch.testing.assert_close(quantizer.learned_scale.grad.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_start_beats_the_starts_of_both_papers(bits: int) -> None:
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    quantizer = LSQ.of(weight, bits=bits)
    ours = relative_error(quantizer(weight), weight)
    for step in (
        2 * weight.abs().mean() / quantizer.qmax**0.5,
        (weight.mean().abs() + 3 * weight.std()) / 2 ** (bits - 1),
    ):
        quantizer.learned_scale.data.copy_(step)
        assert ours <= relative_error(quantizer(weight), weight)


def test_a_step_that_changes_its_sign_goes_on_as_its_size() -> None:
    weight = torch.randn(20)
    quantizer = LSQ.of(weight, bits=4)
    before = quantizer(weight)
    quantizer.learned_scale.data.neg_()
    assert torch.equal(quantizer(weight), before)
    before.square().sum().backward()
    assert quantizer.learned_scale.grad is not None


def test_training_a_step_lowers_the_error_that_it_is_trained_on() -> None:
    weight = torch.randn(100, generator=torch.Generator().manual_seed(1))
    quantizer = LSQ(3)
    quantizer.learned_scale.data.fill_(1.8)
    optimizer = torch.optim.Adam([quantizer.learned_scale], lr=0.02)
    first = relative_error(quantizer(weight), weight)
    for _ in range(80):
        loss = (quantizer(weight) - weight).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = LSQ.of(weight, bits=3)
    assert relative_error(quantizer(weight), weight) < min(
        0.6 * first, 1.1 * relative_error(best(weight), weight)
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_brevitas_gives_the_same_values_and_gradients(bits: int) -> None:
    quant = pytest.importorskip("brevitas.core.quant")
    function_wrapper = pytest.importorskip("brevitas.core.function_wrapper")
    weight = torch.randn(50, generator=torch.Generator().manual_seed(2))
    quantizer = LSQ.of(weight, bits=bits)
    step = quantizer.learned_scale.detach()
    ratio = (weight / step).abs()
    weight = weight[(ratio < quantizer.qmax) | (ratio > quantizer.qmax + 0.5)]  # it clips after rounding
    peer = quant.IntQuant(narrow_range=True, signed=True, input_view_impl=function_wrapper.Identity())
    ours, theirs, s = weight.clone().requires_grad_(), weight.clone().requires_grad_(), step.clone()
    s.requires_grad_()
    g = torch.randn(len(weight))
    mine, other = quantizer(ours), peer(s, torch.tensor(0.0), torch.tensor(float(bits)), theirs)
    torch.testing.assert_close(mine, other)
    (mine * g).sum().backward()
    (other * g).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert quantizer.learned_scale.grad is not None
    assert s.grad is not None
    unscaled = quantizer.learned_scale.grad * (len(weight) * quantizer.qmax) ** 0.5
    torch.testing.assert_close(unscaled, s.grad, rtol=1e-4, atol=1e-4)
