"""Least squares: the error is that of a brute-force search, at 2, 3, 4 and 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gracile.errors import BadArgument
from gracile.observe import Histogram
from gracile.quantize import MSE, MinMax

Best = Callable[[np.ndarray, int, bool, bool], float]
Error = Callable[[np.ndarray, float, int, int, int], float]

SHAPES = {
    "normal": lambda rng: rng.normal(size=3000),
    "outlier": lambda rng: np.append(rng.normal(size=3000), 12.0),
    "relu": lambda rng: np.maximum(rng.normal(size=3000), 0),
    "shifted": lambda rng: rng.normal(size=3000) + 1.5,
    "heavy": lambda rng: rng.laplace(size=3000),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("signed", "symmetric"), [(True, True), (False, False)])
def test_as_good_as_brute_force(
    shape: str, bits: int, signed: bool, symmetric: bool, brute_force: Best, error_of: Error
) -> None:
    x = SHAPES[shape](np.random.default_rng(0)).astype(np.float32)
    g = MSE()(torch.from_numpy(x), bits=bits, signed=signed, symmetric=symmetric)
    found = error_of(x, float(g.scale), int(g.zero_point), g.qmin, g.qmax)
    assert found <= brute_force(x, bits, signed, symmetric) * 1.05


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    x=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40),
    bits=st.sampled_from([2, 3, 4, 8]),
    signed=st.booleans(),
    symmetric=st.booleans(),
)
def test_never_worse_than_min_max(x: list[float], bits: int, signed: bool, symmetric: bool) -> None:
    data = torch.tensor(x)
    ours = MSE()(data, bits=bits, signed=signed, symmetric=symmetric)
    plain = MinMax()(data, bits=bits, signed=signed, symmetric=symmetric)
    error = [float((g.round(data) - data).square().mean()) for g in (ours, plain)]
    assert error[0] <= error[1] * (1 + 1e-5) + 1e-12


def test_each_channel_by_itself() -> None:
    x = torch.randn(5, 300) * torch.tensor([0.1, 1.0, 3.0, 10.0, 0.0]).reshape(-1, 1)
    together = MSE()(x, bits=4, signed=True, symmetric=True, axis=0)
    for i, row in enumerate(x):
        alone = MSE()(row, bits=4, signed=True, symmetric=True)
        assert float(together.scale[i]) == pytest.approx(float(alone.scale), rel=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_batches_together_are_nearly_as_good_as_one_tensor(bits: int, symmetric: bool) -> None:
    x = torch.cat([torch.randn(5000), torch.tensor([15.0])])
    seen = Histogram("x")
    for part in x.split(800):
        seen.update(part)
    whole = MSE()(x, bits=bits, signed=False, symmetric=symmetric)
    found = MSE().of_histogram(seen, bits=bits, signed=False, symmetric=symmetric)
    error = [float((g.round(x) - x).square().mean()) for g in (found, whole)]
    assert error[0] <= error[1] * 1.03


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(BadArgument, match="at least 4"):
        MSE(steps=2)
