"""LSQ+: the offset, its gradient, and what a skewed range gains."""

import pytest
import torch
from torch import nn

from gracile.quantize.qat.activations import LSQActivation, LSQPlus


def test_gradients_are_equations_5_and_6() -> None:
    quantizer = LSQPlus(2)
    quantizer.start_(-1.0, 2.0)  # step 1, offset -1
    x = torch.tensor([[-4.0, -0.2, 1.4, 7.0]], requires_grad=True)
    g = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    y = quantizer(x)
    assert y.tolist() == [[-1, 0, 1, 2]]
    (y * g).sum().backward()
    factor = (4 * 3) ** -0.5
    step = 1 * 0 + 2 * 0.2 + 3 * -0.4 + 5 * 3
    assert x.grad is not None
    assert quantizer.learned_scale.grad is not None
    assert quantizer.low_clip.grad is not None
    assert x.grad.tolist() == [[0, 2, 3, 0]]
    assert float(quantizer.learned_scale.grad) == pytest.approx(step * factor, rel=1e-5)
    assert float(quantizer.low_clip.grad) == pytest.approx((1 + 5) * factor, rel=1e-5)


def test_an_offset_that_wanders_above_zero_keeps_zero_on_the_grid() -> None:
    quantizer = LSQPlus(3)
    quantizer.low_clip.data.fill_(0.7)
    assert quantizer.grid()[1] == 0
    assert quantizer(torch.zeros(1)).item() == 0


def test_it_learns_the_range_of_a_skewed_activation() -> None:
    x = nn.functional.silu(3 * torch.randn(64, 30, generator=torch.Generator().manual_seed(0)))
    errors = []
    for kind in (LSQActivation, LSQPlus):
        quantizer = kind(3)
        quantizer.start_(float(x.min()), float(x.max()))
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
        for _ in range(80):
            loss = (quantizer(x) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[1] < 0.7 * errors[0]
