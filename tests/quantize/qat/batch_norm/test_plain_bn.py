"""Plain: an ordinary batch norm behind a rounded weight, its slope in the scales when deployed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.quantize.qat.batch_norm import Plain
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    built,
    cases,
    deploys,
    rounded,
    same_evaluation,
    same_statistics,
    same_training,
    trained,
)


@given(cases())
@settings(max_examples=25, deadline=None)
def test_without_rounding_it_is_the_layer_and_its_norm(case: Case) -> None:
    pair = case.pair().train()
    layer = built(Plain, pair, off=True)
    same_training(layer, pair, case.inputs(2))
    same_evaluation(layer, pair, case.inputs(1)[0])


@given(cases())
@settings(max_examples=15, deadline=None)
def test_frozen_and_without_rounding_it_is_the_layer_and_its_norm_in_evaluation_mode(case: Case) -> None:
    pair = case.pair()
    pair[1].eval()
    layer = built(Plain, pair, off=True)
    layer.freeze_()
    same_training(layer, pair, case.inputs(2))


@given(cases(), st.integers(1, 8), st.booleans())
@settings(max_examples=20, deadline=None)
def test_what_is_deployed_is_what_evaluation_computes(case: Case, bits: int, per_channel: bool) -> None:
    layer = built(Plain, case.pair(), bits=bits, per_channel=per_channel)
    deploys(trained(layer, case.inputs(3)), case.inputs(1)[0])


def test_the_weight_is_rounded_as_it_is() -> None:
    case = Case(rank=2, bias=True)
    pair = case.pair().float()
    layer = built(Plain, pair, bits=3)
    with torch.no_grad():
        pair[0].weight.copy_(rounded(pair[0].weight, 3))
    x = case.inputs(1)[0].float()
    torch.testing.assert_close(layer(x), pair(x))
    same_statistics(layer, pair)


@pytest.mark.parametrize("none", [0.0, -0.0, 1e-39])
def test_negative_slopes_turn_integers_and_a_slope_of_zero_makes_them_zero(none: float) -> None:
    pair = Case(rank=2).pair()
    with torch.no_grad():
        pair[1].weight.copy_(torch.tensor([2.0, -2.0, none]))
        pair[1].running_var.fill_(4.0 - pair[1].eps)
    layer = built(Plain, pair, bits=1).float()
    found, plain = layer.deployed(), layer.quantizer.integers(layer.weight)
    assert torch.equal(found.integers[0], plain[0])
    assert torch.equal(found.integers[1], -plain[1])
    assert not found.integers[2].any()
    torch.testing.assert_close(found.scale, layer.quantizer.scale(layer.weight).expand(3))  # slopes 1, -1, 0
