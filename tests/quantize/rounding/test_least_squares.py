"""Rounding that keeps outputs: never far from the best possible, and better than the nearest integers."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.quantize import Bits, LeastSquares, Nearest, PerChannel, PerTensor, Scheme, ptq
from gracile.quantize.lower import lower
from gracile.quantize.rounding.least_squares import input_rows, round_to_keep_output, watch_inputs
from gracile.quantize.rounding.moves import pack, unpack
from gracile.quantize.units import find_units


def loss(weight: Tensor, rounded: Tensor, scale: Tensor, covariance: Tensor) -> float:
    off = weight - rounded * scale[..., None]
    return float((off @ covariance * off).sum())


def correlated(inputs: int, groups: int = 1) -> Tensor:
    mix = torch.randn(groups, inputs, inputs) + 0.7
    return mix @ mix.mT / inputs


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 4, 8]))
def test_near_the_best_of_all_roundings(seed: int, bits: int) -> None:
    """Brute force over both neighbours of each of six weights."""
    torch.manual_seed(seed)
    reach = 2 ** (bits - 1) - 1
    weight, covariance = torch.randn(1, 1, 6), correlated(6)
    scale = weight.abs().amax(2) / reach
    ours = loss(weight, round_to_keep_output(weight, scale, covariance, -reach, reach), scale, covariance)
    down = torch.floor(weight / scale[..., None])
    tried = [
        loss(weight, (down + torch.tensor(up)).clamp(-reach, reach), scale, covariance)
        for up in itertools.product([0.0, 1.0], repeat=6)
    ]
    worst, best = max(tried), min(tried)
    assert ours <= best + 0.35 * (worst - best)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_better_than_the_nearest(bits: int) -> None:
    reach = 2 ** (bits - 1) - 1
    weight, covariance = torch.randn(3, 16, 20), correlated(20, groups=3)
    scale = weight.abs().amax(2) / reach
    ours = round_to_keep_output(weight, scale, covariance, -reach, reach)
    nearest = torch.round(weight / scale[..., None]).clamp(-reach, reach)
    assert ours.abs().max() <= reach
    assert torch.equal(ours, ours.round())
    assert loss(weight, ours, scale, covariance) < 0.8 * loss(weight, nearest, scale, covariance)


def relative_error(model: nn.Module, x: Tensor, rounding: LeastSquares, **scheme: object) -> float:
    found = ptq(model, (x[:1],), x.split(32), Scheme(weight_bits=3, ends=Bits(), rounding=rounding, **scheme))  # type: ignore[arg-type]
    with torch.no_grad():
        wanted = model(x)
        return float((found(x) - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()], ids=repr)
def test_steps_and_descent_bring_outputs_nearer(granularity: PerChannel | PerTensor) -> None:
    model = nn.Sequential(nn.Conv2d(4, 24, 3, groups=4)).eval()
    x = torch.nn.functional.interpolate(torch.randn(64, 4, 4, 4), scale_factor=3)  # neighbours alike
    plain, steps, descent, both = (
        relative_error(model, x, LeastSquares(steps=s, passes=p), weight_granularity=granularity)
        for s, p in ((0, 0), (8, 0), (0, 5), (8, 5))
    )
    assert steps < 0.95 * plain
    assert descent < plain
    assert both <= steps


def test_eight_bits_keep_the_steps_that_were_found() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3)), torch.randn(8, 3, 9, 9)
    plans = [
        ptq(model, (x[:1],), [x], Scheme(rounding=LeastSquares(steps=s, passes=p))).plan
        for s, p in ((0, 0), (8, 5))
    ]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("count", [-1, 1.5])
@pytest.mark.parametrize("name", ["steps", "passes"])
def test_what_is_no_count_is_refused(name: str, count: float) -> None:
    with pytest.raises(BadArgument, match=name):
        LeastSquares(**{name: count})  # type: ignore[arg-type]


def test_independent_inputs_leave_the_nearest() -> None:
    weight = torch.randn(2, 4, 9)
    scale = torch.full((2, 4), 0.1)
    found = round_to_keep_output(weight, scale, torch.eye(9).expand(2, 9, 9), -127, 127)
    assert torch.equal(found, torch.round(weight / 0.1))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 8, (1, 3), padding=(0, 2), dilation=(1, 2), groups=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv1d(4, 6, 3, padding=1),
        nn.Conv3d(4, 6, 2),
        nn.Linear(4, 6),
    ],
    ids=lambda layer: repr(layer)[:60],
)
def test_patches_are_what_outputs_are_made_of(layer: nn.Module) -> None:
    """Layer outputs computed from patches are outputs of the layer, each of them."""
    axes = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3, nn.Linear: 0}[type(layer)]
    x = torch.randn(2, 4, *[7] * axes)
    graph = lower(layer, (x,))
    node = find_units(graph).layers[0].node
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows = input_rows(x, weight, node, torch.Generator().manual_seed(0), 4096)
    groups = rows.shape[0]
    with torch.no_grad():
        wanted = layer(x).movedim(1, -1).flatten(0, -2) if axes else layer(x)
    made = rows @ weight.reshape(groups, -1, rows.shape[2]).mT  # (groups, samples, out / groups)
    made = (made.transpose(0, 1).flatten(1) + layer.bias).detach()
    for row in made[:20]:
        assert float((wanted - row).abs().amax(1).min()) < 1e-5


def test_moments_are_those_of_the_inputs() -> None:
    model, x = nn.Linear(5, 2), torch.randn(64, 5) * 3 + 1
    graph = lower(model, (x,))
    seen = watch_inputs(graph, find_units(graph), [(part,) for part in x.split(16)], images=48)
    found = next(iter(seen.values()))
    assert torch.allclose(found.mean[0], x[:48].mean(0), atol=1e-5)
    assert torch.allclose(found.covariance[0], torch.cov(x[:48].T, correction=0), atol=1e-4)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(F.relu(self.b(F.relu(self.a(x)))))
        return out


@pytest.mark.parametrize("bits", [3, 4])
def test_the_output_of_a_network_is_nearer(bits: int) -> None:
    model = Deep().eval()
    x, other = (
        F.avg_pool2d(torch.rand(128, 3, 36, 36), 3).reshape(2, 64, 3, 12, 12).unbind()
    )  # neighbours are alike
    errors = []
    for rounding in (LeastSquares(), Nearest()):
        quantized = ptq(
            model, (x[:1],), x.split(16), Scheme(weight_bits=bits, ends=Bits(), rounding=rounding)
        )
        with torch.no_grad():
            errors.append(float((quantized(other) - model(other)).square().mean()))
    assert errors[0] < 0.5 * errors[1]


def test_a_plan_keeps_the_rounding_as_text() -> None:
    moved = torch.randint(-3, 4, (5, 4, 3, 3))
    assert torch.equal(unpack(pack(moved), (5, 4, 3, 3)), moved)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"damping": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadArgument, match=r"at least 1|above 0"):
        LeastSquares(**wrong)  # type: ignore[arg-type]


@given(st.integers(0, 10_000))
def test_pruned_weights_stay_zero(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 5, 8, generator=generator)
    weight[torch.rand(1, 5, 8, generator=generator) < 0.5] = 0
    inputs = torch.randn(40, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    covariance = (inputs.T @ inputs / 40)[None]
    scale = torch.full((1, 5), 0.2)
    rounded = round_to_keep_output(weight, scale, covariance, -7, 7)
    assert bool((rounded[weight == 0] == 0).all())


def test_a_pruned_weight_hands_errors_on() -> None:
    """Only the sum of the three matters: the first rounds down, the pruned one may not help, the last can."""
    weight = torch.tensor([[[0.4, 0.0, 0.4]]])
    rounded = round_to_keep_output(weight, torch.ones(1, 1), torch.ones(1, 3, 3), -7, 7)
    assert rounded.tolist() == [[[0.0, 0.0, 1.0]]]


@pytest.mark.parametrize("mean", [0.0, 300.0, 1e6])
def test_a_large_mean_leaves_variances_as_they_are(mean: float) -> None:
    """Against float64; and what never changes can still be solved for."""
    model, x = nn.Linear(24, 2), torch.randn(200, 24) + 0.5
    x[:, 3] += mean
    x[:, 7:] = mean
    graph = lower(model, (x,))
    batches = [(part,) for part in x.split(50)]
    found = next(iter(watch_inputs(graph, find_units(graph), batches, images=200).values()))
    wanted = torch.cov(x.double().T, correction=0)
    rounding = 1e-13 * mean**2  # of float32, squared
    assert torch.allclose(found.covariance[0].double(), wanted, atol=1e-3 + 2 * rounding, rtol=1e-4)
    assert bool((found.covariance[0].diagonal() >= 0).all())
    rounded = round_to_keep_output(
        model.weight.detach()[None], torch.full((1, 2), 0.1), found.covariance, -7, 7
    )
    assert bool(rounded.isfinite().all())
