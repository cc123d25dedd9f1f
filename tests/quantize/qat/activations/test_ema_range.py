"""Moving range: what it follows and when."""

from __future__ import annotations

import pytest
import torch

from gracile.errors import BadArgument
from gracile.observe import Histogram
from gracile.quantize import MovingAverage
from gracile.quantize.qat.activations import EMARange


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_is_the_moving_average_of_post_training_quantization(bits: int) -> None:
    quantizer, seen = EMARange(bits, momentum=0.9), Histogram("x")
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 3.0, 2.0):
        batch = scale * torch.randn(6, 5, generator=generator)
        quantizer(batch)
        seen.update(batch)
    expected = MovingAverage(momentum=0.9).of_histogram(seen, bits=bits, signed=False, symmetric=False)
    scale, zero_point, _, qmax = quantizer.grid()
    assert scale == pytest.approx(float(expected.scale), rel=1e-5)
    assert (zero_point, qmax) == (int(expected.zero_point), expected.qmax)


def test_the_first_batch_sets_the_range_unless_calibration_did() -> None:
    fresh, started = EMARange(8, momentum=0.5), EMARange(8, momentum=0.5)
    started.start_(0.0, 4.0)
    for quantizer in (fresh, started):
        quantizer(torch.tensor([0.0, 8.0]))
    assert float(fresh.high) == 8
    assert float(started.high) == 6


def test_it_watches_while_it_is_off_but_not_in_evaluation() -> None:
    quantizer = EMARange(4)
    quantizer.enabled = False
    quantizer(torch.tensor([-1.0, 3.0]))
    assert (float(quantizer.low), float(quantizer.high)) == (-1, 3)
    quantizer.eval()(torch.tensor([99.0]))
    quantizer.train().observing = False
    quantizer(torch.tensor([99.0]))
    assert float(quantizer.high) == 3


def test_momentum_outside_its_range_is_refused() -> None:
    with pytest.raises(BadArgument, match="momentum"):
        EMARange(4, momentum=1.0)
