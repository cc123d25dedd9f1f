"""PACT: the end of the range and its gradient."""

import pytest
import torch

from gracile.errors import BadArgument
from gracile.quantize.qat.activations import PACT


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_values_are_equation_2(bits: int) -> None:
    quantizer = PACT(bits)
    quantizer.start_(0.0, 1.7)
    x = torch.linspace(-1, 3, 101)
    levels = 2**bits - 1
    expected = torch.round(x.clamp(0, 1.7) * levels / 1.7) * 1.7 / levels
    torch.testing.assert_close(quantizer(x), expected)


def test_the_end_learns_from_what_lies_above_it_alone() -> None:
    quantizer = PACT(3)
    quantizer.start_(0.0, 2.0)
    x = torch.tensor([-1.0, 0.5, 1.9, 2.5, 9.0], requires_grad=True)
    g = torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0])
    (quantizer(x) * g).sum().backward()
    assert x.grad is not None
    assert quantizer.clip.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 0, 0]
    assert float(quantizer.clip.grad) == 12


def test_weight_decay_draws_the_end_towards_zero() -> None:
    quantizer = PACT(3)
    quantizer.start_(0.0, 2.0)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1, weight_decay=1.0)
    quantizer(torch.rand(10)).sum().backward()  # nothing lies above
    optimizer.step()
    assert float(quantizer.clip.detach()) == pytest.approx(1.8)


def test_negative_ranges_are_refused() -> None:
    with pytest.raises(BadArgument, match="lsq_plus"):
        PACT(4).start_(-0.1, 1.0)
