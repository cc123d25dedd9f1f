"""Weights with a scale for each group of input channels: numbers, plan, and what a runtime does with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile import export
from gracile.errors import BadArgument
from gracile.measure.runtimes import ort_session
from gracile.nn import QuantizedWeight, dequantize
from gracile.quantize import (
    LeastSquares,
    MinMax,
    Nearest,
    PerGroup,
    Rounding,
    Scheme,
    SQuant,
    Stochastic,
    ptq,
    rebuild,
)
from gracile.quantize.rounding import round_to_keep_output
from gracile.quantize.weights import by_group
from gracile.records import QuantPlan, from_json, to_json

FORM = {"bits": 4, "signed": True, "symmetric": True}


def images() -> Tensor:
    return torch.randn(32, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def uneven() -> nn.Module:
    """Input channels of very different sizes, which a scale for all of them suits badly."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    with torch.no_grad():
        for i in (0, 2, 5):
            model[i].weight[:, 1::2] *= 0.05
    return model


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_each_group_is_rounded_by_itself(out: int, inputs: int, group: int, kernel: bool) -> None:
    weight = torch.randn(out, inputs, *((3, 2) if kernel else ()))
    found = by_group(weight, group, lambda rows: MinMax()(rows, axis=0, **FORM))
    groups = -(-inputs // group)
    assert found.scale.shape == (out, groups)
    stored = QuantizedWeight(
        "w", weight, found.scale.flatten().tolist(), [0] * (out * groups), -7, 7, 0, 4, group=group
    )
    for o in range(out):
        for g in range(groups):
            part = weight[o, g * group : (g + 1) * group]
            alone = MinMax()(part, **FORM)
            assert float(alone.scale) == pytest.approx(float(found.scale[o, g]))
            rounded = alone.round(part)
            assert torch.allclose(stored()[o, g * group : (g + 1) * group], rounded, atol=1e-6)


def test_all_inputs_in_a_group_is_per_channel() -> None:
    weight = torch.randn(4, 6, 3, 3)
    group = by_group(weight, 6, lambda rows: MinMax()(rows, axis=0, **FORM))
    channel = MinMax()(weight, axis=0, **FORM)
    assert torch.equal(group.scale[:, 0], channel.scale)
    scale, zeros = channel.scale, torch.zeros(4)
    q = torch.randint(-7, 8, weight.shape)
    assert torch.equal(dequantize(q, group.scale, zeros[:, None], 0, 6), dequantize(q, scale, zeros, 0))


@pytest.mark.parametrize("rounding", [Nearest(), LeastSquares(), SQuant(), Stochastic()])
@pytest.mark.parametrize("group", [1, 3, 4])
def test_the_plan_alone_gives_the_same_numbers(rounding: Rounding, group: int) -> None:
    model, x = uneven(), images()
    scheme = Scheme(weight_bits=4, weight_granularity=PerGroup(size=group), rounding=rounding)
    first = ptq(model, (x[:1],), x.split(16), scheme)
    plan = from_json(QuantPlan, to_json(first.plan))
    assert plan == first.plan
    assert {w.group for w in plan.weights} == {group}
    with torch.no_grad():
        assert torch.equal(rebuild(model, (x[:1],), plan)(x), first(x))


@pytest.mark.parametrize("rounding", [Nearest(), LeastSquares()])
def test_smaller_groups_round_less(rounding: Nearest | LeastSquares) -> None:
    model, x = uneven(), images()
    errors = []
    for granularity in (PerGroup(size=1), PerGroup(size=64)):
        scheme = Scheme(weight_bits=3, weight_granularity=granularity, rounding=rounding)
        with torch.no_grad():
            errors.append(float((ptq(model, (x[:1],), x.split(16), scheme)(x) - model(x)).square().mean()))
    assert errors[0] < errors[1] * 0.8


def test_rounding_to_keep_outputs_takes_a_scale_for_each_weight() -> None:
    weight, covariance = torch.randn(1, 3, 6), torch.eye(6)[None]
    steps = torch.rand(1, 3, 6) + 0.1
    found = round_to_keep_output(weight, steps, covariance, -7, 7)
    assert torch.equal(found, torch.round(weight / steps).clamp(-7, 7))  # inputs that are not correlated
    one = torch.rand(1, 3) + 0.1
    mixed = covariance + 0.5
    both = [round_to_keep_output(weight, s, mixed, -7, 7) for s in (one, one[:, :, None].expand(1, 3, 6))]
    assert torch.equal(*both)


def test_the_file_gives_the_same_and_runs_in_float(tmp_path: Path) -> None:
    model, x = uneven(), images()
    scheme = Scheme(weight_bits=4, weight_granularity=PerGroup(size=3))
    quantized = ptq(model, (x[:1],), x.split(16), scheme)
    path = tmp_path / "groups.onnx"
    export.onnx(quantized, (x[:1],), path)
    found = ort_session(path).run(None, {"input": x.numpy()})[0]
    with torch.no_grad():
        wanted = quantized(x).numpy()
    assert np.abs(found - wanted).max() <= 0.02 * np.abs(wanted).max()
    layers = [row for row in export.kernels(path) if row["bits"] is not None]
    assert {row["layer"] for row in layers} == {"0", "2", "5"}
    assert not any(row["integer"] for row in layers)
    blocks = [
        a.i for n in onnx.load(path).graph.node for a in n.attribute if a.name == "block_size" and n.op_type
    ]
    assert sorted(blocks) == [3, 3, 27]  # inputs in a group, times places in the kernel


@pytest.mark.parametrize("size", [0, 1.5])
def test_a_size_that_is_none_is_refused(size: float) -> None:
    with pytest.raises(BadArgument, match="at least 1"):
        PerGroup(size=size)  # type: ignore[arg-type]
