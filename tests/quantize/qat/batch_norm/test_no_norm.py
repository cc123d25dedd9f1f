"""No norm: rounded, and that is all."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gracile.quantize.qat.batch_norm import NoNorm
from gracile.quantize.qat.operation import Operation
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    Largest,
    cases,
    deploys,
    trained,
)


@given(cases())
@settings(max_examples=20)
def test_without_rounding_it_is_the_layer(case: Case) -> None:
    float_layer = case.layer().double()
    layer = bare(case, float_layer, bits=4)
    layer.quantizer.enabled = False
    x = case.inputs(1)[0]
    torch.testing.assert_close(layer.train()(x), float_layer(x), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(layer.eval()(x), float_layer(x), rtol=1e-9, atol=1e-12)


@given(cases(), st.integers(1, 8))
@settings(max_examples=20)
def test_what_is_deployed_is_what_evaluation_computes(case: Case, bits: int) -> None:
    layer = bare(case, case.layer(), bits=bits)
    deploys(trained(layer, case.inputs(2)), case.inputs(1)[0])


def test_a_linear_layer_takes_inputs_of_any_rank() -> None:
    layer = bare(Case(rank=0, bias=True), nn.Linear(2, 3), bits=8)
    assert layer(torch.randn(4, 5, 2)).shape == (4, 5, 3)
    assert torch.equal(layer.deployed().bias, layer.bias)


def bare(case: Case, layer: nn.Module, bits: int) -> NoNorm:
    return NoNorm(Operation.of(layer), layer.weight, layer.bias, None, Largest(bits))
