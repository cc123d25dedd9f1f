"""Every form: exact at full rank, never worse with data, costs as counted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gracile.decompose import CP, SVD, Form, Space, Spatial, Tucker
from gracile.decompose.forms.refine import output_error
from gracile.graph import cost

FORMS: dict[str, Form] = {form.name: form for form in (SVD(), Spatial(), Tucker(), CP())}


def _layers() -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            "linear": nn.Linear(12, 7),
            "1x1": nn.Conv2d(6, 8, 1),
            "3x3": nn.Conv2d(6, 8, 3, padding=1),
            "strided": nn.Conv2d(5, 8, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2), bias=False),
            "1-d": nn.Conv1d(4, 6, 5, padding=2, stride=2),
            "3-d": nn.Conv3d(2, 3, (2, 3, 2), padding=1),
        }


LAYERS = _layers()
PAIRS = [(f, n) for f in FORMS for n, layer in LAYERS.items() if FORMS[f].refuses(layer) is None]


def inputs_of(layer: nn.Module) -> Tensor:
    if isinstance(layer, nn.Linear):
        return torch.randn(3, 12)
    return torch.randn(3, layer.weight.shape[1], *[11, 9, 7][: layer.weight.dim() - 2])


def covariance(layer: nn.Module) -> Tensor:
    size = layer.weight[0].numel()
    mix = torch.randn(size, size) * torch.linspace(0.05, 2, size)
    return mix @ mix.T / size


def weight_of(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach()


def test_what_is_refused_is_said() -> None:
    assert "8 groups" in str(SVD().refuses(nn.Conv2d(8, 8, 3, groups=8)))
    assert "circular" in str(SVD().refuses(nn.Conv2d(8, 8, 3, padding_mode="circular")))
    assert "'same'" in str(Tucker().refuses(nn.Conv2d(8, 8, 3, padding="same")))
    assert "ReLU" in str(CP().refuses(nn.ReLU()))
    assert "one tap" in str(Tucker().refuses(nn.Conv2d(8, 8, 1)))
    assert "two axes" in str(Spatial().refuses(nn.Conv2d(8, 8, (3, 1))))
    assert len(PAIRS) == 6 + 2 + 4 + 4


@pytest.mark.parametrize(("name", "kind"), [p for p in PAIRS if p[0] != "cp"])
@pytest.mark.parametrize("aware", [False, True])
def test_at_full_rank_the_layer_is_the_same(name: str, kind: str, aware: bool) -> None:
    form, layer = FORMS[name], LAYERS[kind]
    weight = weight_of(layer)
    factors = form.factor(weight, form.ranks(weight.shape)[-1], covariance(layer) if aware else None)
    assert torch.allclose(form.dense(factors), weight, atol=1e-4)
    x = inputs_of(layer)
    with torch.no_grad():
        assert torch.allclose(form.build(layer, factors)(x), layer(x), atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_layers_compute_the_dense_weight(name: str, kind: str) -> None:
    """At any rank, the layers in a row are one layer with the weight that the factors stand for."""
    form, layer = FORMS[name], LAYERS[kind]
    weight = weight_of(layer)
    ranks = form.ranks(weight.shape)
    factors = form.factor(weight, ranks[len(ranks) // 3])
    small, x = form.build(layer, factors), inputs_of(layer)
    with torch.no_grad():
        kept = layer.weight.clone()
        try:
            layer.weight.copy_(form.dense(factors))
            wanted = layer(x)
        finally:
            layer.weight.copy_(kept)
        assert torch.allclose(small(x), wanted, atol=1e-4)
    assert small[-1].bias is None or small[-1].bias is not layer.bias


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_costs_are_those_that_are_counted(name: str, kind: str) -> None:
    form, layer = FORMS[name], LAYERS[kind]
    weight, x = weight_of(layer), inputs_of(layer)[:1]
    ranks = form.ranks(weight.shape)[1]
    small = form.build(layer, form.factor(weight, ranks))
    axes = weight.dim() - 2
    space = Space(read=tuple(x.shape[2:]) if axes > 0 else (), given=tuple(layer(x).shape[2:]))
    assert form.macs(weight.shape, ranks, space) == cost(small, (x,)).macs


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_data_makes_the_output_nearer(name: str, kind: str) -> None:
    form, layer = FORMS[name], LAYERS[kind]
    weight, seen = weight_of(layer), covariance(layer)
    ranks = form.ranks(weight.shape)
    middle = ranks[len(ranks) // 4]
    plain = output_error(weight, form.dense(form.factor(weight, middle)), seen)
    aware = output_error(weight, form.dense(form.factor(weight, middle, seen)), seen)
    assert aware <= plain * (1 + 1e-6)
    if plain > 1e-3:
        assert aware < 0.999 * plain


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_svd_with_data_is_the_best_of_its_rank(seed: int, rank: int) -> None:
    """Against the definition: whiten, cut the singular values, undo the whitening."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, 9, generator=draw, dtype=torch.float64)
    mix = torch.randn(9, 9, generator=draw, dtype=torch.float64)
    seen = mix @ mix.T + 0.1 * torch.eye(9, dtype=torch.float64)
    lower = torch.linalg.cholesky(seen)
    values = torch.linalg.svdvals(weight @ lower)
    best = values[rank:].square().sum() / values.square().sum()
    found = SVD().dense(SVD().factor(weight, (rank,), seen))
    assert float(output_error(weight, found, seen)) == pytest.approx(float(best), rel=1e-6, abs=1e-12)


