"""From a range to a grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.quantize import grid, limits

bits = st.sampled_from([2, 3, 4, 8])
ends = st.floats(0, 100, width=32)


@given(ends, ends, bits, st.booleans(), st.booleans())
def test_zero_is_on_the_grid_and_the_range_is_covered(
    a: float, b: float, bits: int, signed: bool, symmetric: bool
) -> None:
    low, high = torch.tensor(-a), torch.tensor(b)
    g = grid(low, high, bits=bits, signed=signed, symmetric=symmetric)
    assert float(g.round(torch.tensor(0.0))) == 0.0
    assert g.qmax - g.qmin < 2**bits
    assert g.qmin <= float(g.zero_point) <= g.qmax
    step = float(g.scale)
    for end in (low, high):
        assert abs(float(g.round(end) - end)) <= 0.5001 * step + 1e-6


@given(ends, bits)
def test_a_range_above_zero_wastes_no_level_on_negatives(high: float, bits: int) -> None:
    for symmetric in (True, False):
        g = grid(torch.tensor(0.0), torch.tensor(high), bits=bits, signed=False, symmetric=symmetric)
        assert float(g.zero_point) == 0


def test_unsigned_symmetric_has_its_zero_in_the_middle() -> None:
    g = grid(torch.tensor(-4.0), torch.tensor(1.0), bits=4, signed=False, symmetric=True)
    assert (float(g.zero_point), float(g.scale)) == (8.0, 0.5)


def test_signed_symmetric_mirrors() -> None:
    assert [limits(b, signed=True, symmetric=True) for b in (2, 3, 4, 8)] == [
        (-1, 1),
        (-3, 3),
        (-7, 7),
        (-127, 127),
    ]


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(BadArgument, match="2 to 8"):
        limits(bits, signed=True, symmetric=True)
