"""Residual expansion: exact in float, each term shrinks the error by the levels of its grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.nn import QuantizedWeight
from gracile.quantize import Bits, Expand, MinMax, Nearest, PerGroup, Scheme, ptq, rebuild
from gracile.quantize.rescue.residual_expansion import on_grid

X = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 4),
    ).eval()


def scheme(bits: int, *rescue: Expand) -> Scheme:
    return Scheme(weight_bits=bits, ends=Bits(), rounding=Nearest(), weight_range="minmax", rescue=rescue)


def stored(model: nn.Module, name: str) -> Tensor:
    """All terms of a layer added up."""
    found = [m() for n, m in model.named_modules() if n.startswith("weights.") and n.count(".") == 1]
    names = [m.name for n, m in model.named_modules() if n.startswith("weights.") and n.count(".") == 1]
    parts = [w for w, n in zip(found, names, strict=True) if n == name or n.startswith(f"{name}.term")]
    return torch.stack(parts).sum(0)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_limit_is_the_float_layer(bits: int) -> None:
    """With ``L`` levels on each side a term leaves at most ``1 / 2L`` of the largest weight before it."""
    levels, weight = 2 ** (bits - 1) - 1, net()[0].weight.detach()
    left, bound = weight, float(weight.abs().max())
    for _ in range(5):
        grid = MinMax()(left, bits=bits, signed=True, symmetric=True, axis=0)
        left = left - on_grid(left, tuple(grid.scale.tolist()), grid.qmax)
        bound /= 2 * levels
        assert float(left.abs().max()) <= bound * 1.001 + 1e-8


@pytest.mark.parametrize(("terms", "share"), [(2, 1.0), (3, 1.0), (2, 0.5), (3, 0.5)])
def test_the_float_network_stays_and_the_plan_rebuilds_it(terms: int, share: float) -> None:
    model = net()
    quantized = ptq(model, (X[:1],), [X], scheme(3, Expand(terms=terms, share=share)))
    with torch.no_grad():
        assert torch.allclose(quantized.float_graph(X), model(X), atol=1e-5)
        assert torch.equal(rebuild(model, (X[:1],), quantized.plan)(X), quantized(X))
    rows = [record.rows for record in quantized.plan.prepared.expanded]
    assert [len(r) for r in rows[0]] == ([8] * (terms - 1) if share == 1 else [4, 2][: terms - 1])
    assert len(rows[1][0]) == 8  # grouped: all of it
    assert len(quantized.plan.weights) == 3 * terms


def test_terms_that_run_are_those_of_the_expansion() -> None:
    model = net()
    errors = []
    for terms in (2, 3, 4):
        quantized = ptq(model, (X[:1],), [X], scheme(3, Expand(terms=terms)))
        errors.append(float((stored(quantized.network, "0") - model[0].weight).detach().abs().max()))
    assert errors[1] < errors[0] / 4
    assert errors[2] < errors[1] / 4


def test_more_terms_are_nearer_and_half_of_them_lie_between() -> None:
    model, errors = net(), []
    for rescue in ((), (Expand(share=0.5),), (Expand(),)):
        quantized = ptq(model, (X[:1],), [X], scheme(3, *rescue))
        with torch.no_grad():
            errors.append(float((quantized(X) - model(X)).square().mean()))
    assert errors[2] < 0.2 * errors[0]
    assert errors[2] < errors[1] < errors[0]


def test_layers_with_eight_bits_are_left_and_settings_checked() -> None:
    quantized = ptq(net(), (X[:1],), [X], Scheme(rescue=(Expand(),)))
    assert not quantized.plan.prepared.expanded
    assert {s.why for s in quantized.plan.prepared.skipped} == {"not expanded: it has 8 bits"}
    with pytest.raises(BadArgument, match="terms"):
        Expand(terms=1)
    with pytest.raises(BadArgument, match="share"):
        Expand(share=0)


def test_terms_on_a_grid_stay_on_it_where_the_last_has_a_scale_for_each_group() -> None:
    model = net()
    fields = {**vars(scheme(3, Expand(terms=2))), "weight_granularity": PerGroup(size=2)}
    quantized = ptq(model, (X[:1],), [X], Scheme(**fields))
    plans = {w.layer: w for w in quantized.plan.weights}
    assert (plans["0"].group, plans["0.term1"].group) == (None, 2)
    (record, *_) = quantized.plan.prepared.expanded
    first = on_grid(model[0].weight.detach(), record.scales[0], record.qmax)
    stored = next(m for m in quantized.modules() if isinstance(m, QuantizedWeight) and m.name == "0")
    assert torch.allclose(stored(), first, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(rebuild(model, (X[:1],), quantized.plan)(X), quantized(X))