def test_svd_without_data_cuts_singular_values() -> None:
    weight = torch.randn(8, 5, 3, 3)
    values = torch.linalg.svdvals(weight.flatten(1))
    for rank in (1, 4, 7):
        found = SVD().dense(SVD().factor(weight, (rank,)))
        left = (values[rank:].square().sum() / values.square().sum()).item()
        assert float(output_error(weight, found, None)) == pytest.approx(left, rel=1e-4, abs=1e-6)


def test_tucker_finds_a_weight_of_low_rank() -> None:
    a, core, b = torch.randn(10, 3), torch.randn(3, 2, 3, 3), torch.randn(8, 2)
    weight = Tucker().dense((a, core, b))
    assert float(output_error(weight, Tucker().dense(Tucker().factor(weight, (3, 2))), None)) < 1e-8


def test_cp_finds_a_weight_of_low_rank_with_factors_of_its_size() -> None:
    factors = [torch.randn(n, 3, dtype=torch.float64) for n in (10, 8, 3, 3)]
    weight = CP().dense(factors)
    found = CP().factor(weight, (3,))
    assert float(output_error(weight, CP().dense(found), None)) < 1e-3
    for factor in found:  # balanced: no column grows against another
        assert float(factor.norm(dim=0).max()) < 3 * float(weight.norm()) ** 0.25


def test_cp_gets_better_with_rank_and_never_blows_up() -> None:
    weight = torch.randn(16, 12, 3, 3)
    errors = []
    for rank in (2, 8, 24, 60):
        found = CP().factor(weight, (rank,))
        errors.append(float(output_error(weight, CP().dense(found), None)))
        assert max(float(f.abs().max()) for f in found) < 30
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.45


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("shape", [(7, 12), (9, 4), (6, 3, 3, 3)])
def test_errors_of_all_ranks_are_those_of_each(shape: tuple[int, ...], aware: bool) -> None:
    torch.manual_seed(1)
    weight = torch.randn(shape)
    width = weight[0].numel()
    data = torch.randn(3 * width, width)
    covariance = (data.T @ data / len(data)).double() if aware else None
    found = SVD().errors(weight, covariance)
    assert len(found) == min(shape[0], width) + 1
    for rank in range(1, len(found)):
        dense = SVD().dense(SVD().factor(weight.double(), (rank,), covariance))
        wanted = float(output_error(weight.double(), dense, covariance))
        assert float(found[rank]) == pytest.approx(wanted, abs=1e-10), rank


class Standardised(nn.Conv2d):
    """Convolves with another weight than it holds."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Same(nn.Conv2d):
    """Pads on its own."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(nn.functional.pad(x, (0, 1, 0, 1)), weight, bias)


def test_layers_that_compute_something_else_are_refused() -> None:
    for form in FORMS.values():
        assert form.refuses(Standardised(4, 4, 3)) == "Standardised computes something of its own"
        assert form.refuses(Same(4, 4, 3)) == "Same computes something of its own"
    bound, own = nn.Linear(4, 4), nn.Linear(4, 4)
    own.forward = lambda x: x  # type: ignore[method-assign]
    assert SVD().refuses(bound) is None
    assert "of its own" in str(SVD().refuses(own))
    assert SVD().refuses(type("Named", (nn.Linear,), {})(4, 4)) is None


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_moments_from_the_processor_meet_weights_on_a_gpu(form: Form) -> None:
    with FakeTensorMode():
        weight = torch.empty(8, 6, 3, 3, device="cuda")
        moments = torch.empty(54, 54, dtype=torch.float64)
        assert output_error(weight.double(), weight.double(), moments).device.type == "cuda"
        if isinstance(form, SVD):
            assert form.errors(weight, moments).device.type == "cuda"
            assert {f.device.type for f in form.factor(weight, (3,), moments)} == {"cuda"}
