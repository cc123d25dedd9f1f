"""Frozen: folded in each pass, statistics stand still."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from gracile.quantize.qat.batch_norm import Frozen
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    built,
    cases,
    rounded,
    same_evaluation,
    same_statistics,
    same_training,
    trained,
)


@given(cases())
@settings(max_examples=25)
def test_without_rounding_it_is_the_layer_and_its_norm_in_evaluation_mode(case: Case) -> None:
    pair = case.pair()
    pair[1].eval()
    layer = built(Frozen, pair, off=True).train()
    same_training(layer, pair, case.inputs(2))
    same_evaluation(layer, pair, case.inputs(1)[0])


def test_the_folded_weight_is_rounded_and_batches_do_not_count() -> None:
    case = Case(rank=0, bias=True)
    pair, x = case.pair().float(), case.inputs(1)[0].float() * 100 + 50
    layer = built(Frozen, pair, bits=3).train()
    slope = pair[1].weight / torch.sqrt(pair[1].running_var + pair[1].eps)
    weight = rounded(slope[:, None] * pair[0].weight, 3)
    wanted = x @ weight.T + pair[1].bias + (pair[0].bias - pair[1].running_mean) * slope
    torch.testing.assert_close(layer(x), wanted)
    same_statistics(layer, pair)


def test_the_norm_trains() -> None:
    case = Case(rank=2)
    layer = built(Frozen, case.pair())
    before = [p.clone() for p in layer.norm.parameters()]
    trained(layer, case.inputs(2))
    assert all(not torch.equal(p, q.float()) for p, q in zip(layer.norm.parameters(), before, strict=True))
