"""Entropy: the divergence is that of a loop over bins, and its least is that of a dense scan."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.observe import Histogram
from gracile.quantize import KL, Grid, MinMax, grid
from gracile.quantize.ranges.kl import divergence

PARTS = 8
SHAPES = {
    "normal": lambda rng: rng.normal(size=4000),
    "outlier": lambda rng: np.append(rng.normal(size=4000), 15.0),
    "relu": lambda rng: np.maximum(rng.normal(size=4000), 0),
    "shifted": lambda rng: rng.normal(size=4000) + 1.5,
    "heavy": lambda rng: rng.laplace(size=4000),
}


def by_hand(x: np.ndarray, g: Grid, parts: int = PARTS) -> float:
    """The criterion as its text says it, level by level."""
    scale, zero, qmin, qmax = float(g.scale), float(g.zero_point), g.qmin, g.qmax
    at = x[x != 0].astype(np.float64) / scale + zero
    inside = at[(at >= qmin - 1e-4) & (at < qmax + 1e-4)]
    below, above = (at < qmin - 1e-4).sum(), (at >= qmax + 1e-4).sum()
    p, q = [], []
    for level in range(qmin, qmax + 1):
        edges = level - 0.5 + np.arange(parts + 1) / parts
        edges = edges[(edges >= qmin) & (edges <= qmax)]
        cut = edges.copy()
        cut[cut == qmin] -= 1e-4
        cut[cut == qmax] += 1e-4
        counts = np.array([((inside >= a) & (inside < b)).sum() for a, b in pairwise(cut)])
        all_of_it = counts.astype(float)
        all_of_it[0] += below if level == qmin else 0
        all_of_it[-1] += above if level == qmax else 0
        used = all_of_it > 0
        p.append(all_of_it)
        q.append(used * counts.sum() / max(used.sum(), 1))
    flat_p, flat_q = (np.concatenate(v) / max(np.concatenate(v).sum(), 1e-300) for v in (p, q))
    mass = flat_p > 0
    with np.errstate(divide="ignore"):
        return float((flat_p[mass] * np.log(flat_p[mass] / flat_q[mass])).sum())


def found_for(x: np.ndarray, g: Grid) -> list[float]:
    """The divergence of each of several grids on the same values."""
    ordered, zeros = torch.from_numpy(x).double().sort().values, int((x == 0).sum())

    def below(edges: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(ordered, edges.contiguous()).double() - zeros * (edges > 0)

    scale, zero_point = g.scale.double().reshape(-1), g.zero_point.double().reshape(-1)
    rows = Grid(scale=scale, zero_point=zero_point, qmin=g.qmin, qmax=g.qmax)
    return list(divergence(below, rows, PARTS).tolist())


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(1, 60),
    st.floats(0.1, 3),
    st.sampled_from([2, 3, 4]),
    st.booleans(),
    st.booleans(),
)
def test_the_divergence_is_the_sum_written_out(
    seed: int, count: int, reach: float, bits: int, signed: bool, symmetric: bool
) -> None:
    x = np.round(np.random.default_rng(seed).normal(size=count) * 3) / 3 + 1e-3  # some values meet
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (-reach, reach / 2))
    g = grid(low, high, bits=bits, signed=signed, symmetric=symmetric)
    assert found_for(x, g)[0] == pytest.approx(by_hand(x, g), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("signed", "symmetric"), [(True, True), (False, False)])
def test_as_good_as_a_dense_scan(shape: str, bits: int, signed: bool, symmetric: bool) -> None:
    x = SHAPES[shape](np.random.default_rng(0)).astype(np.float32).astype(np.float64)
    found = KL()(torch.from_numpy(x), bits=bits, signed=signed, symmetric=symmetric)
    one_sided = symmetric or x.min() >= 0
    shares = torch.linspace(0.02, 1, 200 if one_sided else 40).double()
    pairs = torch.stack([shares, shares], 1) if one_sided else torch.cartesian_prod(shares, shares)
    ends = pairs[:, 0] * x.min(), pairs[:, 1] * x.max()
    best = min(found_for(x, grid(*ends, bits=bits, signed=signed, symmetric=symmetric)))
    assert found_for(x, found)[0] <= best * 1.1 + 1e-3


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_few_bits_clip_more_and_never_most_of_the_values(bits: int) -> None:
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    reach = [
        float(g.scale * g.qmax) for g in (KL()(x, bits=b, signed=True, symmetric=True) for b in (bits, 8))
    ]
    assert 1.2 < reach[0] <= reach[1] * 1.01
    if bits < 8:
        errors = [
            float((kind(x, bits=bits, signed=True, symmetric=True).round(x) - x).square().mean())
            for kind in (KL(), MinMax())
        ]
        assert errors[0] < errors[1] * 0.7


@pytest.mark.parametrize(("shape", "bits"), [("relu", 2), ("relu", 4), ("relu", 8), ("shifted", 3)])
def test_batches_together_are_one_tensor(shape: str, bits: int) -> None:
    draws = [SHAPES[shape](np.random.default_rng(i)) for i in range(8)]
    x = torch.from_numpy(np.concatenate(draws).astype(np.float32))
    seen = Histogram("x")
    for part in x.split(7000):
        seen.update(part)
    one = KL()(x, bits=bits, signed=False, symmetric=False)
    other = KL().of_histogram(seen, bits=bits, signed=False, symmetric=False)
    near = [found_for(x.double().numpy(), g)[0] for g in (one, other)]
    assert near[1] <= near[0] * 1.15 + 0.02


def test_each_channel_by_itself() -> None:
    x = torch.randn(4, 500) * torch.tensor([0.1, 1.0, 10.0, 0.0]).reshape(-1, 1)
    together = KL()(x, bits=4, signed=True, symmetric=True, axis=0)
    for i, row in enumerate(x):
        alone = KL()(row, bits=4, signed=True, symmetric=True)
        assert float(together.scale[i]) == pytest.approx(float(alone.scale), rel=1e-5)


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.0], [-2.0, -2.0], [0.0, 1e6], [0.0, 5.0, 0.0]])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_few_equal_values_stay_on_the_grid(values: list[float], bits: int) -> None:
    x = torch.tensor(values)
    seen = Histogram("x")
    seen.update(x)
    for g in (
        KL()(x, bits=bits, signed=False, symmetric=False),
        KL().of_histogram(seen, bits=bits, signed=False, symmetric=False),
    ):
        assert g.round(x).tolist() == pytest.approx(values, rel=0.01)


def test_nothing_seen_gives_a_grid_of_zero() -> None:
    found = KL().of_histogram(Histogram("x"), bits=4, signed=False, symmetric=False)
    assert found.round(torch.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("field", "value"), [("steps", 3), ("parts", 6), ("parts", 1)])
def test_settings_out_of_range_are_refused(field: str, value: int) -> None:
    with pytest.raises(BadArgument, match=field):
        KL(**{field: value})
