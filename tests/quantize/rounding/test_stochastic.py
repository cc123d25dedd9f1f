"""Rounding by chance: right on average, reproducible, never further than a neighbour."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gracile.errors import BadArgument
from gracile.nn import QuantizedWeight
from gracile.quantize import Bits, PerGroup, PerTensor, Scheme, Stochastic, ptq
from gracile.quantize.rounding import round_by_chance


@given(st.floats(-20, 20), st.integers(0, 1000))
def test_a_neighbour_and_the_mean(value: float, seed: int) -> None:
    x = torch.full((4000,), value)
    drawn = round_by_chance(x, torch.Generator().manual_seed(seed))
    assert set(drawn.tolist()) <= {float(torch.floor(x[0])), float(torch.floor(x[0])) + 1}
    assert abs(float(drawn.mean() - x[0])) < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize("granularity", [None, PerTensor(), PerGroup(size=1)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_stored_weights_are_neighbours_of_the_float_ones(granularity: object, symmetric: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3)).eval()
    model[0].weight.data[0, 0] = 0.0
    x = torch.randn(8, 3, 6, 6)
    stored = []
    for seed in (0, 0, 1):
        scheme = Scheme(
            weight_bits=4,
            ends=Bits(),
            weight_symmetric=symmetric,
            weight_range="minmax",
            rounding=Stochastic(seed=seed),
            **({} if granularity is None else {"weight_granularity": granularity}),
        )
        quantized = ptq(model, (x[:1],), [x], scheme)
        layer = next(m for m in quantized.modules() if isinstance(m, QuantizedWeight))
        weight = model[0].weight.detach()
        scale = layer.scale.reshape(*layer.scale.shape, *[1] * (4 - layer.scale.dim()))
        assert float(((layer() - weight).abs() / scale).max()) < 1 + 1e-4
        assert bool((layer()[0, 0] == 0).all())
        stored.append(layer.integers)
    assert torch.equal(stored[0], stored[1])
    assert not torch.equal(stored[0], stored[2])


def test_no_data_is_needed_and_seeds_are_checked() -> None:
    assert not Stochastic().needs_data
    with pytest.raises(BadArgument, match="at least 0"):
        Stochastic(seed=-1)
