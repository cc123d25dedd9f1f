"""How wide accumulators must be."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gracile.errors import BadArgument
from gracile.quantize import Nearest, Scheme, integer_forward, overflow_report, ptq
from gracile.quantize.integer.overflow import bits_for, worst_sums
from gracile.records import OverflowReport, from_json, to_json
from gracile.testing import net


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=4), st.integers(-50, 50), st.integers(-3, 0))
def test_the_worst_sum_is_the_worst_of_all_inputs(weight: list[int], bias: int, low: int) -> None:
    every = [sum(w * v for w, v in zip(weight, x, strict=True)) + bias
             for x in product(range(low, 4), repeat=len(weight))]  # fmt: skip
    found = worst_sums(torch.tensor([weight]), torch.tensor([bias]), low, 3)
    assert found == (min(0, *every), max(0, *every))


@given(st.integers(-(2**30), 2**30), st.integers(-(2**30), 2**30))
def test_bits_hold_and_no_fewer_do(one: int, other: int) -> None:
    low, high = sorted((one, other))
    bits = bits_for(low, high)
    assert -(2 ** (bits - 1)) <= low
    assert high <= 2 ** (bits - 1) - 1
    if bits > 1:
        assert not (-(2 ** (bits - 2)) <= low and high <= 2 ** (bits - 2) - 1)


def test_the_report_says_which_widths_hold() -> None:
    model, inputs = net("plain")
    data = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    quantized = ptq(model, inputs, [data], Scheme(rounding=Nearest()))
    report = overflow_report(quantized, data.split(8), bits=(12, 16, 32))
    assert report.images == 16
    assert [layer.layer for layer in report.layers] == ["conv1", "conv2", "fc1", "fc2"]
    for layer in report.layers:
        shares = dict(layer.beyond)
        assert layer.worst[0] <= layer.seen[0] <= layer.seen[1] <= layer.worst[1]
        assert shares[32] == 0 <= shares[16] <= shares[12] <= 1
        assert (shares[16] == 0) == (layer.seen_bits <= 16)
    assert dict(report.layers[2].beyond)[12] > 0
    assert report.layers[2].products == 12 * 16
    assert from_json(OverflowReport, to_json(report)) == report
    assert "fc1: 192 products" in str(report)
    exact = integer_forward(quantized, data)
    assert torch.equal(integer_forward(quantized, data, accumulator_bits=report.bits), exact)
    assert not torch.equal(integer_forward(quantized, data, accumulator_bits=12), exact)


def test_the_largest_sum_is_found_by_hand() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU())
    layer[0].weight.data.fill_(1.0)
    quantized = ptq(layer, (torch.zeros(1, 1, 2, 2),), [torch.ones(2, 1, 2, 2)], Scheme(rounding=Nearest()))
    found = overflow_report(quantized, [torch.ones(2, 1, 2, 2)]).layers[0]
    assert found.worst == (0, 127 * 255)
    assert found.seen == (0, 127 * 255)
    assert found.seen_bits == 16


def test_nothing_to_look_at_is_an_error() -> None:
    model, inputs = net("plain")
    quantized = ptq(model, inputs, [torch.randn(4, 3, 8, 8)], Scheme(rounding=Nearest()))
    with pytest.raises(BadArgument, match="at least one input"):
        overflow_report(quantized, [])
    with pytest.raises(BadArgument, match="8 to 32 bits"):
        overflow_report(quantized, [torch.randn(4, 3, 8, 8)], bits=(40,))
