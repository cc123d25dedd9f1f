"""The proximal operator against its definition, and norms and scalings against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.prune import Absolute, Relative, proximal
from gracile.prune.training.shrink import group_norms, scale_

sizes = st.floats(0, 10, allow_nan=False)


@settings(max_examples=50)
@given(st.lists(sizes, min_size=1, max_size=12), st.floats(0, 12))
def test_factors_are_the_formula(norms: list[float], tau: float) -> None:
    factors = proximal(torch.tensor(norms, dtype=torch.float64), tau)
    formula = [max(n - tau, 0) / n if n > 0 else 0.0 for n in norms]
    if any(formula):
        np.testing.assert_allclose(factors.numpy(), formula)
    else:  # nothing would be left: the largest stays as it was
        assert factors.sum() == 1
        assert factors[int(np.argmax(norms))] == 1


@settings(max_examples=50)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=4), st.floats(0.05, 2), st.data())
def test_it_is_the_proximal_operator_of_the_norm(w: list[float], tau: float, data: st.DataObject) -> None:
    """No other vector has a smaller ``tau ||v|| + ||v - w||^2 / 2``."""
    weights = np.array(w)
    norm = float(np.linalg.norm(weights))
    factor = proximal(torch.tensor([norm, 100.0], dtype=torch.float64), tau)[0].item()

    def objective(v: np.ndarray) -> float:
        return tau * float(np.linalg.norm(v)) + 0.5 * float(((v - weights) ** 2).sum())

    other = np.array(data.draw(st.lists(st.floats(-3, 3), min_size=len(w), max_size=len(w))))
    assert objective(factor * weights) <= objective(other) + 1e-9


def test_a_relative_threshold_never_takes_the_largest() -> None:
    norms = torch.tensor([1.0, 10.0, 2.0])
    tau = Relative(ratio=0.99)("g", norms)
    assert proximal(norms, tau).tolist() == pytest.approx([0.0, 0.01, 0.0], abs=1e-6)


def test_an_absolute_threshold_may_differ_by_group() -> None:
    assert Absolute(tau=0.3)("any", torch.ones(1)) == 0.3
    assert Absolute(tau={"a": 0.1})("a", torch.ones(1)) == 0.1


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1])
def test_ratios_outside_their_range_are_refused(ratio: float) -> None:
    with pytest.raises(BadArgument, match=r"ratio: wanted above 0, below 1, found ratio="):
        Relative(ratio=ratio)


@pytest.mark.parametrize("tau", [0.0, {"a": -1.0}])
def test_thresholds_outside_their_range_are_refused(tau: float | dict[str, float]) -> None:
    with pytest.raises(BadArgument, match="tau: wanted above 0"):
        Absolute(tau=tau)


@pytest.mark.parametrize("role", ["write", "read"])
def test_norms_and_scaling_of_every_group(net: nn.Module, inputs: tuple[Tensor, ...], role: str) -> None:
    """Against a loop over units and positions, coupled layers included."""
    for group in trace(capture(net, inputs)).groups:
        slots = [slot for slot in group.slots if slot.role == role]
        for unit in range(group.units):
            parts = [
                net.get_parameter(slot.param).detach().select(slot.axis, int(position))
                for slot in slots
                for position in slot.index[unit]
            ]
            wanted = sum(float(part.double().square().sum()) for part in parts) ** 0.5
            assert group_norms(net, group, role)[unit].item() == pytest.approx(wanted)
        if slots:
            before = group_norms(net, group, role)
            scale_(net, group, torch.linspace(0, 1, group.units), role)
            after = group_norms(net, group, role)
            torch.testing.assert_close(
                after, before * torch.linspace(0, 1, group.units), rtol=1e-5, atol=1e-6, check_dtype=False
            )
