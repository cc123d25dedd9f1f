"""SQuant against brute force on small kernels, and its guarantees on random ones."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.quantize import Bits, Nearest, PerGroup, PerTensor, Scheme, SQuant, ptq
from gracile.quantize.rounding import squant, unpack

entries = st.floats(-5.375, 5.375, width=32).filter(lambda v: abs(v - round(v)) < 0.49 and v != 0)


def brute_force(kernel: list[float]) -> float:
    """Least sum of squares over all roundings up or down whose errors sum to at most a half."""
    w = torch.tensor(kernel, dtype=torch.float64)
    best = float("inf")
    for ups in product((0.0, 1.0), repeat=len(kernel)):
        error = w.floor() + torch.tensor(ups) - w
        if abs(float(error.sum())) <= 0.5 + 1e-9:
            best = min(best, float(error.square().sum()))
    return best


@settings(max_examples=60)
@given(kernel=st.lists(entries, min_size=1, max_size=7))
def test_a_kernel_is_rounded_as_brute_force_does(kernel: list[float]) -> None:
    found = squant(torch.tensor([[kernel]]), -7, 7)[0, 0].double() - torch.tensor(kernel).double()
    assert abs(float(found.sum())) <= 0.5 + 1e-6
    assert float(found.square().sum()) == pytest.approx(brute_force(kernel), abs=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), out=st.integers(1, 4), inputs=st.integers(1, 9), size=st.integers(1, 9))
def test_sums_of_errors_are_small_everywhere(seed: int, out: int, inputs: int, size: int) -> None:
    weight = torch.randn(out, inputs, size, generator=torch.Generator().manual_seed(seed)).double() * 2
    error = squant(weight, -20, 20).double() - weight
    assert error.abs().max() <= 1 + 1e-6
    assert error.sum(2).abs().max() <= 1 + 1e-6
    assert error.sum((1, 2)).abs().max() <= 0.5 + 1e-6


def test_pruned_weights_stay_zero_and_grids_are_kept() -> None:
    weight = torch.tensor([[[0.0, 0.4, 0.4, 0.4, 0.0, 3.9]]])
    found = squant(weight, -3, 3)
    assert found[0, 0, [0, 4]].tolist() == [0, 0]
    assert found.abs().max() <= 3


@pytest.mark.parametrize("granularity", [None, PerTensor()])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_layers_integers_differ_from_the_nearest_where_the_plan_says(
    granularity: PerTensor | None, symmetric: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)).eval()
    x = torch.randn(2, 3, 9, 9)
    fields = {"weight_granularity": granularity} if granularity else {}
    schemes = [
        Scheme(weight_bits=3, ends=Bits(), rounding=way, weight_symmetric=symmetric, rescue=(), **fields)  # type: ignore[arg-type]
        for way in (Nearest(), SQuant())
    ]
    near, best = (ptq(model, (x[:1],), None, scheme) for scheme in schemes)
    for a, b in zip(near.plan.weights, best.plan.weights, strict=True):
        stored = dict(best.network.named_modules()), dict(near.network.named_modules())
        node = {"0": "conv2d", "3": "conv2d_1"}[a.layer]
        mine, other = (named[f"weights.{node}"].integers for named in stored)
        moved = unpack(b.moved, tuple(mine.shape))
        assert torch.equal(mine.long(), (other.long() + moved).clamp(b.qmin, b.qmax))
        sums = _sums(mine, b.scale, b.zero_point, best.float_graph.get_parameter(f"{a.layer}.weight"))
        assert sums.abs().max() <= 0.5 + 1e-3


def _sums(integers: Tensor, scale: tuple[float, ...], zero: tuple[int, ...], weight: Tensor) -> Tensor:
    steps, zeros = (torch.tensor(v).double().reshape(-1, 1, 1, 1) for v in (scale, zero))
    return (integers.double() - zeros - weight.double() / steps).sum((1, 2, 3))


def test_three_bits_are_nearer_than_the_nearest_on_correlated_inputs() -> None:
    """Inputs that go up and down together are what the kernel and channel sums stand for."""
    torch.manual_seed(0)
    weight = torch.randn(16, 8, 9)
    scale = weight.abs().amax((1, 2), keepdim=True) / 3
    inputs = (torch.rand(500, 1, 1) + 0.3 * torch.rand(500, 8, 9)).reshape(500, -1)
    errors = [
        ((q * scale - weight).reshape(16, -1) @ inputs.T).square().mean()
        for q in (torch.round(weight / scale), squant(weight / scale, -3, 3))
    ]
    assert errors[1] < 0.2 * errors[0]


def test_errors_cancel_within_each_group_that_shares_a_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)).eval()
    x = torch.randn(2, 8, 9, 9)
    scheme = Scheme(weight_bits=4, ends=Bits(), rounding=SQuant(), weight_granularity=PerGroup(size=3))
    found = ptq(model, (x[:1],), None, scheme)
    for name, node in (("0", "conv2d"), ("3", "conv2d_1")):
        weight = found.float_graph.get_parameter(f"{name}.weight").double()
        stored = found.network.get_submodule(f"weights.{node}")
        steps = stored.scale.double().repeat_interleave(3, 1)[:, : weight.shape[1], None, None]
        off = (stored.integers.double() - weight / steps).sum((2, 3))
        assert all(float(part.sum(1).abs().max()) <= 0.5 + 1e-3 for part in off.split(3, 1))
