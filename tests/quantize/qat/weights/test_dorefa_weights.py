"""DoReFa weights: equations of the paper, gradients by autograd of the plain formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gracile.quantize.qat.weights import DoReFaWeights


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_values_are_the_formula(bits: int) -> None:
    weight, qmax = torch.randn(40), 2 ** (bits - 1) - 1
    squashed = torch.tanh(weight) / torch.tanh(weight).abs().max()
    rounded = DoReFaWeights(bits)(weight)
    torch.testing.assert_close(rounded, torch.round(squashed * qmax) / qmax)
    assert float(rounded.abs().max()) == pytest.approx(1)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bits", [2, 4])
def test_gradients_follow_the_chain_rule(
    bits: int, axis: int | None, slope: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
) -> None:
    torch.manual_seed(3)
    weight, g = torch.randn(3, 7, requires_grad=True), torch.randn(3, 7)
    quantizer = DoReFaWeights.of(weight.detach(), bits=bits, axis=axis)
    (quantizer(weight) * g).sum().backward()

    def surrogate(w: Tensor) -> Tensor:
        squashed = torch.tanh(w)
        rows = squashed.abs().reshape(1, -1) if axis is None else squashed.abs()
        largest = rows.amax(1, keepdim=axis is not None)
        return (squashed / largest * quantizer.spread(quantizer.gain.double(), w) * g).sum()

    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.double(), slope(surrogate, weight), rtol=1e-4, atol=1e-5)


def test_one_bit_is_the_sign_times_the_mean_with_a_straight_gradient() -> None:
    weight = torch.tensor([[0.1, -0.4, 1.0], [0.0, 2.0, -4.0]], requires_grad=True)
    quantizer = DoReFaWeights.of(weight.detach(), bits=1, axis=0)
    rounded = quantizer(weight)
    torch.testing.assert_close(rounded, torch.tensor([[0.5, -0.5, 0.5], [2.0, 2.0, -2.0]]))
    g = torch.randn(2, 3)
    (rounded * g).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, g)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gain_is_the_factor_of_least_squared_error(bits: int, axis: int | None) -> None:
    weight = 0.1 * torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    quantizer = DoReFaWeights.of(weight, bits=bits, axis=axis)
    best = (quantizer(weight) - weight).square().sum()
    for factor in (0.98, 1.02):
        other = DoReFaWeights(bits, axis=axis, channels=quantizer.channels)
        other.gain.copy_(quantizer.gain * factor)
        assert best < (other(weight) - weight).square().sum()


def test_brevitas_gives_the_same_signs_and_gradients() -> None:
    quant = pytest.importorskip("brevitas.core.quant")
    scaling = pytest.importorskip("brevitas.core.scaling")
    weight = torch.randn(30)
    mean = float(weight.abs().mean())
    peer = quant.BinaryQuant(scaling.ConstScaling(mean))
    ours, theirs = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    mine, other = DoReFaWeights(1)(ours), peer(theirs)[0]
    torch.testing.assert_close(mine, other)
    mine.sum().backward()
    other.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(
        ours.grad * mean, theirs.grad
    )  # its sign is straight, and is scaled afterwards
