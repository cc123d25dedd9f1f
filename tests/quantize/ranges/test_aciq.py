"""Analytic clipping: the expected error is an integral, and its least that of a dense scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.observe import Histogram
from gracile.quantize import ACIQ, MSE, Grid, grid
from gracile.quantize.ranges.aciq import expected_error

DENSITIES = {
    "gauss": lambda t: np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi),
    "laplace": lambda t: np.exp(-np.abs(t)) / 2,
}
POINTS = np.linspace(-30, 30, 240_001)
STEP = POINTS[1] - POINTS[0]


def integral(kind: str, g: Grid, mean: float, width: float, side: int) -> float:
    """Expected squared error by summing the density over a fine mesh."""
    at = POINTS * width + mean
    values = at if side == 0 else side * np.abs(at)
    q = np.clip(np.rint(values / float(g.scale)) + float(g.zero_point), g.qmin, g.qmax)
    apart = (float(g.scale) * (q - float(g.zero_point)) - values) ** 2
    return float((apart * DENSITIES[kind](POINTS)).sum() * STEP)


def row(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def exact(kind: str, g: Grid, mean: float, width: float, side: int) -> float:
    one = Grid(
        scale=g.scale.double().reshape(1),
        zero_point=g.zero_point.double().reshape(1),
        qmin=g.qmin,
        qmax=g.qmax,
    )
    return float(expected_error(kind, one, row(mean), row(width), torch.tensor([side])))


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["gauss", "laplace"]),
    bits=st.sampled_from([2, 3, 4, 8]),
    reach=st.tuples(st.floats(0.1, 6), st.floats(0.1, 6)),
    mean=st.floats(-3, 3),
    width=st.floats(0.2, 4),
    side=st.sampled_from([-1, 0, 1]),
    symmetric=st.booleans(),
)
def test_the_expected_error_is_the_integral(
    kind: str,
    bits: int,
    reach: tuple[float, float],
    mean: float,
    width: float,
    side: int,
    symmetric: bool,
) -> None:
    mean = 0.0 if side else mean
    low = 0.0 if side == 1 else -reach[0] * width
    high = 0.0 if side == -1 else reach[1] * width
    g = grid(row(low), row(high), bits=bits, signed=symmetric, symmetric=symmetric)
    assert exact(kind, g, mean, width, side) == pytest.approx(
        integral(kind, g, mean, width, side), rel=2e-3, abs=1e-7 * width**2
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["gauss", "laplace"])
@pytest.mark.parametrize(
    ("signed", "symmetric", "relu"),
    [(True, True, False), (False, False, False), (False, False, True), (True, True, True)],
)
def test_the_clip_is_that_of_a_dense_scan(
    kind: str, bits: int, signed: bool, symmetric: bool, relu: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(40_000) if kind == "gauss" else torch.distributions.Laplace(0.0, 1.0).sample((40_000,))
    x = x.clamp(min=0) if relu else x
    positive = x[x > 0] if relu else x - (0 if symmetric else x.mean())
    mean = 0.0 if relu else float(x.mean())
    width = float(positive.square().mean().sqrt() if kind == "gauss" else positive.abs().mean())
    middle = 0.0 if symmetric else mean
    best = np.inf
    for alpha in np.linspace(0.05, 14, 500):
        ends = (
            row(max(middle - alpha * width, float(x.min()))),
            row(min(middle + alpha * width, float(x.max()))),
        )
        best = min(
            best,
            exact(kind, grid(*ends, bits=bits, signed=signed, symmetric=symmetric), mean, width, int(relu)),
        )
    found = ACIQ(distribution=kind)(x, bits=bits, signed=signed, symmetric=symmetric)  # type: ignore[arg-type]
    assert exact(kind, found, mean, width, int(relu)) <= best * 1.02


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_on_what_it_assumes_it_is_nearly_least_squares(bits: int) -> None:
    torch.manual_seed(0)
    for x in (torch.randn(60_000), torch.randn(60_000).clamp(min=0)):
        found, best = (
            float((e(x, bits=bits, signed=False, symmetric=False).round(x) - x).square().mean())
            for e in (ACIQ(), MSE())
        )
        assert found <= best * 1.08


@pytest.mark.parametrize(
    ("draw", "kind"), [(torch.distributions.Normal, "gauss"), (torch.distributions.Laplace, "laplace")]
)
@pytest.mark.parametrize("relu", [False, True])
def test_the_better_fit_is_chosen(draw: type, kind: str, relu: bool) -> None:
    torch.manual_seed(0)
    x = draw(0.0, 1.0).sample((20_000,))
    x = x.clamp(min=0) if relu else x
    fits = [
        ACIQ(distribution=name)(x, bits=3, signed=False, symmetric=False).scale  # type: ignore[arg-type]
        for name in ("best", kind)
    ]
    assert torch.equal(*fits)
    other = {"gauss": "laplace", "laplace": "gauss"}[kind]
    apart = ACIQ(distribution=other)(x, bits=3, signed=False, symmetric=False).scale  # type: ignore[arg-type]
    assert not torch.equal(fits[0], apart)


def test_each_channel_by_itself() -> None:
    x = torch.randn(5, 300) * torch.tensor([0.1, 1.0, 3.0, 10.0, 0.0]).reshape(-1, 1)
    x[1] = x[1].abs()
    together = ACIQ()(x, bits=4, signed=True, symmetric=True, axis=0)
    for i, channel in enumerate(x):
        alone = ACIQ()(channel, bits=4, signed=True, symmetric=True)
        assert float(together.scale[i]) == pytest.approx(float(alone.scale), rel=1e-5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_batches_together_are_one_tensor(relu: bool, bits: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(20_000).clamp(min=0 if relu else -9)
    seen = Histogram("x")
    for part in x.split(3000):
        seen.update(part)
    one = ACIQ()(x, bits=bits, signed=False, symmetric=False)
    other = ACIQ().of_histogram(seen, bits=bits, signed=False, symmetric=False)
    assert float(other.scale) == pytest.approx(float(one.scale), rel=0.02)


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.0, 3.0], [-2.0], [0.0, 5.0, 0.0]])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_few_equal_values_stay_on_the_grid(values: list[float], bits: int) -> None:
    g = ACIQ()(torch.tensor(values), bits=bits, signed=False, symmetric=False)
    assert g.round(torch.tensor(values)).tolist() == pytest.approx(values, rel=0.6)
    seen = Histogram("x")
    assert float(ACIQ().of_histogram(seen, bits=bits, signed=False, symmetric=False).scale) > 0


def test_an_outlier_is_clipped() -> None:
    x = torch.cat([torch.randn(10_000), torch.tensor([1000.0])])
    assert float(ACIQ()(x, bits=4, signed=True, symmetric=True).scale) * 7 < 200


@pytest.mark.parametrize(("field", "value"), [("steps", 7), ("distribution", "uniform")])
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(BadArgument, match=field):
        ACIQ(**{field: value})  # type: ignore[arg-type]
