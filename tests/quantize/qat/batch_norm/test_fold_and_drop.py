"""Fold and drop: the folded weight trains, no norm is left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from gracile.errors import BadArgument
from gracile.quantize.qat.batch_norm import FoldAndDrop, NoNorm
from gracile.quantize.qat.operation import Operation
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    Largest,
    built,
    cases,
    same_evaluation,
)


@given(cases())
@settings(max_examples=25)
def test_without_rounding_it_is_the_layer_and_its_norm_in_evaluation_mode(case: Case) -> None:
    pair = case.pair().eval()
    layer = built(FoldAndDrop, pair, off=True).train()
    x = case.inputs(1)[0]
    torch.testing.assert_close(layer(x), pair(x), rtol=1e-7, atol=1e-9)
    same_evaluation(layer, pair, x)


@given(cases())
@settings(max_examples=15)
def test_gradients_are_those_of_the_folded_layer(case: Case) -> None:
    pair = case.pair().eval()
    layer = built(FoldAndDrop, pair, off=True).train()
    own = [case.inputs(1)[0].requires_grad_() for _ in range(2)]
    for module, x in zip((layer, pair), own, strict=True):
        module(x).square().mean().backward()
    torch.testing.assert_close(own[0].grad, own[1].grad, rtol=1e-7, atol=1e-9)
    slope = pair[1].running_var.add(pair[1].eps).rsqrt() * (pair[1].weight if case.affine else 1)
    inner = layer.operation.scaled(layer.weight.grad, slope)  # the chain rule through W' = slope W
    torch.testing.assert_close(inner.detach(), pair[0].weight.grad, rtol=1e-6, atol=1e-8)


def test_only_weight_and_bias_are_left() -> None:
    layer = built(FoldAndDrop, Case(rank=2).pair())
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}
    assert not list(layer.buffers())


def test_a_norm_is_wanted() -> None:
    layer, norm = Case(rank=1).pair()
    quantizer = Largest(4)
    with pytest.raises(BadArgument, match="FoldAndDrop: wanted a batch norm, found none"):
        FoldAndDrop(Operation.of(layer), layer.weight, None, None, quantizer)
    with pytest.raises(BadArgument, match="NoNorm: wanted no batch norm, found BatchNorm1d"):
        NoNorm(Operation.of(layer), layer.weight, None, norm, quantizer)
