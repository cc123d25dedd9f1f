"""Clipped normals against samples and known values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.quantize.moments import clipped_moments, normal

NORMAL = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@settings(max_examples=40)
@given(
    mu=st.floats(-3, 3),
    sigma=st.floats(0.01, 4),
    low=st.floats(-4, 1) | st.just(-math.inf),
    width=st.floats(0, 5) | st.just(math.inf),
)
def test_moments_are_those_of_samples(mu: float, sigma: float, low: float, width: float) -> None:
    high = low + width if math.isfinite(low) else width
    x = (mu + sigma * NORMAL).clamp(low, high)
    found = clipped_moments(*(torch.tensor(v, dtype=torch.float64) for v in (mu, sigma, low, high)))
    assert float(found[0]) == pytest.approx(float(x.mean()), abs=0.012 * sigma + 1e-9)
    assert float(found[1]) == pytest.approx(float(x.var()), abs=0.015 * sigma**2 + 1e-9)


def test_relu_of_a_standard_normal() -> None:
    rectified = normal(torch.zeros(1).double(), torch.ones(1).double()).clip(0.0, math.inf)
    assert float(rectified.mean) == pytest.approx(1 / math.sqrt(2 * math.pi))
    assert float(rectified.variance) == pytest.approx(0.5 - 1 / (2 * math.pi))


def test_clipping_twice_is_clipping_to_what_both_leave() -> None:
    base = normal(torch.zeros(1), torch.ones(1))
    twice, once = base.clip(-1.0, 2.0).clip(0.0, 9.0), base.clip(0.0, 2.0)
    assert torch.equal(twice.mean, once.mean)
    assert torch.equal(twice.variance, once.variance)


def test_spans_reach_sigmas_and_no_further_than_bounds() -> None:
    mu, sigma = torch.tensor([0.0, -9.0]), torch.tensor([1.0, 1.0])
    low, high = normal(mu, sigma).clip(0.0, 4.0).span(6.0)
    assert (low.tolist(), high.tolist()) == ([0.0, 0.0], [4.0, 0.0])
    low, high = normal(mu, sigma).span(2.0)
    assert (low.tolist(), high.tolist()) == ([-2.0, -11.0], [2.0, -7.0])


def test_channels_take_all_positions_together() -> None:
    mu = torch.tensor([[[1.0, 3.0], [0.0, 0.0]]])
    taken = normal(mu, torch.ones_like(mu)).channels()
    assert taken.mu.tolist() == [2.0, 0.0]
    assert taken.sigma.tolist() == pytest.approx([math.sqrt(2), 1.0])
