"""Plain: an ordinary batch norm behind a rounded weight, its slope in the scales when deployed."""

from __future__ import annotations

import pytest
import torch

from gracile.quantize.qat.batch_norm import Plain
from gracile.quantize.qat.weights.base import NEXT_TO_NOTHING
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    built,
    rounded,
    same_statistics,
)


def test_the_weight_is_rounded_as_it_is() -> None:
    case = Case(rank=2, bias=True)
    pair = case.pair().float()
    layer = built(Plain, pair, bits=3)
    with torch.no_grad():
        pair[0].weight.copy_(rounded(pair[0].weight, 3))
    x = case.inputs(1)[0].float()
    torch.testing.assert_close(layer(x), pair(x))
    same_statistics(layer, pair)


@pytest.mark.parametrize("none", [0.0, -0.0, 1e-39])
def test_negative_slopes_turn_integers_and_a_slope_of_zero_makes_them_zero(none: float) -> None:
    pair = Case(rank=2).pair()
    with torch.no_grad():
        pair[1].weight.copy_(torch.tensor([2.0, -2.0, none]))
        pair[1].running_var.fill_(4.0 - pair[1].eps)
    layer = built(Plain, pair, bits=1).float()
    found, plain = layer.deployed(), layer.quantizer.integers(layer.weight)
    assert torch.equal(found.integers[0], plain[0])
    assert torch.equal(found.integers[1], -plain[1])
    assert not found.integers[2].any()
    step = layer.quantizer.scale(layer.weight)
    torch.testing.assert_close(found.scale[:2], step.expand(2))  # slopes 1 and -1
    assert found.scale[2] == NEXT_TO_NOTHING  # the bias alone is left
